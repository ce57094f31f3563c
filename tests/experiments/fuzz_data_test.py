"""Damaged images, lists, manifests and prepared data, some of each: the command makes 2,000."""

import collections
import pathlib
import random

import pytest

from experiments.reliability import fuzz_data, fuzz_rows, mutations


@pytest.mark.process
@pytest.mark.parametrize('kind', fuzz_data.KINDS)
def test_nothing_wrong_is_accepted(kind, prepared):
  found = fuzz_data.fuzz(kind, 60, data_dir=prepared)
  assert found.bad == []
  assert found.endings.total() == 60
  assert found.count('refused') >= 20 and found.count('accepted') >= 3
  assert found.growth < fuzz_data.MOST_GROWTH


def test_the_same_seed_makes_the_same_mutations():
  content = pathlib.Path(__file__).read_bytes()
  some, same, others = (
    [mutations.of_bytes(content, rng) for _ in range(100)] for rng in map(random.Random, (0, 0, 1))
  )
  assert some == same != others
  kinds = collections.Counter(kind for kind, _ in some)
  assert len(kinds) == 9 and sum(changed == content for _, changed in some) < 5


@pytest.mark.parametrize('form', fuzz_rows.FORMS)
def test_the_oracle_reads_a_sound_list(form, tmp_path):
  path = tmp_path / 'train.txt'
  path.write_bytes(form.content(([list(form.names)] if form.header else []) + form.rows))
  labels = {'0': 'bona_fide', '1': 'attack'} if len(form.names) == 2 else None
  ending = fuzz_rows.compare_with_oracle(path, form, labels, tmp_path / 'lint.json')
  assert ending == ('accepted', 'as it is written')
