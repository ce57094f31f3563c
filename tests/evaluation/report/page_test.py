"""The report: what stands in it, that it can be read anywhere, and that no name acts in it."""

import base64
import dataclasses
import html.parser
import math
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from flexfas_jax.evaluation import comparisons, evaluate, intervals, score_files
from flexfas_jax.evaluation.report import (
  chapter,
  checklist,
  curves,
  figures,
  formatting,
  page,
  svg,
  tables,
  thumbnails,
)
from tests import browser

SUBSETS = ('rgb', 'rgb+depth', 'rgb+depth+ir')
SCRIPT = '<script>alert(1)</script>'
_VOID = {'meta', 'img', 'link', 'br', 'hr', 'input'}


def make(seed, people=24, subsets=SUBSETS, **fields):
  """Scores of people, of whom each gives bona fide samples and three species of attack."""
  rng = np.random.default_rng(seed)
  species = ['', 'paper', 'tablet', 'resin']
  rows = [(p, k, f) for p in range(people) for k in range(4) for f in range(3)]
  kind = np.array([k for _, k, _ in rows])
  noise, found = rng.normal(size=len(rows)), {}
  for i, subset in enumerate(subsets):
    x = (2 * i + 1) * (kind == 0) - i - 0.5 + (kind == 3) + 0.6 * noise + rng.normal(size=kind.size)
    found[subset] = 1 / (1 + np.exp(-x))
  return score_files.Scores(
    **{
      'ids': [f's{seed}/{p}/{k}/{f}' for p, k, f in rows],
      'label': kind == 0,
      'scores': found,
      'dataset': ['made'] * len(rows),
      'subject': [f'{seed}-{p}' for p, _, _ in rows],
      'video': [f'{seed}-{p}-{k}' for p, k, _ in rows],
      'attack_type': np.array(species)[kind],
      'attack_category': np.array(['', 'print', 'replay', 'mask'])[kind],
      'ethnicity': ['ABC'[p % 3] for p, _, _ in rows],
    }
    | fields
  )


@pytest.fixture
def no_figures(monkeypatch):
  """Drawing takes the time of all else together."""
  monkeypatch.setattr(chapter, 'figures', lambda result, salt: figures.Figures())


def evaluated(scores=None, name='intra', **how):
  how = {'rule': 'fixed=0.5', 'draws': 60} | how
  return evaluate.evaluate(name, make(1) if scores is None else scores, **how)


@pytest.fixture(scope='module')
def full():
  return evaluated(rule='dev_eer', dev=make(2, 16), group_by=['ethnicity'])


@pytest.fixture(scope='module')
def text(full):
  return page.html([full], 'A model', notes=['Made for the test.'])


class Tree(html.parser.HTMLParser):
  """Checks that elements close what they open, and gathers what tests ask for."""

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.elements, self.text = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.elements.append((tag, attributes, tuple(self.open)))
    self.ids += [attributes['id']] if 'id' in attributes else []
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in _VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, self.getpos()

  def handle_data(self, data):
    if 'style' not in self.open:
      self.text.append(data)

  def all(self, tag):
    return [attributes for name, attributes, _ in self.elements if name == tag]


def seen(text):
  """What is read of a page, with single spaces."""
  return ' '.join(' '.join(Tree(text).text).split())


def checked(result):
  return {check.question: check for check in checklist.answer_all(result)}


def test_says_in_this_order_what_is_asked(text):
  sections = [
    id_ for id_ in Tree(text).ids if re.fullmatch(r'verdict|test-1[-a-z]*|definitions', id_)
  ]
  assert [id_ for id_ in sections if not re.search('-(h|title|desc)$', id_)] == [
    *(
      'verdict',
      'test-1',
      'test-1-samples',
      'test-1-attacks',
      'test-1-rates',
      'test-1-figures',
      'test-1-comparisons',
    ),
    *('test-1-sensors', 'test-1-groups', 'test-1-mistakes', 'definitions'),
  ]
  words_ = seen(text)
  for part in (
    *('Comparisons', 'Laboratory checklist', 'Made for the test.', 'McNemar', 'fixed'),
    *('all rates with 95 % intervals', 'Gaps by ethnicity', 'The threshold is fixed'),
  ):
    assert part in words_


