"""The table of the adapters' experiment, from results that a run would have written."""

import json

import pytest

from experiments.adapters import __main__ as adapters


def write(workdir, recipe, seed, acer, line):
  folder = workdir / f'{recipe}-{seed}'
  folder.mkdir(parents=True)
  rates = dict.fromkeys(adapters.RATES, 0.5)
  subsets = {s: {**rates, 'acer': acer + i / 100} for i, s in enumerate(adapters.SHOWN)}
  (folder / 'results.json').write_text(json.dumps({'intra': subsets}))
  (folder / 'seconds').write_text('80')
  folder.with_suffix('.log').write_text(line)


def test_the_table_has_means_over_seeds_and_what_trains(tmp_path):
  some = '1512 training and 540 val examples, 0.84 M parameters (0.30 M of them train), 1 x cpu'
  for seed, acer in enumerate((0.1, 0.2)):
    write(tmp_path, 'conv', seed, acer, some)
  write(tmp_path, 'full', 0, 0.3, some.replace(' (0.30 M of them train)', ''))
  rows = adapters.collect(tmp_path, ('full', 'conv', 'ama'), (0, 1))
  assert len(rows) == 3 * 4 and {r['recipe'] for r in rows} == {'full', 'conv'}
  assert [r['trained'] for r in rows[::4]] == ['0.84', '0.30', '0.30']
  lines = adapters.table(rows).splitlines()
  assert lines[0].startswith('| recipe | trained, M | seconds | intra, rgb | intra, rgb+depth |')
  assert lines[2] == '| full | 0.84 | 80 | 30.0 | 31.0 | 32.0 | 33.0 |'
  assert lines[3] == '| conv | 0.30 | 80 | 15.0 (7.1) | 16.0 (7.1) | 17.0 (7.1) | 18.0 (7.1) |'
  adapters.draw(rows, tmp_path / 'results.png')
  assert (tmp_path / 'results.png').stat().st_size > 5000


def test_every_recipe_is_one_of_the_config():
  from configs import adapter_fusion

  for recipe in adapters.RECIPES:
    assert 'rendered_faces' in adapter_fusion.get_config(recipe).train
  with pytest.raises(ValueError, match='choose one of: conv, linear, full'):
    adapter_fusion.get_config('bottleneck')
