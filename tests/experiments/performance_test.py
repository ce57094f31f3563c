"""How speed is measured and reported, by hand; the measuring itself is too long for a test."""

import jax
import pytest

from experiments.performance import __main__ as command
from experiments.performance import commands, frozen, results, timing, tpu
from experiments.performance.torch_process import torch_process
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import score_files
from flexfas_jax.training import trainable


def test_everything_takes_its_turn_after_one_round_to_warm_up():
  calls, times = [], iter(range(100))
  runs = {name: lambda name=name: calls.append(name) for name in 'ab'}
  found = timing.interleaved(runs, 2, lambda run: (run(), next(times))[1])
  assert calls == ['a', 'b'] * 3
  assert found == {'a': [2, 4], 'b': [3, 5]}


def test_a_ratio_is_of_the_same_round():
  row = timing.row('x', other=[4.0, 9.0, 8.0], ours=[2.0, 3.0, 8.0])
  assert (row['ratio'], row['low'], row['high'], row['repeats']) == ('2', '1', '3', 3)
  assert (row['ours'], row['other'], row['unit']) == ('3000', '8000', 'ms')


def row(case, figure, ratio):
  return timing.row(figure, [ratio], [1.0]) | {'case': case}


def test_a_case_replaces_its_own_rows_alone(tmp_path):
  file = tmp_path / 'results.csv'
  results.replace(file, [row('b', 'old', 1), row('b', 'older', 1)])
  results.replace(file, [row('a', 'kept', 2)])
  found = results.replace(file, [row('b', 'new', 3)])
  assert [(r['case'], r['figure'], r['ratio']) for r in found] == [
    ('a', 'kept', '2'),
    ('b', 'new', '3'),
  ]
  assert [r['figure'] for r in results.read(file)] == ['kept', 'new']
  readme = tmp_path / 'README.md'
  readme.write_text(f'before\n{results.START}stale\n{results.END}after\n')
  results.write_table(readme, results.read(file))
  text = readme.read_text()
  assert text.startswith('before\n') and text.endswith('after\n') and 'stale' not in text
  assert '| new | 3 | 3 to 3 | 1000 ms | 3000 ms |' in text
  results.draw(results.read(file), tmp_path / 'results.png')
  assert (tmp_path / 'results.png').stat().st_size > 1000


def test_cases_are_named_and_left_out(capsys):
  cases = command.chosen('', {'torch_python': '', 'data_dir': 'prepared'})
  assert {'subsets', 'input_images', 'waiting', 'memory_cdcn'} <= set(cases)
  assert (
    'cdcn' not in cases and 'cdcn: skipped, it requires --torch_python' in capsys.readouterr().out
  )
  with pytest.raises(ConfigError, match="unknown case 'x'; choose from: .*subsets"):
    command.chosen('x', {'torch_python': '', 'data_dir': ''})


@pytest.mark.parametrize(
  ('python', 'said'),
  [('/nowhere/python', 'cannot be run: No such file'), ('false', 'ended before it measured cdcn')],
)
def test_a_python_without_pytorch_is_an_error(python, said):
  """As a broken pipe it would be nobody's who reads, and exit code 0."""
  with pytest.raises(ConfigError, match=said), torch_process(python, 'cdcn', 'stock', 1) as ask:
    ask('infer')


def test_cycles_are_reported_by_the_models_own_names():
  text = '\n'.join(
    f'%a = f32[] fusion(), metadata={{op_name="jit(step)/{name}"}}, '
    f'backend_config={{"estimated_cycles":"{cycles}"}}'
    for name, cycles in (
      ('jvp(M)/stage_1/block_0/fc1/dot_general', 30),
      ('jvp(M)/stage_2/block_3/fc1/dot_general', 30),
      ('transpose(jvp(M))/stage_1/block_0/fc1/dot_general', 40),
    )
  )
  assert tpu.operations(text) == (
    '60% forward block/fc/dot_general, 40% gradient block/fc/dot_general'
  )


def test_a_row_replaces_the_one_of_the_same_key(tmp_path):
  file = tmp_path / 'tpu.csv'
  for network, ms in (('vit', 5), ('cdcn', 6), ('vit', 7)):
    row = dict.fromkeys(tpu.COLUMNS, 1) | {'network': network, 'step_ms': ms}
    results.replace(file, [row], tpu.COLUMNS, tpu.KEY)
  assert [(r['network'], r['step_ms']) for r in results.read(file)] == [('cdcn', '6'), ('vit', '7')]


@pytest.mark.parametrize('network', tpu.NETWORKS)
def test_the_papers_recipes_become_those_of_one_sensor(network):
  config = tpu.config_of(network, 'bfloat16', 4, remat=True)
  assert (config.model.modalities, config.model.fusion.name) == (('rgb',), 'single')
  assert (config.batch_size, config.model.dtype, config.model.backbone.remat) == (
    4,
    'bfloat16',
    True,
  )


@pytest.mark.parametrize('variant', frozen.VARIANTS)
def test_variants_differ_from_full_fine_tuning_in_what_trains(variant):
  config = frozen.config_of(variant, 'bfloat16', 4, 'Ti')
  experiment = tpu.experiment_of(config, jax.devices('cpu')[:1])
  trained, not_trained = trainable.split(experiment.abstract.params, experiment.trainable)
  fields = frozen.VARIANTS[variant]
  assert bool(not_trained) == bool(fields['trainable'])
  names = {name.split('/')[2] for name in trainable.flatten(trained) if 'adapters' in name}
  blocks = fields.get('blocks', range(12)) if fields.get('lora', True) else ()
  assert names == {f'block_{i}' for i in blocks}


def test_score_files_are_the_same_samples_with_and_without_metadata(tmp_path, monkeypatch):
  monkeypatch.setattr(commands, 'AT_ONCE', 40)
  read = []
  for metadata in (False, True):
    path = tmp_path / f'{metadata}.csv'
    commands.write_scores(path, 100, metadata)
    read.append(score_files.read(path))
  plain, known = read
  assert plain.ids.tolist() == known.ids.tolist() and plain.ids[99] == 'test/00000099'
  assert plain.label.tolist() == known.label.tolist()
  assert plain.scores['score'].tolist() == known.scores['score'].tolist()
  assert set(known.video) == {str(i) for i in range(10)}
  assert set(known.attack_category[known.label == 0]) == set(commands.KINDS)
  assert set(known.attack_category[known.label == 1]) == {''}