def test_well_formed(text):
  tree = Tree(text)
  assert len(tree.ids) == len(set(tree.ids))
  assert tree.all('html') == [{'lang': 'en'}]
  targets = [a['href'] for a in tree.all('a')] + [u['href'] for u in tree.all('use')]
  targets += ['#' + name for name in re.findall(r'url\(#([^)]*)\)', text)]
  assert {t[1:] for t in targets} <= set(tree.ids) and all(t[0] == '#' for t in targets)
  levels = [int(tag[1]) for tag, _, _ in tree.elements if re.fullmatch('h[1-6]', tag)]
  assert levels[0] == 1 and levels.count(1) == 1
  assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
  tables = len(tree.all('table'))
  assert tables == len(tree.all('caption')) > 5
  assert all('scope' in th for th in tree.all('th'))


def test_every_figure_says_what_is_seen(text, full):
  tree = Tree(text)
  drawn = tree.all('svg')
  assert len(drawn) == 4 + len(SUBSETS) + len(full.sensors) + 2
  for one in drawn:
    assert one['role'] == 'img'
    assert all(id_ in tree.ids for id_ in one['aria-labelledby'].split())
  sentences = re.findall('<desc[^>]*>(.*?)</desc>', text)
  assert len(sentences) == len(drawn) and all(re.search(r'\d', one) for one in sentences)
  bpcer = formatting.percent(full.metrics['rgb']['bpcer@apcer=1%'])
  assert any(
    one.startswith('DET') and f'rgb: BPCER {bpcer} % at APCER 1 %' in one for one in sentences
  )
  assert not re.search('#000[123]', text.partition('</style>')[2])  # colours are the page's


def test_loads_and_runs_nothing(text):
  tree = Tree(text)
  assert not re.search('https?://', text)
  assert {tag for tag, _, _ in tree.elements}.isdisjoint({'script', 'link', 'iframe', 'object'})
  assert "default-src 'none'" in text


def test_numbers_are_the_judgements(text, full, no_figures):
  words_, table = seen(text), chapter.chapter(full, 1).tables['subsets'].rows
  for subset in SUBSETS:
    row = table[SUBSETS.index(subset)]
    for name, cell in zip(chapter.TABLE, row.cells, strict=False):  # then threshold and counts
      of = full.estimates[subset][name]
      assert float(cell.text) == pytest.approx(100 * of.value, abs=0.05)
      assert f'{cell.text} [{100 * of.bootstrap.low:.1f}, {100 * of.bootstrap.high:.1f}]' in words_
  best = full.estimates['rgb+depth+ir']
  assert f'{formatting.fraction(best["bpcer"].count)} rejected' in words_
  worst = full.species_of_max('rgb+depth+ir')
  count = best[f'apcer_species/{worst}'].count
  assert f'{worst}: {count.errors}/{count.n} accepted' in words_
  bound = intervals.upper_bound(best['bpcer'].count)
  assert f'at most {100 * bound:.1f} %, one-sided' in words_
  assert 'ORACLE' not in words_


