"""Names are one however they are spelled; a video is (dataset, subject, video), in every check."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from flexfas_jax import identity, lint, score
from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import aggregation, disjoint, score_files
from flexfas_jax.protocols import leakage, lists, selection
from flexfas_jax.protocols.lint import linter

CASES = pathlib.Path(__file__).parent / 'cases' / 'scores'
SPELLINGS = CASES / 'same-name-two-spellings'
VIDEOS = CASES / 'video-within-subject'
ONE = ('Zo\u00eb', 'Zoe\u0308', ' Zo\u00eb', 'Zo\u00eb\xa0', 'Zo\u200b\u00eb', '\ufeffZo\u00eb')


def test_spellings_of_one_name():
  assert set(identity.canonical(ONE)) == {'Zo\u00eb'}
  assert identity.canonical(['a b', 'a \xa0 b', 'd/ a b /v']) == ['a b', 'a b', 'd/a b/v']
  plain = ['anna', 'Anna', '7', '007', '']
  assert identity.canonical(plain) == plain
  assert identity.similarity_key('anna') == identity.similarity_key('Anna')
  assert (
    identity.similarity_key('d/7')
    == identity.similarity_key('d/007')
    != identity.similarity_key('d/70')
  )
  assert identity.similarity_key('100') != identity.similarity_key('1')
  assert (
    identity.normalize_path('a b\u0308') == 'a b\u0308'
    and identity.normalize_path('o\u0308') == '\u00f6'
  )
  assert identity.subjects(['d', 'd', '', 'd'], ['s', 'd/s', 's ', '']) == ['d/s', 'd/s', 's', '']


def test_videos_by_hand():
  of = identity.videos(['d'] * 4, ['a', 'b', 'a ', ''], ['1', '1', '1', ''], ['w', 'x', 'y', 'z'])
  assert of.names == ['d/a/1', 'd/b/1', 'd/a/1', '']
  assert of.alone == [''] * 4 and not any(of.without_subject) and not of.by_id
  # Names that are whole already stay so.
  of = identity.videos(['d', ''], ['d/a', 'a'], ['d/a/1', 'a/1'], ['x', 'y'])
  assert of.names == ['d/a/1', 'a/1'] == of.alone
  # Without subjects the folder tells, where it has to.
  ids = ['t/a/1/0', 't/b/1/0', 't/b/1/1', 't/1/1/1']
  of = identity.videos([''] * 4, [''] * 4, ['1'] * 4, ids)
  assert of.names == ['t/a/1', 't/b/1', 't/b/1', 't/1/1'] and of.by_id
  of = identity.videos([''] * 2, [''] * 2, ['1', '1'], ['t/a/1/0', 't/a/1/1'])
  assert of.names == of.alone == ['1', '1'] and of.without_subject == [True] * 2 and not of.by_id
  of = identity.videos(['d'] * 2, [''] * 2, ['d/1'] * 2, ['d/a/1/0', 'd/b/1/0'])
  assert len(set(of.names)) == 2 and of.by_id
  of = identity.videos([''] * 3, [''] * 3, ['1', '1', '2'], ['t/a/1/0', 't/b/1/0', 'x'])
  assert of.names == ['t/a/1', 't/b/1', '2'] and of.without_subject == [False, False, True]
  assert identity.videos([], [], [], []) == ([], [], [], False)


def run(*args):
  return score.main([*map(str, args), '--bootstrap=0'])


@pytest.mark.parametrize('pair', [('test', 'dev'), ('test2', 'dev2'), ('test_full', 'dev_full'),
                                  ('test_nosub', 'dev_nosub')])  # fmt: skip
def test_videos_that_every_subject_has(pair, tmp_path, capsys):
  """360 videos: 90 bona fide, 270 attacks; not 12, and no leak of dev."""
  test, dev = (VIDEOS / f'{name}.csv' for name in pair)
  out = tmp_path / 'o.json'
  assert run(test, f'--dev={dev}', '--by_video', f'--json={out}') == 0
  found = json.loads(out.read_text())['score']
  assert (found['n_bona_fide'], found['n_attack']) == (90, 270)
  said = capsys.readouterr().err
  assert ('subjects are unknown and names of videos repeat' in said) == ('nosub' in pair[0])
  assert run(test, f'--dev={dev}') == 0


def test_videos_are_equal_with_and_without_subjects():
  read = {n: score_files.read(VIDEOS / f'{n}.csv') for n in ('test', 'test_full', 'test_nosub')}
  means = {
    n: aggregation.aggregate_by_video(scores).scores['score'].tolist() for n, scores in read.items()
  }
  assert means['test'] == means['test_full'] == means['test_nosub'] and len(means['test']) == 360
  again = aggregation.aggregate_by_video(read['test_nosub'])
  assert len(set(aggregation.identify_videos(again).names)) == 360  # as the bootstrap draws them


def scores(ids, subject='', video='', dataset=''):
  n = len(ids)

  def column(x):
    return [x] * n if isinstance(x, str) else x

  return score_files.Scores(
    ids, [0, 1] * (n // 2) + [0] * (n % 2), {'score': np.linspace(0, 1, n)},
    dataset=column(dataset), subject=column(subject), video=column(video),
  )  # fmt: skip


NOBODY = {'id': (), 'video': (), 'subject': ()}


def leaks(dev, test):
  try:
    leakage.check(NOBODY, disjoint.identity_columns(dev), {'test': disjoint.identity_columns(test)},
                   val_name='dev')  # fmt: skip
  except DataError as error:
    return str(error)
  return ''


def test_videos_of_two_files():
  a, b = ['a', 'b'], ['c', 'd']

  def one(ids, **k):
    return scores(ids, **k)

  assert 'video d/s/1' in leaks(one(a, subject=['s', 't'], video='1', dataset='d'),
                                one(b, subject='', video='d/s/1', dataset='d'))  # fmt: skip
  # Videos of two subjects, both called 1, are two.
  assert not leaks(one(a, subject=['s', 't'], video='1'), one(b, subject=['u', 'v'], video='1'))
  # A name that is all that one file has still finds a video of the other.
  with_, without = one(a, subject=['s', 't'], video=['v1', 'v2']), one(b, video='v1')
  assert 'video v1 in dev (1) and test (2)' in leaks(with_, without)
  assert 'video v1 in dev (2) and test (1)' in leaks(without, with_)
  assert 'video v1' in leaks(without, one(['x/v1/1', 'y'], video='v1'))
  # Names that repeat are no names of one video.
  assert not leaks(one(a, subject=['s', 't'], video='1'), one(b, video='1'))
  folders = one(['x/1/0', 'y/1/0'], video='1')
  assert not leaks(folders, one(['z/1/0', 'w/1/0'], video='1'))
  assert 'video x/1' in leaks(folders, one(['x/1/5', 'w/1/0'], video='1'))


@pytest.mark.parametrize(('test', 'leak'), [('z/1/0', set()), ('x/1/5', {'leak-video'})])
def test_lists_and_builders_tell_videos_apart_by_folders(test, leak, tmp_path):
  ids = {'x/1/0': 'train', 'y/1/0': 'train', test: 'test', 'w/1/0': 'test'}
  rows = [f'{id_},{i}.png,1,1,{split}' for i, (id_, split) in enumerate(ids.items())]
  (tmp_path / 'list.csv').write_text('\n'.join(['id,rgb,label,video,split', *rows, '']))
  found = linter.check([tmp_path / 'list.csv']).findings
  assert {(f.rule, f.row) for f in found} == {(rule, 2) for rule in leak}
  parts = {'train': [], 'test': []}
  for id_, split in ids.items():
    parts[split].append(lists.make_row({'rgb': f'{id_}.png'}, 'attack', id=id_, video='1'))
  assert {f.rule for f in linter.check_rows(parts).findings} == leak


def test_a_video_with_a_subject_in_some_rows():
  half = scores(['x/v/1', 'y'], subject=['s', ''], video='v')
  with pytest.raises(DataError, match='video v has a subject in some rows and none in others'):
    aggregation.aggregate_by_video(half)


def test_videos_by_name_alone_are_noted(tmp_path, capsys):
  path = tmp_path / 't.csv'
  path.write_text('id,video,label,score\na,v,1,.5\nb,v,1,.6\nc,w,0,.1\n')
  assert run(path, '--by_video') == 0
  assert 'subjects of 3 samples are unknown, so their 2 videos' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['same', 'nfd', 'space', 'nbsp'])
def test_a_subject_in_two_spellings_is_a_leak_of_scores(name, capsys):
  assert run(SPELLINGS / f'test_{name}.csv', f'--dev={SPELLINGS}/dev.csv') == 3
  assert 'leak-subject: subject Zo\u00eb' in capsys.readouterr().err


def test_capitals_and_zeros_are_noted(tmp_path, capsys):
  assert run(SPELLINGS / 'test_case.csv', f'--dev={SPELLINGS}/dev.csv') == 0
  assert 'ZO\u00cb in ' in capsys.readouterr().err
  for name, subject in (('dev', '7'), ('test', '007')):
    rows = [f'{name}/{i},{subject},{i % 2},0.{i}' for i in range(4)]
    (tmp_path / f'{name}.csv').write_text('\n'.join(['id,subject,label,score', *rows]))
  assert run(tmp_path / 'test.csv', f'--dev={tmp_path}/dev.csv') == 0
  said = capsys.readouterr().err
  assert 'the subjects 7 in ' in said and '007 in ' in said and 'may be the same subject' in said
  # Nothing is noted of subjects that stand on both sides, which is a leak.
  assert (
    leakage.find_similar_subjects(NOBODY, {'subject': ['a', 'A']}, {'t': {'subject': ['A', 'b']}})
    == []
  )


@pytest.mark.parametrize(('name', 'code', 'says'), [
  ('same', 3, 'leak: subject Zo'), ('nfd', 3, 'leak: subject Zo'),
  ('space', 3, 'leak: subject anna'), ('case', 0, 'note (similar names)'),
  ('zeros', 0, 'note (similar names)'),
])  # fmt: skip
def test_lists(name, code, says, capsys):
  assert lint.main([str(SPELLINGS / f'list_{name}.csv')]) == code
  assert says in capsys.readouterr().out


def test_builders_and_paths(tmp_path):
  """`prepare` has rows at hand; a file is one however its name is composed."""

  def row(path, subject, split):
    return lists.make_row({'rgb': path}, 'attack', subject=subject)

  found, *_ = linter.check_rows(
    {'train': [row('a.png', ONE[0], '')], 'test': [row('b.png', ONE[1], '')]}
  )
  assert [f.rule for f in found] == ['leak-subject']
  found, notes, _ = linter.check_rows(
    {'train': [row('a.png', '7', '')], 'test': [row('b.png', '007', '')]}
  )
  assert found == [] and notes[0].startswith('note: similar names') and '7 may be' in notes[0]
  found, *_ = linter.check_rows(
    {'train': [row(f'{ONE[0]}/1.png', '', '')], 'test': [row(f'{ONE[1]}/1.png', '', '')]}
  )
  assert [f.rule for f in found] == ['leak-file']


def test_ids_of_two_spellings_are_one_sample():
  dev, test = scores([f'{ONE[0]}/1', 'x']), scores([f'{ONE[1]}/1', 'y'])
  assert f'leak-file: id {ONE[0]}/1' in leaks(dev, test)


def test_training_checks_and_selections():
  def side(name):
    return {'id': [f'{name}1'], 'video': [''], 'subject': [name]}

  with pytest.raises(DataError, match='leak-subject: subject'):
    leakage.check(side(ONE[0]), side('b'), {'t': side(ONE[1])})
  with pytest.raises(DataError, match='leak-subject: subject'):
    leakage.check_pretraining([ONE[0]], {'val': side(ONE[1])})

  def kind(name):
    return {'label': ['attack'], 'attack_type': [name]}

  with pytest.raises(DataError, match='attack mask'):
    leakage.check_left_out(kind('mask '), {'unseen': kind('mask')})
  parts = {selection.part_of(name, 97) for name in ONE}
  assert len(parts) == 1
  assert selection.part_of('anna', 97) == 57  # parts of existing sets stay
  columns = {'id': ['1', '2', '3'], 'subject': [ONE[0], ONE[1], 'b'], 'dataset': ['d'] * 3}
  wanted = selection.parse(f'a:train[subject!={ONE[0]}]')
  assert selection.select(wanted, columns, columns, lambda path: set()).tolist() == [2]
  wanted = selection.parse('a:train[in=l]')
  ids = {'id': [f'd/{ONE[1]}', 'd/x'], 'dataset': ['d', 'd']}
  assert selection.select(wanted, ids, ids, lambda path: {ONE[0]}).tolist() == [0]


def test_bootstrap_draws_one_subject_of_two_spellings():
  from flexfas_jax.evaluation import evaluate

  one = scores(list('abcdef'), subject=[ONE[0], ONE[1], ONE[2], 'b', 'b', 'c'])
  assert evaluate.evaluate('x', one, 'fixed=0.5', draws=5).clusters.n == 3
  one = dataclasses.replace(one, subject=np.full(6, ''), video=np.full(6, '1'))
  ids = [f't/{name}/1/{i}' for i, name in enumerate('aabbcc')]
  one = dataclasses.replace(one, ids=ids)
  who = evaluate.evaluate('x', one, 'fixed=0.5', draws=5).clusters
  assert (who.unit, who.n) == ('videos', 3)


def test_row_numbers_are_no_ids(tmp_path, capsys):
  for name, n in (('dev', 6), ('test', 8)):
    rows = [f'{i},{i % 2},0.{i}' for i in range(n)]
    (tmp_path / f'{name}.csv').write_text('\n'.join(['id,label,score', *rows]))
  assert run(tmp_path / 'test.csv', f'--dev={tmp_path}/dev.csv') == 3
  said = capsys.readouterr().err
  assert 'are row numbers' in said and 'before them: awk' in said and 'leak:' not in said
  # Others than row numbers are leaks, and so are subjects beside row numbers.
  assert 'leak-file: id 3' in leaks(scores(['1', '2', '3']), scores(['0', '3', '7']))
  assert 'leak-file: id x' in leaks(scores(['0', 'x']), scores(['0', 'x', '2']))
  number = [str(i) for i in range(4)]
  assert 'leak-subject: subject s' in leaks(
    scores(number, subject='s'), scores(number, subject='s')
  )
  assert 'row numbers' in leaks(scores(['1', '2']), scores(['0', '1', '2']))
