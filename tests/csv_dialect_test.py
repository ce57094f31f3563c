"""Dialects of CSV: each is read to the same values, or refused with the row and the reason."""

import pathlib
import re

import numpy as np
import pytest

from flexfas_jax import csv_dialect, score
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import score_files, scores_without_ids
from flexfas_jax.protocols import lists

FORMATS = pathlib.Path(__file__).parent / 'cases' / 'scores' / 'formats'
PLAIN = score_files.read(FORMATS / '00_plain.csv')
# What every file gives: None: the values of 00_plain.csv; text: the reason of the refusal.
EXPECTED = {
  '00_plain.csv': None,
  '01_semicolon.csv': None,
  '02_semicolon_comma.csv': None,
  '03_tab_comma.tsv': None,
  '04_quoted_comma.csv': "row 2: score is '0,084', a decimal comma, where commas separate",
  '05_percent_sign.csv': None,
  '06_percent.csv': 100,  # without a sign: its scores are what the file says, 8.4 is no 0.084
  '07_space_header.csv': None,
  '08_caps_header.csv': None,
  '09_bom_crlf.csv': None,
  '10_utf16.csv': 'is UTF-16: save it as UTF-8',
  '11_float_labels.csv': None,
  '12_sep_line.csv': None,
  '13_pandas_index.csv': None,
  '14_prob_and_frame.csv': 'row 1: no column of scores .* if prob or frame .*--score_column=NAME',
  '15_underscore.csv': "row 2: score is '0_084', not a number",
  '16_tensor.csv': r"row 2: score is 'tensor\(0.084\)', not a number",
  '17_brackets.csv': r"row 2: score is '\[0.084\]', not a number",
  '18_trailing_comma.csv': None,
  '19_label_space.csv': None,
  '20_genuine.csv': "row 2: unknown label 'impostor'",
  '21_minus_one.csv': "row 2: unknown label '-1'",
  '22_tab_header_comma.tsv': None,
  '23_inf.csv': "row 2: score is '-inf', not a number",
  '24_comment.csv': "row 1 is a comment: '# model v3'; remove it",
  '25_unicode_minus.csv': "row 2: score is '−0.416', not a number",
  '26_nbsp.csv': None,
  '27_na.csv': "row 2: score is 'NA', not a number",
  '28_blank_cell.csv': "row 2: score is ' ', blank",
}


def test_every_format_is_known_here():
  assert sorted(EXPECTED) == sorted(path.name for path in FORMATS.iterdir())


@pytest.mark.parametrize('name', EXPECTED)
def test_formats_of_score_files(name):
  expected = EXPECTED[name]
  if isinstance(expected, str):
    with pytest.raises(DataError, match=expected) as error:
      score_files.read(FORMATS / name)
    assert name in str(error.value)
    return
  read = score_files.read(FORMATS / name)
  assert read.ids.tolist() == PLAIN.ids.tolist()
  assert read.label.tolist() == PLAIN.label.tolist()
  scale = expected or 1
  values = [float(f'{x:.3f}') for x in read.scores['score'] / scale]
  assert values == PLAIN.scores['score'].tolist()
  if scale == 1:
    assert read.scores['score'].tolist() == PLAIN.scores['score'].tolist()  # bit for bit
  assert not read.nan_samples


def test_a_column_of_another_name_is_named():
  dialect = score_files.Dialect(score_column='prob')
  read = score_files.read(FORMATS / '14_prob_and_frame.csv', dialect)
  assert read.scores['score'].tolist() == PLAIN.scores['score'].tolist()
  assert read.ignored == ('frame',) and not read.nan_samples
  with pytest.raises(DataError, match='no column p .*--score_column'):
    score_files.read(FORMATS / '00_plain.csv', score_files.Dialect(score_column='p'))