def test_sentences():
  full = evaluated(draws=200)
  sentences = [formatting.sentence(c, 1) for c in full.comparisons]
  verdicts = [c.verdict for c in full.comparisons]
  assert verdicts[1] == 'lower in one run'
  difference = full.comparisons[1].rates['acer']
  assert sentences[1].startswith(
    'rgb+depth+ir differs from rgb in one run: ACER lower by '
    f'{-100 * difference.value:.1f} points ['
  )
  better = dataclasses.replace(full.comparisons[1], runs=comparisons.Runs(3, 3))
  assert formatting.sentence(better, 1).startswith(
    f'rgb+depth+ir is better than rgb: ACER lower by {-100 * difference.value:.1f} points ['
  )
  turned = dataclasses.replace(full.comparisons[1], a='rgb+depth+ir', b='ensemble: score', p_holm=1)
  assert 'ensemble and rgb+depth+ir do not differ significantly: ACER ' in formatting.sentence(
    turned
  )
  without = dataclasses.replace(full.comparisons[1], rates={})
  counts = without.attacks
  assert formatting.sentence(without).startswith('rgb+depth+ir and rgb, without a bootstrap: ')
  assert (
    f'attacks: {counts.only_b_correct} fixed, {counts.only_a_correct} regressed (McNemar p '
    in formatting.sentence(without)
  )
  a_little = comparisons.Difference(-0.001, intervals.Interval(-0.012, 0.01), 0.8)
  slight = dataclasses.replace(turned, rates={'acer': a_little})
  assert 'ACER \N{MINUS SIGN}0.1 points [\N{MINUS SIGN}1.2, +1.0], p 0.80, Holm p 1.00; ' in (
    formatting.sentence(slight, 1, formatting.MINUS)
  )


def test_the_same_bytes_again(text, full):
  assert page.html([full], 'A model', notes=['Made for the test.']) == text


def test_several_tests_and_oracle(tmp_path, full, no_figures):
  other = evaluated(make(3, 14), 'cross', rule='dev_eer', oracle=True)
  path = tmp_path / 'report.html'
  page.write(path, [full, other], 'Two tests')
  text = path.read_text(encoding='utf-8')
  tree = Tree(text)
  assert len(tree.ids) == len(set(tree.ids))
  assert {'test-1', 'test-2', 'test-2-figures'} <= set(tree.ids)
  assert text.count('<strong>ORACLE</strong>') == 1 and '(ORACLE)</h3>' in text
  assert text.index('<strong>ORACLE</strong>') > text.index('verdict-2-h')
  assert list(tmp_path.iterdir()) == [path]
  found = checked(other)['Threshold independent of the test samples']
  assert found.sign == checklist.FAIL and 'ORACLE' in found.answer


def test_one_class_is_undefined():
  made = make(1)
  keep = made.label == 1
  fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
  some = {k: v[keep] for k, v in fields.items() if isinstance(v, np.ndarray)}
  scores = score_files.Scores(**some, scores={s: v[keep] for s, v in made.scores.items()})
  one = evaluated(scores)
  text = page.html([one], 'One class')
  row = chapter.chapter(one, 1).tables['subsets'].rows[0]
  assert [cell.text for cell in row.cells][:3] == ['undefined'] * 3
  assert row.cells[3].text == formatting.percent(one.metrics['rgb']['bpcer'])
  assert 'one class only' in seen(text)
  assert checked(one)['Enough samples of both classes'].sign == checklist.FAIL
  Tree(text)


def test_a_subset_that_is_not_served(no_figures):
  made = make(1)
  made.scores['rgb+depth'][:] = math.nan
  made.scores['rgb'][0] = math.nan
  found = chapter.chapter(evaluated(made), 1)
  assert {cell.text for cell in found.summary.rows[1].cells} == {'not served'}
  assert 'rgb+depth: not served' in seen(page.html([evaluated(made)], 'Without depth'))
  check = checked(evaluated(made))['Every sample has a score']
  assert check.sign == checklist.WARN and 'rgb: 1 without' in check.answer
  for scores in made.scores.values():
    scores[:] = math.nan
  assert 'there are no decisions' in seen(page.html([evaluated(made)], 'Nothing'))


def test_a_subset_that_is_not_recorded(no_figures):
  made = make(1, header={'not_recorded': ['ir']})
  result = evaluated(made, requirement='rgb+depth+ir: bpcer<=99%,at=point')
  found = chapter.chapter(result, 1)
  assert {cell.text for cell in found.summary.rows[2].cells[:3]} == {'not recorded'}
  assert found.headlines[0].subset == 'rgb+depth' and found.verdict == 'FAIL'
  words_ = seen(page.html([result], 'Without infrared'))
  assert 'FAIL intra' in words_
  assert 'rgb+depth+ir: not recorded, no sample has all of its sensors' in words_
  assert 'rgb+depth+ir: not recorded. No sample has ir; its scores' in words_
  answer = checked(result)['Every sample has a score'].answer
  assert answer == 'rgb+depth+ir: not recorded'
  assert 'rgb+depth+ir (not recorded)' in tables.interval_text(result)


