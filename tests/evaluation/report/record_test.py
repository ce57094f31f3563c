"""The report as JSON: its schema holds, and its numbers are those of the evaluation."""

import json
import pathlib

import jsonschema
import numpy as np
import pytest

from flexfas_jax.evaluation import evaluate
from flexfas_jax.evaluation.report import record
from flexfas_jax.evaluation.report import test_description as descriptions
from tests.evaluation.report.page_test import evaluated, make

SCHEMA = json.loads(pathlib.Path(record.__file__).with_name('record.schema.json').read_text())


def validate(found):
  text = json.dumps(found, allow_nan=False)
  jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))


def test_the_schema_holds():
  jsonschema.Draft202012Validator.check_schema(SCHEMA)
  description = {
    'test': dict.fromkeys(descriptions.FIELDS['test'], 'x'),
    'species': {'paper': {'description': 'printed', 'source': 'a shop', 'instruments': 2}},
  }
  full = evaluated(rule='dev_eer', dev=make(2, 16), draws=200, requirement='apcer_max<=5%,auc>=90%')
  without = make(1, subject=None, video=None, attack_type=None, attack_category=None)
  without.scores['rgb'][:] = np.nan
  few = evaluated(without, name='few', draws=200, requirement='rgb:bpcer<=1%')
  found = record.build([full, few], 'Two tests', description, ['a note'])
  validate(found)
  assert set(descriptions.FIELDS) | {'species'} == set(
    SCHEMA['properties']['description']['properties']
  )
  runs = {'ours': ['a', 'b']}
  merged = evaluate.merge_systems({'a': make(1), 'b': make(1)})
  validate(record.build([evaluated(merged, runs=runs)], 'Runs'))
  with pytest.raises(jsonschema.ValidationError):
    validate(found | {'surplus': 1})


def test_what_is_not_recorded_is_valid_and_stated():
  result = evaluated(
    make(1, header={'not_recorded': ['ir']}),
    requirement='rgb+depth+ir:bpcer<=99%,apcer/none<=9%,at=point',
  )
  found = record.build([result], 'Without infrared')
  validate(found)
  (test,) = found['tests']
  assert test['subsets']['rgb+depth+ir']['not_recorded'] == ['ir']
  assert test['subsets']['rgb+depth+ir']['rates'] == {}
  checks = test['verdicts'][0]['checks']
  assert [check['why_not'] for check in checks][:2] == ['not_recorded', 'unknown_attack']


def test_the_numbers_are_those_of_the_evaluation():
  full = evaluated(rule='dev_eer', dev=make(2, 16), draws=200, requirement='apcer_max<=5%')
  (test,) = record.build([full], 'One', {'species': {'resin': {'source': 'a mould'}}})['tests']
  assert test['verdict'] == 'FAIL' and test['verdicts'][0]['checks'][0]['subset'] == 'rgb'
  assert test['subsets']['rgb']['rates']['bpcer']['value'] == full.metrics['rgb']['bpcer']
  # 24 subjects with a video of 3 frames of each species; the development set has 16.
  resin = next(one for one in test['species'] if one['name'] == 'resin')
  assert (resin['subjects'], resin['presentations'], resin['samples']) == (24, 24, 72)
  assert (resin['category'], resin['source'], resin['description']) == ('mask', 'a mould', None)
  assert (
    resin['apcer']['rgb']['errors'] == full.estimates['rgb']['apcer_species/resin'].count.errors
  )
  assert test['subsets']['rgb']['fitted_on'] == {
    'attack': {'scores': 144, 'subjects': 16},
    'bona_fide': {'scores': 48, 'subjects': 16},
  }
  wrong = sum(one['errors'] for one in test['subjects']['rgb'] if one['class'] == 'bona_fide')
  assert wrong == full.estimates['rgb']['bpcer'].count.errors
  fixed = record.build([evaluated()], 'One')['tests'][0]
  assert fixed['subsets']['rgb']['fitted_on'] is None and fixed['development'] is None
  assert fixed['verdict'] == 'no requirement given' and fixed['requirement'] is None
