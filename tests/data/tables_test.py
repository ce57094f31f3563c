"""Tables are read by the names of their columns; what is wrong is reported with its line."""

import pytest

from flexfas_jax.data import tables
from flexfas_jax.errors import DataError

NEEDED = ('path', 'group')


def read(tmp_path, content):
  path = tmp_path / 'table.csv'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  findings = []
  rows = tables.read(path, NEEDED, findings)
  return rows, [(f.rule, f.row, f.text) for f in findings]


@pytest.mark.parametrize(
  'content',
  [
    'path,group\na b,train\n',
    'group,more,path\ntrain,x,a b\n',
    '\ufeffPath , GROUP\r\na b ,train\r\n\r\n',
    'path;group\n"a b";train',
    'path\tgroup\na b\ttrain\n',
    'path,group\na b,train,,\n,\n',
  ],
)
def test_columns_by_name(content, tmp_path):
  rows, findings = read(tmp_path, content)
  assert not findings
  assert [(line, row['path'], row['group']) for line, row in rows] == [(2, 'a b', 'train')]


def test_names_with_blanks_and_dashes(tmp_path):
  rows, _ = read(tmp_path, 'path,group,Client-ID,trial name\na,b,c,d\n')
  assert rows == [(2, {'path': 'a', 'group': 'b', 'client_id': 'c', 'trial_name': 'd'})]


@pytest.mark.parametrize(
  'content, line, words',
  [
    ('', 0, 'is empty: its first row must name the columns'),
    ('\n\npath,label\n', 3, 'no column group'),
    ('# of 2020\npath,group\n', 1, 'is a comment'),
    ('path,label\na,0\n', 1, "no column group; its first row is 'path,label'"),
    ('a/b,train\nc/d,dev\n', 1, "no column path, group; its first row is 'a/b,train'"),
    ('path,group,path\na,b,c\n', 1, 'columns path are there twice'),
    ('path,group\na,train\n"b,train\n', 3, 'not ended'),
    ('path,group\na,b,c\n', 2, '3 cells where row 1 has 2'),
    ('path,group\na\x00,b\n', 0, 'not text'),
    ('päth,group\n'.encode('latin-1'), 0, 'is not a table'),
    ('path,group\n'.encode('utf-16'), 0, 'is not a table'),
  ],
)
def test_what_is_wrong_is_reported(content, line, words, tmp_path):
  _, findings = read(tmp_path, content)
  ((rule, at, text),) = findings
  assert (rule, at) == ('row', line)
  assert words in text


def test_one_bad_row_leaves_the_others(tmp_path):
  rows, findings = read(tmp_path, 'path,group\na,train\nb\n"c\nc",dev\n')
  assert [(line, row['path']) for line, row in rows] == [(2, 'a'), (5, 'c\nc')]
  assert [line for _, line, _ in findings] == [3]


def test_places_and_files(tmp_path):
  (tmp_path / 'a' / 'deep').mkdir(parents=True)
  one, two, other = tmp_path / 'one.csv', tmp_path / 'a' / 'deep' / 'two.csv', tmp_path / 'x.txt'
  for path in (one, two, other):
    path.touch()
  assert tables.places(None, tmp_path) == [tmp_path]
  where = tables.places(f'{one},{tmp_path / "a"},{other}', tmp_path)
  assert tables.files(where, '*.csv') == [one, two]
  again = tmp_path / 'a' / '..' / 'one.csv'
  assert tables.files([tmp_path, again], '*.csv') == [two, one]  # each once
  with pytest.raises(DataError, match='there is no .*nowhere'):
    tables.places(tmp_path / 'nowhere', tmp_path)


def test_every_bad_row_is_reported(tmp_path):
  content = 'path,group\na\nb,train\n"c"x,train\n\nd,1,2\ne,dev\n"f,dev\n'
  rows, findings = read(tmp_path, content)
  assert [(line, row['path']) for line, row in rows] == [(3, 'b'), (7, 'e')]
  assert [line for _, line, _ in findings] == [2, 4, 6, 8]


def test_what_a_spreadsheet_declares_of_itself(tmp_path):
  rows, findings = read(tmp_path, 'sep=;\npath;group\na,b;train\n')
  assert (rows, findings) == ([(3, {'path': 'a,b', 'group': 'train'})], [])
