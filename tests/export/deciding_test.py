"""Thresholds of a bundle: those of the rule, off the edge."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import expit, logit

from flexfas_jax.export import deciding


def test_steadied_is_a_hair_below():
  score = np.array([0.1, 0.5, 0.9, np.nan])
  found = deciding.steadied(0.5, score)
  assert logit(found) == pytest.approx(-deciding.HAIR, rel=1e-6)


def test_steadied_is_halfway_where_scores_are_close():
  near = expit(-1e-5)
  assert logit(deciding.steadied(0.5, [near, 0.5, 0.9])) == pytest.approx(-5e-6, rel=1e-4)


def test_steadied_of_the_lowest_score_and_of_certainty():
  assert logit(deciding.steadied(0.5, [0.5, 0.9])) == pytest.approx(-deciding.HAIR, rel=1e-6)
  assert deciding.steadied(1.0, [0.5, 1.0]) == 1.0


@pytest.mark.parametrize(
  'rules,wanted',
  [
    ({'cross': 'fixed=0.5', 'intra': 'dev_bpcer=1%'}, 'dev_bpcer=1%'),
    ({'cross': 'dev_bpcer=5%', 'intra': 'fixed=0.5'}, 'dev_bpcer=5%'),
    ({'intra': 'fixed=0.5'}, 'dev_eer'),
  ],
)
def test_the_rule_is_that_of_the_first_test_which_has_one(rules, wanted):
  config = ConfigDict({'test': dict.fromkeys(rules, 'a/b:test'), 'threshold': rules})
  assert deciding.rule_of(config) == wanted
