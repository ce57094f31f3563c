"""Blocks of plain rows: the same cells, numbers and errors as the reader of every dialect has."""

import csv
import io
import random
from decimal import Decimal

import numpy as np
import pytest

from flexfas_jax import csv_dialect, plain_csv
from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import score_files

DRAWS = np.random.default_rng(0)


def cells_of(texts):
  """One column of texts, behind a column of numbers."""
  return plain_csv.find_cells('\n'.join(f'{i},{x}' for i, x in enumerate(texts)).encode(), ',', 2)


def assert_exact(texts, share):
  """The numbers are float()'s, bit for bit, and at least `share` of the cells are read so."""
  values, is_decimal = cells_of(texts).decimals(1)
  expected = np.array([float(x) for x in texts])
  np.testing.assert_array_equal(values[is_decimal], expected[is_decimal])
  if plain_csv._tables().has_long_double:
    assert is_decimal.mean() >= share


def test_numbers_are_rounded_once():
  score = DRAWS.random(20000)
  assert_exact(list(map(repr, score.tolist())), 0.99)
  assert_exact([f'{x:.6f}' for x in score], 0.99)
  small = score * 10.0 ** DRAWS.integers(-12, 1, score.size)
  assert_exact([f'{x:.24f}' for x in small], 0.5)
  assert_exact([f'{9 * x:.17f}' for x in score], 0.99)


def test_numbers_next_to_the_middle_of_two():
  texts = []
  for x in DRAWS.random(2000).tolist():
    middle = (Decimal(x) + Decimal(np.nextafter(x, 1))) / 2
    for digits in (17, 18, 19):
      near = middle.quantize(Decimal(1).scaleb(-digits))
      texts += [f'{near:f}', f'{near + Decimal(1).scaleb(-digits):f}']
  assert_exact(texts, 0.5)


@pytest.mark.parametrize(
  'text',
  ['', '1', '.5', '0.', '-0.5', '+0.5', '1e-5', '0.5e3', '10.5', '0..5', '0.5.', '0.x5', '0:5']
  + ['0.5:', '0./5', ' 0.5', '0.5 ', 'nan', '0.' + '0' * 25, '0.' + '9' * 20, '9.' + '9' * 19],
)
def test_what_is_no_such_number(text):
  assert not cells_of(['0.5', text]).decimals(1)[1][1]


def test_the_largest_such_numbers():
  texts = ['9.' + '9' * 18, '0.' + '9' * 19, '0.' + '0' * 5 + '9' * 19, '0.' + '0' * 24, '9.0']
  assert_exact(texts, 0.8)


@pytest.mark.parametrize(
  'block',
  [
    b'a,b\n"c",d\n',
    b'a,b\nc\n',
    b'a,b\nc,d,e\n',
    b'a,b,c\nd\n',
    b'a,b\n\nc,d\n',
    b'a,b\n,\n',
    b'a,b\rc,d\n',
    'a,b\nZoë,d\n'.encode(),
    b'a,b\nc,' + b'd' * 257,
  ],
)
def test_what_is_not_plain(block):
  assert plain_csv.find_cells(block, ',', 2) is None


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('last', ['', 'end'])
def test_cells(end, last):
  rows = [['a', '', 'x' * 256], ['', 'bc', ' d '], ['\t', ';', '#']]
  block = end.join(map(','.join, rows)) + (end if last else '')
  cells = plain_csv.find_cells(block.encode(), ',', 3)
  assert len(cells) == 3
  assert [cells.column(i).astype(str).tolist() for i in range(3)] == [
    list(column) for column in zip(*rows, strict=True)
  ]
  assert list(cells.rows(2)) == [rows[:2], rows[2:]]


def test_texts_are_joined_in_the_widest():
  parts = [np.array([b'a', b'bcd']), np.array(['Zoë', '']), np.array([b'']), np.array(['xy'])[::-1]]
  joined = plain_csv.join_texts(parts)
  assert joined.tolist() == ['a', 'bcd', 'Zoë', '', '', 'xy'] and joined.dtype == '<U3'


