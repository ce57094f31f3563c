"""Score files: written and read alike, and every fault of a file named with its row."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexfas_jax import csv_dialect, schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import score_files

NAN = math.nan


def make(**changes):
  fields = {
    'ids': ['s1', 's2', 's3'],
    'label': [1, 0, 1],
    'scores': {'rgb': [0.1 + 0.2, 1e-300, NAN], 'rgb+depth': [1 / 3, NAN, 1.0]},
    'dataset': ['wmca_like'] * 3,
    'subject': ['001', '002', '王'],
    'video': ['v,1', 'v"2', 'v\n3'],
    'attack_type': ['', 'a4_matte', ''],
    'attack_category': ['', 'print', ''],
    'header': {'weights_hash': 'abc', 'config': {'seed': 1}},
  }
  return score_files.Scores(**{**fields, **changes})


def save(path, *lines, newline='\n', encoding='utf-8'):
  path.write_bytes((newline.join(lines) + newline).encode(encoding))
  return path


@pytest.mark.parametrize('kind', ['bona fide', 'bona_fide', 'Live', 'genuine', 'REAL'])
@pytest.mark.parametrize('column', ['attack_type', 'attack_category'])
def test_an_attack_whose_kind_is_bona_fide_is_refused(tmp_path, column, kind):
  head = f'id,label,{column},score'
  path = save(tmp_path / 'a.csv', head, f'a,1,{kind},.9', 'b,0,print,.1', f'c,0,{kind},.2')
  with pytest.raises(DataError) as error:
    score_files.read(path)
  assert str(error.value).startswith(
    f"{path}, row 4: c is labelled attack, and its {column} is '{kind}', as in 1 rows. Correct the "
  )
  assert '--labels' in str(error.value) and 'leave' in str(error.value)
  # A bona fide sample may be called so. A kind that another file adds is checked as well.
  path = save(tmp_path / 'a.csv', head, f'a,1,{kind},.9', 'b,0,print,.1', 'c,0,,.2')
  scores = score_files.read(path)
  with pytest.raises(DataError, match=f'a.csv: c is labelled attack, and its {column}'):
    score_files.join_columns(scores, {'c': {column: kind}})


def test_rendered_images_are_recognised_without_a_header():
  assert make().rendered  # the embedded data set
  assert not make(dataset=['wmca'] * 3).rendered
  assert make(dataset=None, ids=['a', 'surf_like/h0005/v4/01', 'b']).rendered
  assert not make(dataset=None, ids=['a', 'surf_like', 'b']).rendered
  assert make(dataset=None, header={'rendered': True}).rendered
  assert not make(header={'rendered': False}).rendered  # stated


def test_round_trip(tmp_path):
  written = make(nan_samples={'rgb': [2]})
  score_files.write(tmp_path / 'a.csv', written)
  read = score_files.read(tmp_path / 'a.csv')
  for name in ('ids', 'label', *schema.METADATA):
    np.testing.assert_array_equal(getattr(read, name), getattr(written, name), name)
  assert list(read.scores) == ['rgb', 'rgb+depth']
  for subset in written.scores:
    np.testing.assert_array_equal(read.scores[subset], written.scores[subset])  # bit for bit
  assert {k: v.tolist() for k, v in read.nan_samples.items()} == {'rgb': [2]}
  assert read.label.dtype == np.int8 and read.scores['rgb'].dtype == np.float64
  assert read.path == tmp_path / 'a.csv'
  assert read.header == {
    'weights_hash': 'abc',
    'config': {'seed': 1},
    'list_hash': score_files.list_hash(written.ids, written.label),
    'polarity': 'high is bona fide',
    'code_version': '0.1.0',
  }


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
  st.lists(
    st.tuples(
      st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0\r'), min_size=1),
      st.integers(0, 1),
      st.floats(allow_infinity=False),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row[0],
  )
)
def test_any_text_and_any_number_come_back(tmp_path_factory, rows):
  path = tmp_path_factory.getbasetemp() / 'any.csv'
  ids, label, score = zip(*rows, strict=True)
  score_files.write(path, score_files.Scores(ids, label, {'rgb': score}, video=ids))
  read = score_files.read(path)
  assert read.ids.tolist() == read.video.tolist() == list(ids)
  np.testing.assert_array_equal(read.label, label)
  np.testing.assert_array_equal(read.scores['rgb'], score)


def test_equal_scores_give_equal_bytes_and_nothing_else(tmp_path):
  header = make().header
  for name, keys in (('a', header), ('b', reversed(header)), ('a', header)):
    ordered = {key: header[key] for key in keys}
    score_files.write(tmp_path / f'{name}.csv', make(header=ordered))
  assert (tmp_path / 'a.csv').read_bytes() == (tmp_path / 'b.csv').read_bytes()
  assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.csv', 'a.json', 'b.csv', 'b.json']


def test_the_file_as_others_read_it(tmp_path):
  score_files.write(tmp_path / 'a.csv', make(video=None, subject=None))
  assert (tmp_path / 'a.csv').read_text() == (
    'id,dataset,subject,video,label,attack_type,attack_category,rgb,rgb+depth\n'
    's1,wmca_like,,,bona_fide,,,0.30000000000000004,0.3333333333333333\n'
    's2,wmca_like,,,attack,a4_matte,print,1e-300,\n'
    's3,wmca_like,,,bona_fide,,,,1.0\n'
  )


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  score_files.write(tmp_path / 'a.csv', make())
  before = (tmp_path / 'a.csv').read_bytes()

  def full(*_):
    raise OSError('disk full')

  monkeypatch.setattr(score_files.Path, 'replace', full)
  with pytest.raises(OSError, match='disk full'):
    score_files.write(tmp_path / 'a.csv', make(scores={'rgb': [0, 0, 0]}))
  assert (tmp_path / 'a.csv').read_bytes() == before
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a.csv', 'a.json']


def test_any_frameworks_file(tmp_path):
  path = save(tmp_path / 'a.csv', 'score,label,id,path', '.5,1,x,p', '1e-3,0,y,q', ',bona_fide,z,r')
  read = score_files.read(path)
  assert read.ids.tolist() == ['x', 'y', 'z']
  assert read.label.tolist() == [1, 0, 1]
  np.testing.assert_array_equal(read.scores['score'], [0.5, 0.001, NAN])
  assert list(read.scores) == ['score']
  assert read.dataset.tolist() == ['', '', '']
  assert read.header == {} and read.nan_samples == {}


def test_byte_order_mark_crlf_and_empty_lines(tmp_path):
  lines = ('id,label,score', 'x,1,.5', '', 'y,0,.25', '')
  path = save(tmp_path / 'a.csv', *lines, newline='\r\n', encoding='utf-8-sig')
  read = score_files.read(path)
  assert read.ids.tolist() == ['x', 'y']
  assert read.scores['score'].tolist() == [0.5, 0.25]


def test_empty_is_a_failure_to_acquire_and_nan_a_fault(tmp_path):
  path = save(tmp_path / 'a.csv', 'id,label,rgb,depth', 'x,1,,', 'y,0,nan,', 'z,0,.1,', 'w,0,NaN,')
  read = score_files.read(path)
  np.testing.assert_array_equal(read.scores['rgb'], [NAN, NAN, 0.1, NAN])
  np.testing.assert_array_equal(read.scores['depth'], [NAN] * 4)
  assert {k: v.tolist() for k, v in read.nan_samples.items()} == {'rgb': [1, 3]}


def test_rows_are_read_in_order_beyond_one_chunk(tmp_path):
  n = 2 * csv_dialect.ROWS_AT_ONCE + 5
  label = np.arange(n) % 2
  score_files.write(
    tmp_path / 'a.csv', score_files.Scores(np.arange(n), label, {'rgb': np.arange(n)})
  )
  read = score_files.read(tmp_path / 'a.csv')
  np.testing.assert_array_equal(read.ids, np.arange(n).astype(str))
  np.testing.assert_array_equal(read.scores['rgb'], np.arange(n))
  np.testing.assert_array_equal(read.label, label)

  lines = (tmp_path / 'a.csv').read_text().splitlines()
  (tmp_path / 'a.json').unlink()
  lines[n] = lines[n].replace('4', 'four')  # the last row, in the third chunk
  with pytest.raises(DataError, match=rf'row {n + 1}: rgb is .*four'):
    score_files.read(save(tmp_path / 'a.csv', *lines))


@pytest.mark.parametrize(
  ('lines', 'says'),
  [
    ([], 'is empty'),
    (['id,label,score'], 'is empty'),
    (['id,score', 'x,.5'], r"row 1: no column \['label'\]"),
    (['label,score', '1,.5'], r"row 1: no column \['id'\]"),
    (['id|label|score', 'x|1|.5'], 'row 1: no column .* separated by commas'),
    (['id,label', 'x,1'], 'row 1: no column of scores'),
    (['id,label,dataset', 'x,1,d'], 'row 1: no column of scores'),
    (['id,label,score,score', 'x,1,.5,.5'], 'row 1: the columns score are there twice'),
    (['id,label,score', 'x,1,.5', 'y,1,high'], "row 3: score is 'high', not a number"),
    (['id,label,score', 'x,1, ', 'y,1,.5'], "row 2: score is ' '"),
    (['id,label,rgb,depth', 'x,1,.5,', 'y,1,.5,-inf'], "row 3: depth is '-inf'"),
    (['id,label,score', '', 'x,1,.5', '"y', 'y",1,1e999'], "row 5: score is '1e999'"),
    (['id,label,score', 'x,1,.5', 'y,live,.5'], "row 3: unknown label 'live'"),
    (['id,label,score', 'x,-1,.5'], "row 2: unknown label '-1'"),
    (['id,label,score', 'x,,.5'], 'row 2: the label is empty'),
    (['id,label,score', 'x,1,.5', 'y,1'], 'row 3: 2 cells where row 1 has 3'),
    (['id,label,score', 'x,1,.5', 'y,1,.5,.5'], 'row 3: 4 cells where row 1 has 3'),
    (['id,label,score', 'x,1,.5', 'x,1,.5'], 'every id must stand once: x in rows 2 and 3'),
    (['id,label,score', 'x,1,.5', ',1,.5'], 'row 3: the id is empty'),
    (['id,label,score', 'x,1,.5', '"y,1,.5'], 'row 3: not a CSV'),
  ],
)
def test_a_bad_file_is_named_with_its_row(tmp_path, lines, says):
  path = save(tmp_path / 'bad.csv', *lines) if lines else tmp_path / 'bad.csv'
  path.touch()
  with pytest.raises(DataError, match=says) as error:
    score_files.read(path)
  assert str(path) in str(error.value)


def test_many_duplicates_are_counted(tmp_path):
  path = save(tmp_path / 'a.csv', 'id,label,score', *['x,1,.5', 'y,0,.5'] * 6)
  with pytest.raises(
    DataError, match='x in rows 2 and 4; y in rows 3 and 5; .*; and 5 more'
  ) as error:
    score_files.read(path)
  assert str(error.value).count(' in rows ') == 5
  five = save(tmp_path / 'a.csv', 'id,label,score', *['x,1,.5'] * 6)
  with pytest.raises(DataError, match='rows 2 and 7$'):
    score_files.read(five)


def test_columns_of_other_samples_are_refused():
  with pytest.raises(DataError, match='none of its ids .the first is s1. is in the files of'):
    score_files.join_columns(make(), {'other': {'lamp': 'on'}})


def test_no_such_file_a_folder_and_a_picture(tmp_path):
  with pytest.raises(DataError, match='absent.csv cannot be read: No such file'):
    score_files.read(tmp_path / 'absent.csv')
  with pytest.raises(DataError, match='cannot be read: Is a directory'):
    score_files.read(tmp_path)
  (tmp_path / 'a.csv').write_bytes(b'\x89PNG\r\n\x1a\n\0\0')
  with pytest.raises(DataError, match='not text in UTF-8'):
    score_files.read(tmp_path / 'a.csv')


def test_a_header_of_other_samples_is_refused(tmp_path):
  path = tmp_path / 'a.csv'
  score_files.write(path, make(video=None))
  text = path.read_text()
  path.write_text(text.replace('s2,wmca_like,,', 's4,wmca_like,,').replace('s2,', 's4,'))
  with pytest.raises(DataError, match='a.csv: its ids and labels are not those'):
    score_files.read(path)
  path.write_text(text.replace('attack,a4', 'bona_fide,a4'))
  with pytest.raises(DataError, match='list_hash'):
    score_files.read(path)


def test_a_header_of_the_other_polarity_is_refused(tmp_path):
  score_files.write(tmp_path / 'a.csv', make())
  header = json.loads((tmp_path / 'a.json').read_text())
  (tmp_path / 'a.json').write_text(json.dumps(header | {'polarity': 'high is attack'}))
  with pytest.raises(DataError, match="a.json: polarity is 'high is attack'"):
    score_files.read(tmp_path / 'a.csv')
  with pytest.raises(DataError, match='polarity'):
    score_files.write(tmp_path / 'b.csv', make(header={'polarity': 'high is attack'}))


def test_a_damaged_header_is_an_error_and_another_json_is_none(tmp_path):
  path = save(tmp_path / 'a.csv', 'id,label,score', 'x,1,.5')
  (tmp_path / 'a.json').write_text('{"score": {"acer": 0.1}}')
  assert score_files.read(path).header == {}
  for text in ('{"list_ha', '', ' ', '{', '{\n  "bundle": "x",\n  "list', '{"list_hash": "0",}',
               '{"code_version": 1', '{"polarity": "high is att'):  # fmt: skip
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(DataError, match='a.json.*damaged'):
      score_files.read(path)
  for text in ('[1, 2', '[]', '{"a": 1}\n{"a": 2}\n', '{"epochs": 3,}', 'null', 'n', '// json5',
               '[' * 100_000, '{"lr": 1e-3 /* low */}'):  # fmt: skip
    (tmp_path / 'a.json').write_text(text)
    assert score_files.read(path).header == {}, text
  (tmp_path / 'a.json').write_bytes('{"a": 1}'.encode('utf-16'))
  assert score_files.read(path).header == {}
  for columns in (3, None, 'x', [1], {'x': 1}):
    (tmp_path / 'a.json').write_text(json.dumps({'list_hash': '0', 'columns': columns}))
    with pytest.raises(DataError, match='columns is .*, and must be a list of names'):
      score_files.read(path)


def test_list_hash_is_of_ids_and_labels_in_any_order():
  one = score_files.list_hash(['a', 'b', 'c'], [1, 0, 0])
  assert one == score_files.list_hash(np.array(['c', 'a', 'b']), np.array([0, 1, 0], np.int8))
  assert one == score_files.list_hash(['a', 'b', 'c'], [True, False, False])
  assert len(one) == 64
  assert one != score_files.list_hash(['a', 'b', 'c'], [1, 0, 1])
  assert one != score_files.list_hash(['a', 'b', 'd'], [1, 0, 0])
  assert one != score_files.list_hash(['a', 'b'], [1, 0])


def test_what_cannot_be_written_is_refused(tmp_path):
  with pytest.raises(ConfigError, match='NAME.csv'):
    score_files.write(tmp_path / 'a.json', make())
  with pytest.raises(DataError, match='s1 in rows 2 and 3'):
    score_files.write(tmp_path / 'a.csv', make(ids=['s1', 's1', 's2']))
  with pytest.raises(DataError, match='rgb of s2 is infinite'):
    score_files.write(tmp_path / 'a.csv', make(scores={'rgb': [0.5, math.inf, 0.5]}))
  with pytest.raises(DataError, match='carriage return'):
    score_files.write(tmp_path / 'a.csv', make(video=['a', 'b\r', 'c']))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'label': [1, 0, 2]}, 'label is 1'),
    ({'label': [1, 0]}, r'label has shape \(2,\)'),
    ({'scores': {'rgb': [0.5]}}, r'rgb has shape \(1,\)'),
    ({'subject': ['a']}, r'subject has shape \(1,\)'),
    ({'scores': {'video': [0.5] * 3}}, "cannot be called .'video'."),
    ({'scores': {}}, 'must be scores'),
    ({'scores': {'score': [0.5] * 3, 'rgb': [0.5] * 3}}, 'the only one'),
  ],
)
def test_arrays_that_do_not_fit(changes, says):
  with pytest.raises(ValueError, match=says):
    make(**changes)