def test_a_column_that_is_named_may_hold_nan(tmp_path):
  path = save(tmp_path / 'a.csv', 'id,label,prob\nx,1,nan\n')
  read = score_files.read(path, score_files.Dialect(score_column='prob'))
  assert {name: at.tolist() for name, at in read.nan_samples.items()} == {'score': [0]}
  for name in ('label', 'id', 'subject'):
    with pytest.raises(ConfigError, match=f'--score_column={name} is a column of something else'):
      score_files.read(path, score_files.Dialect(score_column=name))


def test_percent_with_and_without_signs(capsys):
  path = str(FORMATS / '05_percent_sign.csv')
  assert score.main([path, '--bootstrap=0', '--scale=percent']) == 3
  assert 'row 2: score has percent signs' in capsys.readouterr().err
  assert score.main([path, '--bootstrap=0']) == 0
  signed = capsys.readouterr().out
  path = str(FORMATS / '06_percent.csv')
  assert score.main([path, '--bootstrap=0']) == 3  # never taken for 8.4 of a probability
  assert 'outside [0, 1]' in capsys.readouterr().err
  assert score.main([path, '--bootstrap=0', '--scale=percent']) == 0
  same = capsys.readouterr().out.splitlines()[2].split()
  assert same[:4] == signed.splitlines()[2].split()[:4]


