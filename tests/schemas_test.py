"""The JSON schemas of file formats, against files that the code writes and card_schema's checks."""

import copy
import csv
import json
import pathlib
import re

import jsonschema
import pytest

from flexfas_jax import score
from flexfas_jax.evaluation import metrics, scales
from flexfas_jax.prediction import card_schema
from tests.prediction import bundles

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / 'flexfas_jax' / 'schemas'
NAMES = sorted(path.stem for path in FOLDER.glob('*.json'))


def schema_of(name):
  return json.loads((FOLDER / f'{name}.json').read_text())


def validate(value, name, part=''):
  schema = schema_of(name)
  if part:
    schema = {'$ref': f'#/$defs/{part}', '$defs': schema['$defs']}
  jsonschema.Draft202012Validator(schema).validate(value)


def is_valid(value, name):
  return jsonschema.Draft202012Validator(schema_of(name)).is_valid(value)


@pytest.mark.parametrize('name', NAMES)
def test_schemas_are_schemas_and_documented(name):
  schema = schema_of(name)
  jsonschema.Draft202012Validator.check_schema(schema)
  assert schema['title'] and schema['description']
  page = (ROOT / 'docs' / 'reference' / 'files.md').read_text()
  assert f'flexfas_jax/schemas/{name}.json' in page, 'docs/reference/files.md lacks it'


def test_every_metric_is_in_the_schema_of_results():
  figures = schema_of('results')['$defs']['figures']['properties']
  for metric in metrics.METRICS:
    assert figures[metric.name]['description'].startswith(metric.definition.replace('`', ''))


def test_every_scale_is_in_the_schema_of_headers():
  assert all(map(scales.is_valid, schema_of('score_header')['properties']['scale']['enum']))
  assert {*scales.OPTIONS, *scales.NOTES} <= {
    *schema_of('score_header')['properties']['scale']['enum']
  }


def test_the_files_of_a_run(small_run):
  validate(json.loads((small_run / 'results.json').read_text()), 'results')
  files = sorted((small_run / 'scores').glob('*.csv'))
  assert files
  for file in files:
    validate(json.loads(file.with_suffix('.json').read_text()), 'score_header')
    with open(file, newline='') as opened:
      rows = list(csv.DictReader(opened))
    for row in rows:
      validate(row, 'score_row')


def write_scores(path, shift):
  """Scores of 12 subjects, two images of each label, of two groups and two species."""
  rows = ['id,label,subject,attack_type,attack_category,ethnicity,rgb,rgb+ir']
  for i in range(24):
    for label in (1, 0):
      value = (7 * i + 11 * label + shift) % 40 / 80 + label / 3
      kind = ('', '') if label else (('photo', 'screen')[i % 2], ('print', 'replay')[i % 2])
      group = 'AC'[i % 4 // 2]
      rows.append(
        f'{i}_{label},{label},s{i // 2},{",".join(kind)},{group},{value},{value / 2 + 0.1}'
      )
  path.write_text('\n'.join(rows) + '\n')


def test_an_evaluation_with_intervals_comparisons_groups_and_several_runs(tmp_path, capsys):
  for number, name in enumerate(('a1', 'a2', 'b1', 'b2', 'a1_val', 'a2_val', 'b1_val', 'b2_val')):
    write_scores(tmp_path / f'{name}.csv', 3 * number)
    if name.endswith('_val'):
      text = re.sub(r',s(?=\d)', ',v', (tmp_path / f'{name}.csv').read_text()).replace('\n', '\nv')
      (tmp_path / f'{name}.csv').write_text(text.removesuffix('v'))

  def paths(names):
    return ','.join(f'{tmp_path}/{name}.csv' for name in names)

  code = score.main(
    [
      f'a={paths(["a1", "a2"])}', f'--dev={paths(["a1_val", "a2_val"])}',
      f'--against=b={paths(["b1", "b2"])}', f'--against_dev={paths(["b1_val", "b2_val"])}',
      '--group_by=ethnicity', '--bootstrap=200', f'--json={tmp_path}/results.json',
      '--pass_if=apcer_max<=50%,auc>=0.6',
    ]
  )  # fmt: skip
  assert code == 0, capsys.readouterr().err
  found = json.loads((tmp_path / 'results.json').read_text())
  validate(found, 'results', 'evaluation')
  entries = found.values()
  assert any('of_runs' in entry for entry in entries)
  assert any(len(entry['pass_if']['checks']) == 2 for entry in entries if 'pass_if' in entry)
  assert any('groups' in entry for entry in entries) and any('against' in e for e in entries)
  some = next(entry for entry in entries if 'intervals' in entry)
  some['intervals']['acer']['insufficient_samples'] = 'no'
  with pytest.raises(jsonschema.ValidationError):
    validate(found, 'results', 'evaluation')


@pytest.fixture(scope='module')
def card(tmp_path_factory):
  folder = bundles.write(tmp_path_factory.mktemp('bundle') / 'toy')
  return json.loads((folder / 'card.json').read_text())


def test_a_card(card):
  validate(card, 'card')
  card_schema.check(card)


@pytest.mark.parametrize(
  'place, value',
  [
    (('weights_hash',), None),
    (('sequence',), -1),
    (('image_size',), 4097),
    (('modalities',), ['rgb', 'rgb']),
    (('modalities',), ['lidar']),
    (('subsets',), []),
    (('resize',), 'cubic'),
    (('inputs', 'rgb', 'bits'), [12]),
    (('inputs', 'depth', 'unit'), 'cm'),
    (('evidence', 'min_scores'), 0),
    (('thresholds', 'rgb', 'value'), 0),
    (('thresholds', 'rgb', 'value'), '0.5'),
    (('thresholds', 'rgb', 'counts', 'attack', 'scores'), None),
    (('models', 0, 'sha256'), 'f' * 63),
    (('models', 0, 'present'), 1),
    (('notes',), [1]),
  ],
)
def test_what_prediction_refuses_the_schema_refuses(card, place, value):
  """A value; None: the field is taken out."""
  changed = copy.deepcopy(card)
  owner = changed
  for key in place[:-1]:
    owner = owner[key]
  if value is None:
    del owner[place[-1]]
  else:
    owner[place[-1]] = value
  with pytest.raises(ValueError):
    card_schema.check(changed)
  assert not is_valid(changed, 'card')
