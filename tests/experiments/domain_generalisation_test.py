"""The experiment on domain generalisation: its runs, and tables of results as runs write them."""

import json

import numpy as np

from configs import domain_generalisation, face_recognition, masked_pretraining
from experiments.domain_generalisation import __main__ as experiment
from flexfas_jax.protocols import selection

SCORES = 'id,label,rgb\nwmca/0.1234567890123,attack,0.1234567890123\nb,bona_fide,1.25e-07\n'
LINE = '1944 training and 702 val examples, 0.79 M parameters (0.26 M of them train), 1 x cpu'


def write(workdir, run, hter):
  folder = workdir / run.name
  folder.mkdir(parents=True)
  subsets = {}
  for i, subset in enumerate(experiment.SHOWN):
    value = hter + i / 100
    rates = dict.fromkeys(experiment.RATES, 0.5) | {'hter': value, 'hter_at_test_eer': value - 0.02}
    rates |= {'least_hter_at_test_eer': value - 0.05, 'test_evaluations': 4.0}
    subsets[subset] = rates | {'by_video': {'hter': value / 2}}
  (folder / 'results.json').write_text(json.dumps({'target': subsets}))
  (folder / 'seconds').write_text('80')
  folder.with_suffix('.log').write_text('libtpu warns\n' + LINE + '\nmore\n')
  (folder / 'scores').mkdir()
  for name in ('config.json', 'metrics.jsonl', 'scores/val.json', 'scores/target.json'):
    (folder / name).write_text('{}')
  for name in ('val', 'target'):
    (folder / 'scores' / f'{name}.csv').write_text(SCORES)


def test_a_first_part_of_the_runs_is_an_experiment_with_fewer_seeds():
  runs = experiment.all_runs(list(experiment.METHODS), experiment.SEEDS)
  assert len(runs) == len(set(runs)) == 11 * 4 * 3
  assert {run.seed for run in runs[:44]} == {0}
  assert {run.target for run in runs[:11]} == {'wmca_like'}
  assert runs[45].name == 'erm_masked-wmca_like-1'


def test_pretraining_reads_the_sources_alone():
  for target in experiment.DOMAINS:
    for kind in ('faces', 'masked'):
      arguments = experiment.pretraining(kind, target)
      assert target not in ' '.join(arguments)
      others = [d for d in experiment.DOMAINS if d != target]
      assert all(f'rendered_faces/{d}:train' in ' '.join(arguments) for d in others)
    assert len(selection.split_selections(experiment.sets(target, 'train'))) == 3


def test_every_method_is_a_recipe_and_pretraining_fits_it():
  """The backbone's fields are those of the networks that it starts from."""
  for recipe, _ in experiment.METHODS.values():
    config = domain_generalisation.get_config(recipe)
    backbone = config.model.backbone.to_dict()
    for other in (face_recognition.get_config('vit'), masked_pretraining.get_config()):
      assert other.model.backbone.to_dict().items() <= backbone.items()
    domains = [v['domains'] for v in config.loss.to_dict().values() if 'domains' in v]
    assert set(domains) <= {3} and config.sampler.balance == ('domain', 'label')


def test_runs_continue_on_another_machine(tmp_path):
  """From the archive: as they were, but for digits that float32 does not have."""
  run = experiment.Run('erm', 'wmca_like', 0)
  for folder in ('here', 'there'):
    (tmp_path / folder).mkdir()
  write(tmp_path / 'here', run, 0.2)
  files = [tmp_path / name for name in ('a.tar.xz', 'b.tar.xz')]
  for file in files:
    experiment.pack(tmp_path / 'here', [run, run._replace(seed=1)], file)
  assert files[0].read_bytes() == files[1].read_bytes()
  experiment.unpack(files[0], tmp_path / 'there')
  experiment.unpack(tmp_path / 'none', tmp_path / 'there')
  found = tmp_path / 'there' / run.name
  assert (found / 'scores' / 'val.csv').read_text() == SCORES.replace(
    ',0.1234567890123', ',0.123456789'
  )
  assert found.with_suffix('.log').read_text() == LINE + '\n'
  tables = [experiment.collect(tmp_path / name, [run]) for name in ('here', 'there')]
  assert tables[0] == tables[1] and len(tables[0]) == 4


def test_the_tables(tmp_path):
  for seed, hter in enumerate((0.2, 0.3)):
    for target in experiment.DOMAINS[:2]:
      write(tmp_path, experiment.Run('erm', target, seed), hter)
  write(tmp_path, experiment.Run('lora', 'wmca_like', 0), 0.4)
  runs = experiment.all_runs(('erm', 'lora'), experiment.SEEDS)
  rows = [{k: str(v) for k, v in row.items()} for row in experiment.collect(tmp_path, runs)]
  assert len(rows) == 5 * 4 and set(rows[0]) == set(experiment.COLUMNS)
  np.testing.assert_allclose(experiment.percent(rows, 'hter', method='erm', subset='rgb'), [20, 30])
  by_subset = experiment.table_of_subsets(rows).splitlines()
  assert by_subset[2].startswith('| erm | 0.26 | 80 | 25.0 (7.1) | 26.0 (7.1) |')
  assert by_subset[3].startswith('| lora | 0.26 | 80 | 40.0 | 41.0 | 42.0 | 43.0 | 41.5 |')
  by_target = experiment.table_of_targets(rows).splitlines()
  assert by_target[2] == '| erm | 28.0 (7.1) | 28.0 (7.1) | - | - |'
  assert by_target[3] == '| lora | 43.0 | - | - | - |'
  evaluations = experiment.table_of_evaluations(rows).splitlines()
  assert evaluations[2] == '| erm | 26.5 (7.1) | 24.5 (7.1) | 21.5 (7.1) | 5.0 |'
  experiment.draw(rows, tmp_path / 'results.png')
  assert (tmp_path / 'results.png').stat().st_size > 5000