def save(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def test_columns_that_are_no_subset_are_ignored(tmp_path):
  path = save(tmp_path / 'a.csv', 'id,label,RGB,rgb+ir,frame,rgb_ir,note\nx,1,.5,.25,7,.1,text\n')
  read = score_files.read(path)
  assert {name: s.tolist() for name, s in read.scores.items()} == {'rgb': [0.5], 'rgb+ir': [0.25]}
  assert read.ignored == ('frame', 'rgb_ir', 'note')


@pytest.mark.parametrize(
  ('cells', 'says'),
  [
    (['0.5', '1_0'], 'not a number'),
    (['0.5', '0x1'], 'not a number'),
    (['0.5', 'Infinity'], 'not a number'),
    (['0.5', '1e999'], 'not a finite number'),
    (['0.5', '1e-999'], 'too close to 0'),
    (['0.5', '٠.٥'], 'not a number'),
    (['0.5', '0.5.1'], 'not a number'),
    (['0.5', '.'], 'not a number'),
    (['0.5', '1-2'], 'not a number'),
    (['0.5', '\t'], 'blank'),
    (['0.5', '\u200b'], 'not a number'),
    (['0.5', '0,5'], 'with a decimal comma, where others of this column have a decimal point'),
    (['0,5', '1.234'], 'with a decimal point, where others'),
    (['50%', '0.5'], 'with no percent sign, where others of this column have a percent sign'),
    (['0.5', '50%'], 'with a percent sign'),
    (['50%', '5e1%'], 'not a number'),
    (['0,5', '1.234,5'], 'not a number'),
    (['1', 'None'], 'not a number'),
  ],
)
def test_numbers_that_are_none(cells, says):
  with pytest.raises(csv_dialect.CellError, match=says) as error:
    csv_dialect.parse_numbers(cells, ';', {})
  assert error.value.at == 1


def test_a_column_is_written_in_one_way_throughout(tmp_path):
  """Also when the rows that differ are far apart."""
  rows = [f'{i};1;0{"," if i < 3000 else "."}5' for i in range(3001)]
  path = save(tmp_path / 'a.csv', '\n'.join(['id;label;score', *rows]))
  with pytest.raises(DataError, match='row 3002: score is .0.5., with a decimal point'):
    score_files.read(path)


def test_numbers_are_rounded_once():
  values, nan = csv_dialect.parse_numbers(['8,4%', ' 7,3 %', '', 'NaN'], ';', {})
  assert values[:2].tolist() == [0.084, 0.073] and np.isnan(values[2:]).all()
  assert nan.tolist() == [False, False, False, True]
  percent = [f'{i / 100:.2f}%' for i in range(10_000)]
  values, _ = csv_dialect.parse_numbers(percent, ',', {})
  assert values.tolist() == [float(f'{i}e-4') for i in range(10_000)]
  assert csv_dialect.parse_numbers(['0', '0.0', '-0', '0e7'], ',', {})[0].tolist() == [0.0] * 4


@pytest.mark.parametrize(
  'text',
  [
    'ID , Label,\tScore\nx , 1 , .5 \n',
    'id;label;score;\nx;1;.5;\n;;;\n',
    '\n\nid,label,score\n\nx,1,.5\n,,\n,,,,\n',
    '"sep=;"\r\nid;label;score\r\nx;1;,5\r\n',
    'sep=,\nid,label,score\nx,1,.5\n',
    ',ID,label,score,,\n0,x,1,.5,,\n',
    'id\tlabel\tscore\r\rx\t1\t0.5\r',
    '"id","label","score"\n"x","1.0","0.5"\n',
    'id, "label", "score"\nx, "1", "0.5"\n',
    'id;label;score;"a;b"\nx;True;50%;c\n',
  ],
)
def test_one_sample_in_many_dialects(tmp_path, text):
  read = score_files.read(save(tmp_path / 'a.csv', text))
  assert read.ids.tolist() == ['x'] and read.label.tolist() == [1]
  assert read.scores['score'].tolist() == [0.5]


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('id,label,score\nx,1,.5,7\n', 'row 2: 4 cells where row 1 has 3'),
    ('id,label,score,\nx,1,.5,7\n', 'row 2: 4 cells where row 1 has 3'),
    ('id,label,score\nx,1,0,084\n', 'row 2: 4 cells'),
    ('ID,id,label,score\nx,y,1,.5\n', 'row 1: the columns id are there twice'),
    ('Score,id,label, score\n.5,y,1,.6\n', 'row 1: the columns score are there twice'),
    ('sep=|\nid|label|score\nx|1|.5\n', 'row 1: .*commas, semicolons or tabs'),
    ('\ufeff\ufeffid,label,score\nx,1,.5\n', r"row 1: .*ufeffid' names a column"),
    ('id,label,sc\u00adore,score\nx,1,.5,.5\n', 'row 1: .*cannot be seen'),
    ('sep=;\n', 'is empty'),
    ('id,label,score\nx\0,1,.5\n', 'NUL bytes'),
    ('id,label,score\n\0'.encode('utf-16-be'), 'NUL bytes'),
    ('id,label,score\nx,1,.5\n'.encode('utf-32'), 'UTF-16'),
    ('id,label,score\nö,1,.5\n'.encode('latin-1'), 'not UTF-8'),
    ('"id,label,score\nx,1,.5\n', 'row 1: not a CSV'),
    ('#id,label,score\nx,1,.5\n', r"row 1: no column \['id'\]"),
    ('sep=;\n\nid;label;score\nx;1;high\n', "row 4: score is 'high'"),
  ],
)
def test_what_is_refused(tmp_path, text, says):
  with pytest.raises(DataError, match=says):
    score_files.read(save(tmp_path / 'a.csv', text))


def test_a_device_is_refused():
  with pytest.raises(DataError, match='/dev/zero is not a regular file'):
    score_files.read('/dev/zero')


def test_ids_stay_text(tmp_path):
  text = 'id;label;score\n007;1;0,5\n1,50;0;0,5\n1e3;0;0,5\n'
  assert score_files.read(save(tmp_path / 'a.csv', text)).ids.tolist() == ['007', '1,50', '1e3']