def random_file(draws, rows):
  """A score file, plain for the most part, that may have any of the features of dialects."""
  delimiter = draws.choice(',;\t')
  odd = [draws.random() < 0.15 for _ in range(11)]  # which features it has
  names = ['id', 'subject', 'label', 'rgb', 'note']
  text = io.StringIO(newline='')
  end = '\r\n' if odd[0] else '\n'
  writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
  writer.writerow(names)
  for i in range(rows):
    number = draws.random() * 10.0 ** draws.randrange(-6, 2)
    cells = [f'test/{i}', f's{i // 7}', draws.choice(['0', '1', 'attack']), repr(number), '']
    at_last = draws.random() < 0.02
    if odd[1] and at_last:
      cells[1] = draws.choice(['Zoë', ' s', '', 'a "b"', f'a{delimiter}b', 'x\ny'])
    if odd[2] and at_last:
      cells[3] = draws.choice(['', 'nan', 'NaN', '1', '-0.5', '1e-5', ' 0.5'])
    if odd[3] and at_last:
      cells[3] = draws.choice(['50%', '0,5', 'inf', '1_0', '1e-999', '0.5.', 'high', ' '])
    if odd[4] and at_last:
      cells[2] = draws.choice(['1.0', 'Bona_fide', ' 1', '2', 'live', ''])
    if odd[5] and at_last:
      cells = draws.choice([cells[:2], [*cells, ''], [*cells, 'x'], [''] * 5])
    if odd[6] and at_last:
      text.write(draws.choice([end, '\r', 'a"b' + end, '"']))
    writer.writerow(cells)
  content = text.getvalue().encode()
  content = content[: content.rfind(b'\n')] if odd[7] else content
  return (b'\xef\xbb\xbf' if odd[8] else b'') + content + (b'\xff' if odd[9] and odd[10] else b'')


def outcome(path):
  try:
    read = score_files.read(path)
  except DataError as error:
    return str(error)
  columns = (read.ids, read.subject, read.label, read.scores['rgb'].view(np.int64))
  nan = {name: at.tolist() for name, at in read.nan_samples.items()}
  return [column.tolist() for column in columns], nan


def test_fast_and_slow_read_the_same_values_and_find_the_same_errors(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_dialect, '_BLOCK', 2000)  # several blocks in each file
  path, kinds = tmp_path / 'a.csv', []
  for seed in range(80):
    # Rows at once: which of two errors is found first depends on it in either reader.
    monkeypatch.setattr(csv_dialect, 'ROWS_AT_ONCE', 1)
    draws = random.Random(seed)
    path.write_bytes(random_file(draws, draws.randrange(1, 300)))
    fast = outcome(path)
    with monkeypatch.context() as patch:
      patch.setattr(plain_csv, 'find_cells', lambda *args: None)
      patch.setattr(csv_dialect, 'read_parts', csv_dialect.read_batches)
      slow = outcome(path)
    assert fast == slow, seed
    kinds.append(type(fast))
  assert 15 < kinds.count(str) < 65  # errors, and values


def test_plain_files_are_read_by_blocks(tmp_path, monkeypatch):
  path = tmp_path / 'a.csv'
  path.write_text('id,label,rgb\n' + ''.join(f'{i},{i % 2},0.{i:04}\n' for i in range(5000)))
  monkeypatch.setattr(csv_dialect, '_read_batches', None)
  read = score_files.read(path)
  assert read.ids.tolist() == list(map(str, range(5000)))
  assert read.scores['rgb'].tolist() == [float(f'0.{i:04}') for i in range(5000)]
  assert read.label.tolist() == [i % 2 for i in range(5000)]


def test_rows_are_counted_behind_blank_lines_and_other_letters(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_dialect, '_BLOCK', 20)
  lines = ['id,label,rgb', 'a,1,.5', '', 'Zoë,1,.5', '', *['b,1,.5'] * 9, '"c"d,1,.5']
  path = tmp_path / 'a.csv'
  path.write_text('\n'.join(lines))
  with pytest.raises(DataError, match=f'row {len(lines)}: not a CSV'):
    score_files.read(path)
  path.write_text('\n'.join([*lines[:-1], '"c",live,.5']))
  with pytest.raises(DataError, match=f"row {len(lines)}: unknown label 'live'"):
    score_files.read(path)