def signed(text):
  """What is read between the report's conditions and its signatures, which stay on one page."""
  block = text[text.index('<div class="signatures">') :]
  return ' '.join(re.sub('<[^>]*>', ' ', block[: block.index('Operator')]).split())


def test_the_signatures_name_what_is_signed(no_figures):
  header = {'rendered': True, 'weights_hash': 'ab' * 32, 'notes': ['a leak was accepted']}
  one = evaluated(make(1, header=header), requirement='bpcer<=99%,at=point')
  other = evaluated(make(3, 14), 'cross', rule='dev_eer', oracle=True)
  lists = [score_files.list_hash(x.scores.ids, x.scores.label)[:16] for x in (one, other)]
  assert signed(page.html([one, other], 'Door 2.3')) == (
    f'Door 2.3 (RENDERED) intra: PASS ; model abababababababab, samples {lists[0]} '
    f'cross: no requirement given , ORACLE; model not stated, samples {lists[1]} '
    'WARNING a leak was accepted'
  )
  assert 'not stated whether photographs or rendered' in seen(page.html([other], 'Cross'))


def test_many_species_are_folded_and_long_names_cut():
  made = make(1, people=12, subsets=('rgb', 'rgb+ir'))
  attack = made.label == 0
  names = np.array([f'{"long_" * 40}{i:03}' for i in range(60)])
  species = np.where(attack, names[np.arange(made.label.size) % 60], '')
  result = evaluated(dataclasses.replace(made, attack_type=species, attack_category=None))
  found = chapter.chapter(result, 1)
  n = len(found.tables['species'].rows)
  assert n > 40 and len(found.tables['first_species'].rows) == 15
  assert (
    f'the 15 of {n} with the largest APCER (all: Attacks' in found.tables['first_species'].caption
  )
  text = page.html([result], 'Many')
  tree = Tree(text)
  # All are there, folded; each name is cut, and whole as a title.
  name = min(row.name for row in found.tables['species'].rows)
  folded = [at for tag, at, inside in tree.elements if tag == 'th' and 'details' in inside]
  assert name in [at.get('title') for at in folded] and len(name) > 200
  assert name not in re.sub('title="[^"]*"|<desc.*?</desc>', '', text)
  assert f'the 20 largest of {n}' in found.figures.species.title
  assert found.figures.species.svg.count('>n ') == 20
  assert len(found.figures.matrix.alternative) < 20 * 400
  # Few species are not folded.
  few = chapter.chapter(evaluated(draws=0), 1)
  assert few.tables['first_species'] is None and 'largest of' not in few.figures.species.title


def test_a_figure_of_many_species_has_those_whose_rate_is_stated():
  """Not those with one accepted sample of one, of which nothing is stated."""
  made = make(1, people=30)
  attack = np.flatnonzero(made.label == 0)
  names = np.full(made.label.size, '', object)
  names[attack] = [f'often{i % 5}' for i in range(attack.size)]
  scores = {subset: values.copy() for subset, values in made.scores.items()}
  for i, row in enumerate(attack[:25]):
    names[row] = f'once{i:02}'
    for values in scores.values():
      values[row] = 1.0
  species = names.astype(str)
  result = evaluated(
    dataclasses.replace(made, scores=scores, attack_type=species, attack_category=None)
  )
  drawn = chapter.chapter(result, 1).figures
  for figure in (drawn.species, drawn.matrix):
    assert {f'often{i}' for i in range(5)} <= set(re.findall('often.', figure.alternative))
    assert len(set(re.findall('once..', figure.alternative))) == 15


def test_figures_have_no_groups_without_a_purpose(text):
  assert '<g>' not in text and text.count('<g ') == text.count('</g>')
  assert svg._without_groups('<g>\n<g a="1"><p/></g>\n<g/>\n<g>\n<q/></g></g>') == (
    '\n<g a="1"><p/></g>\n<q/>'
  )