def test_further_columns_and_scores_without_ids(tmp_path):
  table = save(tmp_path / 'c.csv', 'sep=;\nID;lamp;\nx;a,b;\n;;\n')
  assert score_files.read_columns([table]) == {'x': {'lamp': 'a,b'}}
  labels = save(tmp_path / 'l.csv', 'ID;Label\nx;True\ny;0.0\n')
  samples = scores_without_ids.read_list(labels)
  assert (samples.ids.tolist(), samples.label.tolist()) == (['x', 'y'], [1, 0])
  read = scores_without_ids.read(save(tmp_path / 's.csv', 'crop0;rgb\n0,25;\n1;nan\n;;\n'), samples)
  assert read.scores['crop0'].tolist() == [0.25, 1.0] and np.isnan(read.scores['rgb']).all()
  assert {name: at.tolist() for name, at in read.nan_samples.items()} == {'rgb': [1]}
  with pytest.raises(DataError, match="s.csv, row 3: rgb is '1_0', not a number"):
    scores_without_ids.read(save(tmp_path / 's.csv', 'rgb\n1\n1_0\n'), samples)
  with pytest.raises(DataError, match='l.csv, row 3: the id is empty'):
    scores_without_ids.read_list(save(tmp_path / 'l.csv', 'id,label\nx,1\n,0\n'))


@pytest.mark.parametrize(
  'text',
  [
    'sep=;\nRGB;Label;subject;split\na.png;True;s; Train\n',
    'rgb,label,subject,split,\na.png,1.0,s\xa0,train\xa0,\n,,,,\n',
    ',rgb,label,subject,split\n0,a.png, 1,s,train\n',
  ],
)
def test_lists_in_many_dialects(tmp_path, text):
  (row,) = lists.read(save(tmp_path / 'a.csv', text))
  assert (row.paths, row.label, row.subject, row.split) == (
    {'rgb': 'a.png'}, 'bona_fide', 's', 'train',
  )  # fmt: skip


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('# made by hand\nrgb,label\na.png,1\n', 'row 1: .*does not name the columns'),
    ('sep=;\na.png;1\n', 'row 1: .*does not name the columns'),
    ('sep=|\nrgb|label\na.png|1\n', 'commas, semicolons or tabs'),
    ('rgb,label\na.png,1,0\n', 'row 2: has 3 fields'),
    ('rgb,label,' + 'x' * 140_000 + '\na.png,1,0\n', 'row 1: not a CSV'),
  ],
)
def test_lists_that_are_refused(tmp_path, text, says):
  with pytest.raises(DataError, match=says):
    list(lists.read(save(tmp_path / 'a.csv', text)))


@pytest.mark.parametrize(
  'name', ['subj\u0435ct', 'SUBJ\u0415CT', 'rg\u042c', '\u0456r', 'vid\u00e9o']
)
def test_letters_that_look_alike(name):
  known = ('rgb', 'ir', 'subject', 'video')
  with pytest.raises(DataError, match=r'row 1: .* looks like (rgb|ir|subject|video), .* U\+'):
    csv_dialect.check_names('a.csv', 1, ['id', name], known)
  for right in ('\u7167\u7247\u540d', 'gr\u00f6\u00dfe', '\u00e9', 'Zo\u00eb', '\u03c5\u03c0'):
    csv_dialect.check_names('a.csv', 1, ['id', right], known)


def test_nothing_writes_crlf():
  """csv.writer ends lines in CRLF by default; other readers keep the CR in the last cell."""
  root = pathlib.Path(__file__).parents[1]
  files = [
    path
    for folder in ('flexfas_jax', 'configs', 'data', 'docs', 'experiments', 'launch', 'tests')
    for pattern in ('*.py', '*.md')
    for path in (root / folder).rglob(pattern)
  ]
  writers = [
    (path.relative_to(root).as_posix(), call)
    for path in (*files, root / 'README.md')
    for call in re.findall(r'csv\.(?:DictWriter|writer)\((?:[^()]|\([^()]*\))*\)', path.read_text())
  ]
  assert (
    'docs/tutorials/own-data.md',
    "csv.DictWriter(file, rows[0], lineterminator='\\n')",
  ) in writers
  assert [writer for writer in writers if 'lineterminator' not in writer[1]] == []
