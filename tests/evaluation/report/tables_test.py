"""Tables: percent, the same on a terminal and in a pipe, escaped for where they go."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from flexfas_jax.evaluation import evaluate, results
from flexfas_jax.evaluation.report import formatting, tables
from flexfas_jax.evaluation.score_files import Scores
from tests.evaluation.evaluate_test import DEV as MADE_DEV
from tests.evaluation.evaluate_test import TEST as MADE
from tests.evaluation.results_test import DEV, TEST, make


def test_text_is_in_percent():
  lines = tables.text(results.compute(TEST, 'dev_eer', DEV), 'WMCA').splitlines()
  assert lines[0] == 'WMCA'
  assert lines[1].split()[:7] == ['subset', 'ACER', 'APCER', 'APCER', 'max', 'BPCER', 'EER']
  # Three samples of each class say nothing, whatever the column.
  assert ' '.join(lines[2].split()) == f'rgb {" ".join(["n too small"] * 9)} 0.65 3 3 0'
  assert lines[5] == 'APCER by attack category'
  assert lines[6].split() == ['attack', 'n', 'rgb', 'rgb+depth']
  # Two prints and a replay say nothing of their kinds.
  assert [' '.join(line.split()) for line in lines[7:]] == [
    'print 2 n too small n too small',
    'replay 1 n too small n too small',
  ]
  bare = results.compute(make('t', TEST.scores['rgb']), 'fixed=0.5')
  assert 'category' not in tables.text(bare) and len(tables.drawn(bare)) == 1


def test_a_kind_with_enough_samples_has_its_rate():
  n = 40
  scores = Scores(
    ids=[str(i) for i in range(n + 1)],
    label=[0] * n + [1],
    scores={'rgb': [0.9] * 3 + [0.1] * (n - 3) + [0.9]},
    attack_category=['print'] * n + [''],
  )
  text = tables.text(results.compute(scores, 'fixed=0.5'))
  assert text.splitlines()[-1].split() == ['print', '40', '7.50']


def of_subjects(n):
  """36 bona fide samples and 36 attacks of n subjects each; 9 of the attacks are accepted."""
  label = [1] * 36 + [0] * 36
  return Scores(
    ids=[str(i) for i in range(72)],
    label=label,
    scores={'rgb': [0.9] * 45 + [0.1] * 27},
    subject=[f'{of}{i % n}' for i, of in zip(range(72), label, strict=True)],
    attack_category=[''] * 36 + ['print'] * 36,
  )


@pytest.mark.parametrize(('n', 'stated'), [(9, False), (10, True)])
def test_frames_of_few_subjects_have_no_rate_in_any_table(n, stated):
  evaluated = evaluate.evaluate('t', of_subjects(n), 'fixed=0.5', draws=50)
  main = tables.text(evaluated.metrics, insufficient=evaluated.insufficient)
  texts = [
    main,
    tables.interval_text(evaluated),
    tables.markdown([evaluated]),
    tables.latex([evaluated]),
  ]
  for drawn in (
    tables.drawn(evaluated.metrics, '', evaluated.insufficient),
    tables.interval_tables(evaluated),
  ):
    console = Console(file=io.StringIO(), width=300)
    console.print(*drawn)
    texts.append(console.file.getvalue())
  for text in texts:
    assert ('25.00' in text, '12.50' in text) == (stated, stated)
    assert ('n too small' in text) != stated
  flags = {
    name: of['insufficient_samples']
    for name, of in evaluate.to_json(evaluated)['rgb']['intervals'].items()
  }
  assert set(flags.values()) == {not stated}
  assert tables.text(evaluated.metrics) != main or stated  # by the samples alone, 36 are enough


@pytest.mark.parametrize('width', [40, 200])
def test_the_rich_table_shows_the_same_and_breaks_no_number(width):
  found = results.compute(TEST, 'dev_eer', DEV)
  console = Console(file=io.StringIO(), width=width)
  for table in tables.drawn(found, 'a [b] title'):
    console.print(table, crop=False)
  drawn = console.file.getvalue()
  words = set(tables.text(found).split())
  words -= {'TPR@', 'bona', 'fide', 'APCER', 'max', 'by', 'category', 'too', 'small'}
  assert words <= set(drawn.split())
  assert '[b]' in drawn


def test_a_name_from_a_file_cannot_steer_the_terminal():
  scores = Scores(['a', 'b'], [1, 0], {'r\x1b[31m': [0.9, 0.1]})
  found = evaluate.evaluate('x', scores, 'fixed=0.5', draws=20)
  assert '\x1b' not in tables.text(found.metrics)
  assert '\x1b' not in tables.interval_text(found)
  assert '\x1b' not in tables.markdown([found]) and '\x1b' not in tables.latex([found])


@pytest.fixture(scope='module')
def evaluated():
  return evaluate.evaluate('intra', MADE, 'dev_eer', MADE_DEV, draws=200, group_by=['ethnicity'])


def test_intervals_and_comparisons_as_text(evaluated):
  text = tables.interval_text(evaluated)
  low, high = evaluated.estimates['rgb']['acer'].bootstrap
  assert 'bootstrap over 30 subjects' in text
  value = evaluated.metrics['rgb']['acer']
  assert f'{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}]' in text
  assert 'rgb+ir differs from rgb in one run: ACER lower by ' in text
  assert 'over 30 subjects; one run: another training may differ' in text
  assert 'by ethnicity, rgb+ir' in text
  console = Console(file=io.StringIO(), width=200)
  for part in tables.interval_tables(evaluated):
    console.print(part, crop=False)
  assert 'rgb+ir differs from rgb in one run' in console.file.getvalue()


def test_a_comparison_that_tells_nothing_apart_says_so():
  scores = Scores(
    ids=[str(i) for i in range(60)],
    label=[0, 1] * 30,
    scores={'a: score': [0.1, 0.9] * 30, 'b: score': [0.1, 0.9] * 30},
  )
  [one] = evaluate.evaluate('x', scores, 'fixed=0.5', draws=50).comparisons
  assert formatting.sentence(one) == (
    'b and a do not differ significantly: ACER 0.00 points [0.00, 0.00], p 1.00, Holm p 1.00'
  )


def test_markdown_has_a_table_of_equal_rows(evaluated):
  text = tables.markdown([evaluated])
  blocks = [b.splitlines() for b in text.split('\n\n') if b.startswith('|')]
  assert len(blocks) == 3  # main rates, categories, species
  for block in blocks:
    assert len({line.replace('\\|', '').count('|') for line in block}) == 1
  assert 'print\\_a' in text and '90 attacks' not in text
  n = (MADE.label == 0).sum()
  assert f'{n} attacks' in text


def test_latex_is_escaped(evaluated):
  text = tables.latex([evaluated])
  assert text.count(r'\begin{tabular}') == text.count(r'\end{tabular}') == 3
  assert r'print\_a' in text and r'95 \%' in text
  for line in text.splitlines():
    assert '_' not in line.replace(r'\_', '') and '%' not in line.replace(r'\%', '')


def test_an_oracle_and_one_class_say_so():
  found = evaluate.evaluate('x', MADE, 'dev_eer', oracle=True, draws=0)
  assert 'ORACLE' in tables.markdown([found]) and 'ORACLE' in tables.latex([found])
  assert 'Clopper-Pearson over samples' in tables.markdown([found])
  some = MADE.only(np.asarray(MADE.label) == 1)
  assert 'undefined' in tables.markdown([evaluate.evaluate('x', some, 'fixed=0.5', draws=20)])


def test_means_over_runs_as_tables():
  rng = np.random.default_rng(0)
  systems = {
    f'{m} {i}': dataclasses.replace(
      MADE,
      scores={'rgb': np.clip(MADE.scores['rgb'] + away * (MADE.label - 0.5), 0, 1)
              + 0.01 * rng.normal(size=MADE.label.size)},
    )
    for m, away in (('a', 0.0), ('b', 1.0))
    for i in range(3)
  }  # fmt: skip
  found = evaluate.evaluate(
    'x',
    evaluate.merge_systems(systems),
    'fixed=0.5',
    draws=100,
    runs={m: [s for s in systems if s.startswith(m)] for m in 'ab'},
  )
  text = tables.interval_text(found)
  assert 'means over training runs; 95 % intervals over runs and subjects' in text
  assert 'one run' not in text and 'b: rgb is better than a: rgb: ACER lower by ' in text
  acer = found.run_means['a: rgb']['acer']
  [row] = [line for line in text.splitlines() if line.startswith('a: rgb ')]
  cells = ' '.join(row.split())
  span = f'[{100 * acer.bootstrap.low:.2f}, {100 * acer.bootstrap.high:.2f}]'
  assert cells.startswith(f'a: rgb 3 {100 * acer.value:.2f} {span} {100 * acer.deviation:.2f} ')
  assert f'\\{span[:-1]}\\]' in tables.markdown([found]) and 'mean of' in tables.latex([found])
  assert len(tables.interval_tables(found)) == 3


def test_rendered_images_are_stated_in_every_headline():
  rendered = dataclasses.replace(MADE, header={'rendered': True})
  for scores, stated in ((rendered, True), (MADE, False)):
    found = results.compute(scores, 'fixed=0.5')
    assert all(values.get('RENDERED', False) is stated for values in found.values())
    assert ('RENDERED' in tables.text(found, 'mine').splitlines()[0]) is stated
    assert all(('RENDERED' in str(t.title)) is stated for t in tables.drawn(found, 'mine'))
    one = evaluate.evaluate('x', scores, 'fixed=0.5', draws=0)
    assert ('RENDERED' in tables.markdown([one])) is stated
    assert ('RENDERED' in tables.latex([one])) is stated
    assert ('RENDERED' in evaluate.to_json(one)['rgb']) is stated
  both = tables.text(results.compute(rendered, 'dev_eer', oracle=True))
  assert both.startswith('ORACLE: the thresholds') and '; RENDERED' in both