def test_no_two_landmarks_have_one_name(text):
  assert 'role="region"' not in text  # a table that scrolls is a group: pages have dozens


def test_too_few_samples_show_no_rate(monkeypatch):
  few = evaluated(make(1, people=8), group_by=['ethnicity'])
  words_ = seen(page.html([few], 'Few'))
  assert 'n too small' in words_ and 'n<29: ' in words_
  monkeypatch.setattr(chapter, 'figures', lambda result, salt: figures.Figures())
  found = chapter.chapter(few, 1)
  assert found.headlines[0].figures[1][1].text.startswith('n too small (')
  cells = found.tables['subsets'].rows[0].cells[: len(chapter.TABLE)]
  assert all('none' in cell.kind for cell in cells)  # 72 attacks, and yet of 8 subjects
  assert 'n too small' in checked(few)['Enough samples of every PAI species'].answer


def test_names_from_files_do_nothing():
  made = make(1, subsets=('rgb', '<b>&"\'x'))
  bad = f'{SCRIPT}\x1b[31m\u202e\x00$x_2$" onload="alert(1)'
  ids = np.array([f'{bad}{i}' for i in range(made.ids.size)])
  species = np.where(made.attack_type == 'resin', bad, made.attack_type)
  header = {'config': {SCRIPT: bad}, 'weights_hash': SCRIPT, 'code_version': SCRIPT}
  made = dataclasses.replace(
    made, ids=ids, attack_type=species, ethnicity=np.full(ids.size, '面具' + bad), header=header
  )
  hostile = evaluated(made, name=SCRIPT, group_by=['ethnicity'], notes=[SCRIPT])
  text = page.html([hostile], SCRIPT, lambda name, ids: {i: {bad: b'x'} for i in ids}, [SCRIPT])
  tree = Tree(text)
  assert {'script', 'b'}.isdisjoint(tag for tag, _, _ in tree.elements)
  assert not any(name.startswith('on') for _, attributes, _ in tree.elements for name in attributes)
  assert not any(c in text for c in '\x1b\x00\u202e')
  assert SCRIPT in ''.join(tree.text) and '$x_2$' in ''.join(tree.text)
  assert all('[' not in id_ and '<' not in id_ for id_ in tree.ids)


def test_pictures_are_small_and_in_the_page(full, no_figures):
  picture = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
  deep = (picture[..., 0].astype(np.uint16) + 1) * 100
  asked = []

  def find(name, ids):
    asked.append((name, list(ids)))
    encoded = {'rgb': cv2.imencode('.jpg', picture)[1].tobytes(), 'ir': b'damaged',
               'depth': cv2.imencode('.png', deep)[1].tobytes()}  # fmt: skip
    return {ids[0]: encoded}

  text = page.html([full], 'Seen', find)
  (name, ids), worst = asked[0], full.mistakes['rgb+depth+ir'][0][0]
  assert name == 'intra' and ids[0] == worst.id and len(ids) == len(set(ids)) and len(asked) == 1
  shown = [img for img in Tree(text).all('img') if img['alt'] == f'rgb of {worst.id}']
  start, encoded = shown[0]['src'].split(',')
  assert start == 'data:image/jpeg;base64'
  small = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
  assert small.shape == (112, 75, 3)
  assert any(img['alt'].startswith('depth') for img in Tree(text).all('img'))
  # A sample of each species is shown where it may be; of bona fide samples, the first.
  first = full.scores.ids[full.scores.label == 1][0]
  assert first in asked[0][1]
  sheet = {first: {'rgb': cv2.imencode('.jpg', picture)[1].tobytes()}}
  shown = page.html([full], 'Seen', lambda name, ids: sheet)
  assert [img['alt'] for img in Tree(shown).all('img')] == ['rgb of bona fide']
  hidden = page.html([full], 'Seen', lambda name, ids: sheet, show_species=False)
  assert not Tree(hidden).all('img')
  assert 'ir: cannot be read' in seen(text)


