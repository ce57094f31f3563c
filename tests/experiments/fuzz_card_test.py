"""Damaged cards, a few of them: the command makes 2,000."""

import json

from experiments.reliability import fuzz_card
from tests.prediction import bundles


def test_damaged_cards_end_as_documented(tmp_path):
  found = fuzz_card.fuzz(bundles.write(tmp_path / 'toy'), 150, format='stablehlo')
  assert found.faults == []
  assert sum(found.codes.values()) == 150 and found.codes[4] > 50
  assert found.growth < fuzz_card.MOST_GROWTH


def test_the_same_seed_makes_the_same_mutants(tmp_path):
  text = (bundles.write(tmp_path / 'toy') / 'card.json').read_bytes()
  some = list(fuzz_card.mutants(text, 40))
  assert some == list(fuzz_card.mutants(text, 40))
  assert some != list(fuzz_card.mutants(text, 40, seed=1))
  assert sum(mutant == text for mutant in some) < 3
  assert json.loads(text)['bundle'] == 2