def test_checks_see_what_is_wrong():
  made, dev = make(1), make(2, 16)
  found = checked(evaluated(made, rule='dev_eer', dev=dev))
  assert found['Disjoint subjects in development and test'].sign == checklist.OK
  assert found['Development and test scored by the same weights'].sign == checklist.WARN
  leak = dataclasses.replace(dev, subject=np.where(dev.subject == '2-0', '1-0', dev.subject))
  known = {'weights_hash': 'abc'}
  made = dataclasses.replace(made, header=known)
  found = checked(evaluated(made, rule='dev_eer', dev=dataclasses.replace(leak, header=known)))
  assert found['Disjoint subjects in development and test'] == (
    checklist.FAIL, 'Disjoint subjects in development and test', '1 subjects are in both: made/1-0'
  )  # fmt: skip
  assert found['Development and test scored by the same weights'].sign == checklist.OK
  nobody = dataclasses.replace(
    made, subject=None, video=None, attack_type=None, attack_category=None
  )
  turned = dataclasses.replace(nobody, scores={'rgb+depth+ir': 1 - made.scores['rgb+depth+ir']})
  found = checked(evaluated(turned))
  assert found['A high score means bona fide'].sign == checklist.FAIL
  assert found['Decisions separate the classes'].sign == checklist.WARN
  assert found['Confidence intervals over subjects'].sign == checklist.WARN
  assert found['Enough samples of every PAI species'].sign == checklist.WARN


def test_no_check_is_green_beside_attacks_that_all_pass():
  """Scores without information: the polarity is not shown, and decisions do not separate."""
  made = make(1, subsets=('rgb',))
  made.scores['rgb'][:] = np.random.default_rng(0).random(made.label.size)
  found = checked(evaluated(made, rule='fixed=0.0'))
  polarity = found['A high score means bona fide']
  assert polarity.sign == checklist.WARN and 'no different from chance' in polarity.answer
  decisions = found['Decisions separate the classes']
  assert decisions.sign == checklist.FAIL and decisions.answer == 'rgb: every attack is accepted'
  rejected = checked(evaluated(made, rule='fixed=1.0'))['Decisions separate the classes']
  assert rejected.answer == 'rgb: every bona fide sample is rejected'
  made.scores['rgb'][:] = (made.label == 1) | (made.attack_type == 'resin')
  one = checked(evaluated(made))
  assert one['A high score means bona fide'].sign == checklist.OK
  assert one['Decisions separate the classes'] == (
    checklist.FAIL, 'Decisions separate the classes', 'accepted: every resin (rgb)'
  )  # fmt: skip


def test_a_file_of_another_framework(monkeypatch):
  rng = np.random.default_rng(0)
  label = np.arange(90) % 2
  scores = score_files.Scores(
    ids=[str(i) for i in range(90)], label=label, scores={'score': 20 * label + rng.normal(size=90)}
  )
  for how in ({'draws': 0}, {'draws': 50}, {'rule': 'fixed=-7'}, {'rule': 'fixed=300'}):
    figures.figures(evaluated(scores, **how), 'logits-separated')
  flat = dataclasses.replace(scores, scores={'score': np.zeros(90)})
  Tree(page.html([evaluated(flat)], 'All alike'))
  monkeypatch.setattr(chapter, 'figures', lambda result, salt: figures.Figures())
  both = evaluate.merge_systems({'one': scores, 'ensemble': scores})
  words_ = seen(page.html([evaluated(both, draws=50)], 'Two systems'))
  assert (
    'ensemble and one do not differ significantly' in words_ and 'ensemble: score' not in words_
  )


def test_a_long_curve_becomes_short_and_stays_where_it_is():
  rng = np.random.default_rng(0)
  x = np.sort(rng.random(100_000))
  y = np.sort(rng.random(100_000))
  keep = curves.thinned(x, y)
  assert keep.sum() <= 4 * 300 and keep[0] and keep[-1]
  assert np.abs(np.interp(x, x[keep], y[keep]) - y).max() <= 1 / 300


@pytest.mark.parametrize(
  'value, text', [(0, '0.0'), (0.0004, '0.04'), (0.9999, '99.99'), (1, '100.0'), (0.0345, '3.5')]
)
def test_percent(value, text):
  assert formatting.percent(value) == text


def test_the_verdict_comes_first(full, no_figures):
  first = seen(page.html([full], 'A model'))
  assert 'Verdict no requirement given intra' in first and 'Required' not in first
  stated = evaluated(requirement='bpcer<=1%,apcer_max<=99%,at=point')
  text = page.html([stated], 'A model')
  assert '<strong class="badge fail">FAIL</strong>' in text
  words_ = seen(text)
  assert 'Required: BPCER at most 1 %, APCER, max at most 99 %; compared are figures' in words_
  worst = max(stated.metrics, key=lambda s: stated.metrics[s]['bpcer'])
  rate = formatting.percent(stated.metrics[worst]['bpcer'])
  assert f'the worst of 3 subsets, {worst}: BPCER {rate} %, required at most 1 %' in words_
  assert words_.index('FAIL') < words_.index('Laboratory checklist')
  met = page.html([evaluated(requirement='bpcer<=99%,at=point')], 'A model')
  assert '<strong class="badge pass">PASS</strong>' in met


def test_warnings_of_the_data_are_banners(no_figures):
  warned = evaluated(make(1, header={'notes': ['a leak was accepted: surf', SCRIPT]}))
  text = page.html([warned, warned], 'Twice')
  assert text.count('class="banner warning"') == 2  # each warning once
  assert text.index('a leak was accepted') < text.index('<h1>') and SCRIPT not in text


def test_details_are_closed_and_what_is_known_of_attacks(full, no_figures):
  tree = Tree(page.html([full], 'A model'))
  closed = [a for a in tree.all('details') if 'open' not in a]
  assert len(closed) == len(tree.all('details')) > 8
  words_ = seen(page.html([full], 'A model'))
  count = full.estimates['rgb+depth+ir']['apcer_species/resin'].count
  span = full.estimates['rgb+depth+ir']['apcer_species/resin'].bootstrap
  # subjects, videos, samples, non-response, APCER
  assert 'resin (mask) not described 24 24 72 0.0 ' in words_
  assert (
    f'{formatting.percent(count.rate)} {formatting.span(span)} {formatting.fraction(count)}'
    in words_
  )
  # 16 development subjects, with 3 bona fide samples and 9 attacks each.
  assert 'Bona fide scores Attack scores rgb ' in words_ and '48 (16) 144 (16)' in words_


def test_subjects_that_stand_out_are_listed(no_figures):
  made = make(1, subsets=('rgb',))
  score = (made.label == 1).astype(float)
  score[(made.subject == '1-7') & (made.label == 1)] = 0
  found = evaluated(dataclasses.replace(made, scores={'rgb': score}))
  rows = chapter.chapter(found, 1).tables['subjects'].rows
  assert [row.name for row in rows] == ['made/1-7']
  assert [cell.text for cell in rows[0].cells] == ['BPCER', '100.0', '< 0.0001', 'stands out']


def test_never_imports_jax():
  code = (
    'import sys, flexfas_jax.evaluation.report.page;'
    'sys.exit(any(m in sys.modules for m in ("jax", "flax", "grain", "cv2", "tensorflow")))'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


_WIDE = """
  document.querySelectorAll('details').forEach(d => d.open = true);
  [...document.querySelectorAll('body *')]
    // On a phone nothing scrolls sideways, not even a table in its own box.
    .filter(e => !e.closest(innerWidth < 640 ? '.skip, thead' : '.scroll, pre, .skip'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + '.' + e.getAttribute('class'))"""


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_in_a_browser(tmp_path, text, full, no_figures):
  (tmp_path / 'page.html').write_text(text, encoding='utf-8')
  page.write(tmp_path / 'three.html', [full] * 3, 'Three tests')
  with browser.Browser(tmp_path / 'browser') as opened:

    def visit(name):
      opened.call('Page.navigate', url=(tmp_path / 'page.html').as_uri().replace('page.html', name))
      opened.until(
        'document.readyState == "complete" && document.querySelector("#definitions") !== null'
      )

    def pages():
      printed = base64.b64decode(opened.call('Page.printToPDF', preferCSSPageSize=True)['data'])
      return len(re.findall(rb'/Type\s*/Page\b', printed))

    for width, dark in ((390, False), (1280, True)):
      opened.look(width, 900, dark, phone=width < 500)
      visit('page.html')
      assert opened.run('document.documentElement.scrollHeight') < 6000  # details are closed
      assert opened.run(_WIDE) == []
      assert opened.run('document.documentElement.scrollWidth') <= width
      heights = '[...document.querySelectorAll("svg")].map(e => e.getBoundingClientRect().height)'
      assert min(opened.run(heights)) > 40
    # The summary is two pages of A4; the link opens what is closed.
    visit('three.html')
    assert pages() == 2
    visit('three.html#all')
    assert pages() > 6
    assert opened.console == []


def test_thumbnails_of_images_within_the_limits():
  """A report shows what can be decoded safely, and goes on without the rest."""
  image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
  png, bitmap = (cv2.imencode(form, image)[1].tobytes() for form in ('.png', '.bmp'))
  large, large_bitmap = bytearray(png), bytearray(bitmap)
  large[16:24] = (60_000).to_bytes(4) * 2
  large_bitmap[18:26] = (60_000).to_bytes(4, 'little') * 2
  encoded = {'png': png, 'bitmap': bitmap, 'a': bytes(large), 'b': bytes(large_bitmap), 'c': b'BM'}
  shown = {one.modality: bool(one.url) for one in thumbnails.thumbnails(encoded)}
  assert shown == {'png': True, 'bitmap': True, 'a': False, 'b': False, 'c': False}


def test_means_over_runs_come_first(no_figures):
  rng, theirs = np.random.default_rng(0), make(1, subsets=('rgb',))
  systems = {}
  for i in range(3):
    score = np.clip(theirs.scores['rgb'] + 0.2 * rng.normal(size=theirs.label.size), 0, 1)
    systems[f'ours {i}'] = dataclasses.replace(theirs, scores={'rgb': score})
  systems['theirs'] = theirs
  runs = {'ours': ['ours 0', 'ours 1', 'ours 2'], 'theirs': ['theirs']}
  found = evaluated(evaluate.merge_systems(systems), runs=runs)
  text = page.html([found], 'Runs')
  words_, acer = seen(text), found.run_means['ours: rgb']['acer']
  first = words_.index('ours: rgb, accepted at a score of at least the threshold of each run')
  assert first < words_.index('theirs: rgb, accepted at')
  assert 'ours 1: rgb, accepted at' not in words_  # no headline for a run of several
  span = f'[{100 * acer.bootstrap.low:.1f}, {100 * acer.bootstrap.high:.1f}]'
  assert f'{span} over runs and subjects' in words_ and 'mean of 3 training runs' in words_
  assert f'ours: rgb 3 {100 * acer.value:.1f} {span} sd {100 * acer.deviation:.1f}' in words_
  assert 'theirs: rgb against ours: rgb 1 and 3 runs' in words_
  assert 'One training run: these intervals cover the subjects of the test.' in words_
  several = evaluated(
    evaluate.merge_systems({name: systems[name] for name in runs['ours']}),
    runs={'ours': runs['ours']},
  )
  assert 'One training run' not in seen(page.html([several], 'Runs'))


def test_rendered_images_are_stated_in_the_headline(full, no_figures):
  rendered = evaluated(make(3, 14, header={'rendered': True}), 'cross')
  tree = Tree(page.html([full, rendered], 'Two tests'))
  assert '<h1>Two tests (RENDERED)</h1>' in page.html([full, rendered], 'Two tests')
  marks = [a for a in tree.all('p') if a.get('class') == 'banner rendered']
  assert len(marks) == 1 and 'Samples of cross are rendered images' in seen(
    page.html([full, rendered], 'Two tests')
  )
  alone = page.html([full], 'One test')
  assert 'RENDERED' not in seen(alone) and '<h1>One test</h1>' in alone
