"""Lists in every format: what is read, what is refused, and where."""

import os
from pathlib import Path

import pytest

from flexfas_jax import label_mapping
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.protocols import list_format, lists, relative_paths

PUBLISHED = Path(__file__).parents[3] / 'shared' / 'data' / 'flexmodal_protocols'

LIVE = 'S/real_part/real_train_part/CLKJ_AS0005/real.rssdk/{}/101.jpg'
FAKE = 'S/fake_part/fake_train_part/CLKJ_AS0005/04_en_b.rssdk/{}/31.jpg'


def three(path, sep=' '):
  return sep.join(path.format(m) for m in ('color', 'depth', 'ir'))


def paths_of(path):
  return {'rgb': path.format('color'), 'depth': path.format('depth'), 'ir': path.format('ir')}


PLAIN = f'{three(LIVE)} 1\n{three(FAKE)} 0\n'
IDS = ['casia_surf/CLKJ_AS0005/real/101', 'casia_surf/CLKJ_AS0005/04_en_b/31']


@pytest.fixture
def write(tmp_path):
  def write(content, name='train.txt'):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

  return write


def test_a_row(write):
  path = write(PLAIN)
  live, fake = lists.read(path)
  assert (live.list, live.line, live.label, live.split) == (str(path), 1, 'bona_fide', 'train')
  assert fake.paths == paths_of(FAKE)
  assert (fake.subject, fake.video) == ('casia_surf/CLKJ_AS0005', 'casia_surf/CLKJ_AS0005/04_en_b')
  assert fake.example_fields() == {
    'id': IDS[1], 'label': 'attack', 'attack_type': '04_en_b', 'attack_category': 'cut_photo',
    'subject': 'casia_surf/CLKJ_AS0005', 'video': 'casia_surf/CLKJ_AS0005/04_en_b', 'frame': 31,
    'dataset': 'casia_surf', 'ethnicity': '',
  }  # fmt: skip
  assert fake.example_fields() == fake.parsed_path.example_fields()
  assert (live.attack_type, live.attack_category) == ('', '')


FORMS = {
  'as published': PLAIN.replace('\n', '\r\n').rstrip(),
  'tabs': PLAIN.replace(' ', '\t'),
  'spaces and tabs': PLAIN.replace(' ', ' \t  '),
  'byte order mark': '\ufeff' + PLAIN,
  'spaces around': '  ' + PLAIN.replace('\n', ' \n'),
  'empty lines': '\n' + PLAIN.replace('\n', '\n\n  \n'),
  'old Macintosh': PLAIN.replace('\n', '\r'),
  'comma': f'rgb,depth,ir,label\n{three(LIVE, ",")},1\n{three(FAKE, ",")},0\n',
  'comma, CRLF, byte order mark': f'\ufeffrgb,depth,ir,label\r\n{three(LIVE, ",")},1\r\n'
  f'{three(FAKE, ",")},0',
  'names': f'rgb,depth,ir,label\n{three(LIVE, ",")},bona_fide\n{three(FAKE, ",")},attack\n',
  'quoted, spaced': f'"rgb", "depth","ir", Label\n"{three(LIVE, chr(34) + "," + chr(34))}", 1\n'
  f'{three(FAKE, ",")},0\n',
  'semicolon': f'color;depth;ir;label\n{three(LIVE, ";")};1\n{three(FAKE, ";")};0\n',
  'tab and header': f'rgb\tdepth\tir\tlabel\n{three(LIVE, chr(9))}\t1\n{three(FAKE, chr(9))}\t0\n',
  'spaces and header': f'rgb depth ir label\n{PLAIN}',
}


@pytest.mark.parametrize('form', FORMS)
def test_forms(write, form):
  rows = list(lists.read(write(FORMS[form])))
  assert [row.id for row in rows] == IDS
  assert [row.label for row in rows] == ['bona_fide', 'attack']
  assert [row.paths for row in rows] == [paths_of(LIVE), paths_of(FAKE)]
  assert lists.read_ids(write(FORMS[form])) == set(IDS)


def test_lines_are_those_of_the_file(write):
  assert [row.line for row in lists.read(write(FORMS['empty lines']))] == [2, 5]
  text = 'rgb,label,remark\na.jpg,1,"two\nlines"\n\nb.jpg,0,x\n'
  rows = list(lists.read(write(text)))
  assert [(row.line, row.extra) for row in rows] == [
    (2, {'remark': 'two\nlines'}), (5, {'remark': 'x'}),
  ]  # fmt: skip


BLANKS = {
  'of a header': 'rgb,depth,label\n{}a.jpg, b.png ,1\n{}\tc.jpg\t,\td.png,0\n{}',
  'of quotes': '"rgb","depth","label"\n{}"a.jpg"," b.png ",1\n{}" c.jpg",d.png, 0\n{}',
  'of tabs': 'rgb\tdepth\tlabel\n{}a.jpg\t b.png\t1\n{}c.jpg \td.png\t0 \n{}',
  'of none': '{}a.jpg b.png  x.jpg 1\n{}  c.jpg\td.png x.jpg 0  \n{}',
}


@pytest.mark.parametrize('blank', ['', '\n', '  \n', '\t\n', ' \t \n\n'])
@pytest.mark.parametrize('form', BLANKS)
def test_blanks_are_no_rows_and_no_part_of_a_cell(write, form, blank):
  """Between rows and at the end; rows are still named by their lines."""
  rows = list(lists.read(write(BLANKS[form].replace('{}', blank))))
  assert [(row.paths['rgb'], row.paths['depth'], row.label) for row in rows] == [
    ('a.jpg', 'b.png', 'bona_fide'), ('c.jpg', 'd.png', 'attack'),
  ]  # fmt: skip
  lines, header = blank.count('\n'), form != 'of none'
  assert [row.line for row in rows] == [header + lines + 1, header + 2 * lines + 2]


def test_no_labels(write):
  (row,) = lists.read(write(three(LIVE) + '\n', 'val_public_list.txt'))
  assert (row.label, row.split, row.id) == ('', 'val', IDS[0])
  (row,) = lists.read(write(f'rgb\n{LIVE.format("color")}\n'))
  assert row.label == ''


def test_a_path_and_a_label_have_no_default(write):
  path = write('Training/real_part/CLKJ_AS0005/00.rssdk/color/0015.jpg 0\n')
  with pytest.raises(DataError, match=r'train.txt: .*--labels=0=bona_fide,1=attack'):
    list(lists.read(path))
  (row,) = lists.read(path, {'0': 'bona_fide', '1': 'attack'})
  assert (row.label, row.id) == ('bona_fide', 'casia_surf/CLKJ_AS0005/real/0015')
  assert row.paths == {'rgb': 'Training/real_part/CLKJ_AS0005/00.rssdk/color/0015.jpg'}
  assert lists.read_ids(path) == {row.id}  # labels are no matter there


def test_a_manifest(write):
  text = (
    'id,rgb,depth,ir,label,attack_type,attack_category,subject,video,frame,split,ethnicity,lamp\n'
    'a,x/1.png,,y/1.png,1,,,P1,v1,7,dev,CA,on\n'
    'b,x/2.png,z/2.png,,attack,a4,print,,,,eval,,\n'
  )
  one, two = lists.read(write(text, 'mine.csv'), dataset='mine')
  assert one.paths == {'rgb': 'x/1.png', 'ir': 'y/1.png'}
  assert (one.id, one.subject, one.video, one.frame) == ('a', 'mine/P1', 'mine/P1/v1', '7')
  assert (one.split, one.ethnicity, one.extra) == ('val', 'CA', {'lamp': 'on'})
  assert (two.id, two.subject, two.video, two.frame) == ('b', '', '', '2')
  assert (two.split, two.attack_type, two.attack_category) == ('test', 'a4', 'print')
  assert one.example_fields()['frame'] == 7


def test_identity_without_columns(write):
  text = 'rgb,depth,label\nv/color/f12.jpg,v/depth/f12.png,1\n'
  (row,) = lists.read(write(text))
  assert (row.id, row.subject, row.video, row.frame) == ('v/f12', '', '', '12')
  (row,) = lists.read(write(text), dataset='mine')
  assert (row.id, row.dataset) == ('mine/v/f12', 'mine')
  text = 'rgb,subject,video,frame,label\na.jpg,s,v,3,1\n'
  (row,) = lists.read(write(text))
  assert (row.id, row.subject, row.video) == ('s/v/3', 's', 's/v')
  # Names that are whole already stay so; a column that is empty leaves it to the path.
  text = (
    f'rgb,dataset,subject,video\n{LIVE.format("color")},casia_surf,casia_surf/X,casia_surf/X/v\n'
  )
  text += f'{LIVE.format("color")},,,\n'
  one, two = lists.read(write(text))
  assert (one.subject, one.video, one.id) == (
    'casia_surf/X',
    'casia_surf/X/v',
    'casia_surf/X/v/101',
  )
  assert (two.subject, two.id) == ('casia_surf/CLKJ_AS0005', IDS[0])


def test_rows_of_a_video_do_not_inherit(write):
  """What rows share is worked out once; it must be worked out again where anything differs."""
  text = (
    'rgb,subject,video,label,attack_type\n'
    'a/1.jpg,s1,v,1,\na/2.jpg,s2,v,1,\na/3.jpg,s2,v,0,mask\na/4.jpg,s2,w,0,print\n'
  )
  rows = list(lists.read(write(text)))
  assert [row.video for row in rows] == ['s1/v', 's2/v', 's2/v', 's2/w']
  assert [row.attack_type for row in rows] == ['', '', 'mask', 'print']
  rows = list(lists.read(write(f'{three(FAKE)} 1\n{three(FAKE)} 0\n')))
  assert [row.attack_type for row in rows] == ['', '04_en_b']


def test_a_row_of_no_list(write):
  (row,) = lists.read(write(three(FAKE) + ' 0\n'))
  made = lists.make_row(row.paths, 'attack', list=row.list, line=1, split='train')
  assert made == row
  assert lists.make_row({'ir': 'q/ir/5.png'}, dataset='mine', subject='s').subject == 'mine/s'
  with pytest.raises(ValueError, match='sex'):
    lists.make_row({'rgb': 'a'}, sex='f')


def test_any_script_and_odd_spaces(write):
  wide = '数据\u3000集/张三\xa0/color/1.jpg'
  for text in (f'{wide} 活体/depth/1.jpg ir/1.jpg 1\n', f'{wide}\t活体/depth/1.jpg\tir/1.jpg\t1\n'):
    (row,) = lists.read(write(text))
    assert row.paths == {'rgb': wide, 'depth': '活体/depth/1.jpg', 'ir': 'ir/1.jpg'}
  (row,) = lists.read(write('my faces/1.jpg\tmy depths/1.jpg\tir/1 (2).jpg\t1\n'))
  assert row.paths['ir'] == 'ir/1 (2).jpg'
  (row,) = lists.read(write('rgb,label\n"a,b/""x"" 1.jpg",1\n'))
  assert row.paths['rgb'] == 'a,b/"x" 1.jpg'


def test_paths_are_cleaned(write):
  text = 'rgb,depth,ir,label\n./a//b.jpg,a\\c.jpg,a/../d.jpg,1\n'
  (row,) = lists.read(write(text))
  assert row.paths == {'rgb': 'a/b.jpg', 'depth': 'a/c.jpg', 'ir': 'd.jpg'}
  assert [relative_paths.normalize(path) for path in ('a/b/.', 'a/b/..', 'a/..', 'gs://a//b')] == [
    'a/b', 'a', '.', 'gs://a//b',
  ]  # fmt: skip


@pytest.mark.parametrize(
  'path',
  ['/etc/passwd', '../x.jpg', 'a/../../x.jpg', '..', 'C:\\x.jpg', 'c:/x', '\\\\host\\x.jpg',
   'gs://bucket/x.jpg', 'file:///x', './../x', 'a/..\\../../x'],
)  # fmt: skip
def test_paths_that_leave_the_root(write, path):
  with pytest.raises(DataError, match=r'row 2: ir .* is not below the root'):
    list(lists.read(write(f'rgb,ir,label\na.jpg,{path},1\n')))


def test_paths_that_only_look_so(write):
  for path in ('a..b/x.jpg', '.hidden/x.jpg', 'a/...jpg', '12:30/x.jpg', 'a/b:c.jpg'):
    (row,) = lists.read(write(f'rgb,label\n{path},1\n'))
    assert row.paths['rgb'] == path


@pytest.mark.parametrize('value', ['-1', '2', 'live', '1.5', '0_1', 'real', '""'])
def test_labels_that_are_not_known(write, value):
  path = write(f'rgb,label\na.jpg,1\nb.jpg,{value}\n')
  with pytest.raises(DataError, match=r'train.txt, row 3: .*label'):
    list(lists.read(path))


def test_labels_that_are_mapped(write):
  path = write('rgb,label\na.jpg,live\nb.jpg,-1\nc.jpg,attack\n')
  labels = label_mapping.parse('live=bona_fide, -1=attack')
  assert [r.label for r in lists.read(path, labels)] == ['bona_fide', 'attack', 'attack']
  # A mapping is the whole mapping.
  with pytest.raises(DataError, match="unknown label '1'; expected -1, live, bona_fide or attack"):
    list(lists.read(write('rgb,label\na.jpg,1\n'), labels))
  assert [r.label for r in lists.read(write(PLAIN), {'0': 'bona_fide', '1': 'attack'})] == [
    'attack', 'bona_fide',
  ]  # fmt: skip


@pytest.mark.parametrize('text', ['live', 'live=real', '=attack', '1=attack,1=bona_fide',
                                  'bona_fide=attack', '0=1'])  # fmt: skip
def test_mappings_that_are_none(text):
  with pytest.raises(ConfigError, match='in the labels'):
    label_mapping.parse(text)


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (b'', 'is empty'),
    (b' \n\n', 'is empty'),
    (b'\xef\xbb\xbf', 'is empty'),
    (b'\x7fELF\0\0\0', 'is not text'),
    (PLAIN.encode('utf-16'), 'UTF-16'),
    (b'rgb,depth,ir,label\n', 'no row that could be read'),
    (b'crop0,crop0_hflip\n0.1,0.2\n', 'row 1: unknown list format'),
    (b'a.jpg b.jpg 1\n', 'row 1: unknown list format'),
    (b'a b c d e\n', 'row 1: unknown list format'),
    (b'a.jpg,b.jpg,c.jpg,1\n', 'row 1: unknown list format'),
    (b'rgb,ir,rgb\na,b,c\n', 'row 1: the columns rgb are there twice'),
    (b'rgb,color\na,b\n', 'there twice'),
    (b'id,label\na,1\n', 'no column of images'),
    (PLAIN.encode() + b'a.jpg b.jpg 1\n', "row 3: has 3 fields where rgb depth ir label has 4: 'a"),
    (b'rgb,label\na.jpg\n', 'row 2: has 1 fields'),
    (b'rgb,label\na.jpg,1,2\n', 'row 2: has 3 fields'),
    (b'rgb,ir,label\na,b,1\n,,1\n', 'row 3: names no image'),
    (b'rgb,label\na.jpg,1\n"b.jpg,1\nc.jpg,0\n', 'row 3: lines 3 to 4 .*quoted'),
    ('rgb,label\n张三.jpg,1\n'.encode('gbk'), 'row 2: is not UTF-8'),
    (('a.jpg 张三.jpg b.jpg 1\n' * 2).encode('gbk'), 'row 1: is not UTF-8'),
    # One list behind another, each with its mark; and a mark that was written twice.
    ('\ufeff'.join(['', PLAIN, PLAIN]).encode(), 'row 3: has a byte order mark within'),
    ('\ufeff\ufeffrgb,ir,label\na.jpg,b.jpg,1\n'.encode(), r"row 1: .*ufeffrgb' names a column"),
    ('rgb,i\u200br,depth,label\na.jpg,b.jpg,c.jpg,1\n'.encode(), 'row 1: .* cannot be seen'),
  ],
)
def test_what_is_no_list(write, content, says):
  path = write(content)
  with pytest.raises(DataError, match=says) as error:
    list(lists.read(path))
  assert str(error.value).startswith(str(path))


def test_what_cannot_be_opened(tmp_path):
  for path in (tmp_path, tmp_path / 'absent.txt', tmp_path / 'a' / 'b'):
    with pytest.raises(DataError, match='cannot be read: '):
      list_format.detect(path)


def test_scan_goes_on(write):
  content = PLAIN + 'a b\n' + 'x.jpg y.jpg z.jpg live\n' + '/a.jpg b.jpg c.jpg 1\n' + PLAIN
  found = []
  rows = list(lists.scan(write(content), None, lambda *fault: found.append(fault)))
  assert [row.line for row in rows] == [1, 2, 4, 5, 6, 7]
  assert rows[2].label == ''
  assert [fault[:2] for fault in found] == [('row', 3), ('label', 4), ('outside-root', 5)]
  rows = list(lists.scan(write(content), None, lambda *_: None, only={2, 3, 6}))
  assert [row.line for row in rows] == [2, 6]


def test_the_form_is_that_of_most_rows(write):
  found = []
  path = write('a.jpg b.jpg 1\n' + PLAIN + PLAIN)
  rows = list(lists.scan(path, None, lambda *fault: found.append(fault)))
  assert len(rows) == 4
  assert [fault[:2] for fault in found] == [('row', 1)]


def test_a_quote_that_is_not_closed_costs_no_other_row(write):
  content = 'rgb,label\n' + 'a.jpg,1\n' * 5 + '"b.jpg,1\n' + 'c.jpg,0\n' * 20_000
  found = []
  rows = list(lists.scan(write(content), None, lambda *fault: found.append(fault)))
  assert [fault[:2] for fault in found][:1] == [('row', 7)]
  assert len(rows) > 5


@pytest.mark.parametrize(('content', 'says'), [
  ('rgb,label\n"a"b.jpg,1\nc.jpg,1\n', 'lines 2 have'),
  ('rgb,label\n"a\nb"c.jpg,1\nc.jpg,1\n', 'lines 2 to 3 have'),
])  # fmt: skip
def test_a_quote_that_goes_wrong_is_named_by_its_lines(write, content, says):
  found = []
  (row,) = lists.scan(write(content), None, lambda *fault: found.append(fault))
  assert row.paths['rgb'] == 'c.jpg' and found[0][2].startswith(says)


def test_ids_alone(write):
  assert lists.read_ids(write('id,label,score\nq/1,1,.5\nq/2,0,.1\n')) == {'q/1', 'q/2'}
  with pytest.raises(DataError, match='row 3: has 1 fields'):
    lists.read_ids(write('id,label\nq/1,1\nq\n'))
  with pytest.raises(DataError, match='row 1: rgb /a'):
    lists.read_ids(write('/a.jpg b.jpg c.jpg 1\n').rename(write('', 'x').parent / 'y'))


def test_splits_by_name():
  for name, split in (
    ('CASIA-SURF_CeFA_train.txt', 'train'), ('a/train/val_public_list.txt', 'val'),
    ('WMCA_test_papermask.txt', 'test'), ('CASIA_SURF@p1_image_dev.txt', 'val'),
    ('4@1_dev_res.txt', 'val'), ('PROTOCOL-eval.csv', 'test'), ('Valid.TXT', 'val'),
    ('trainval.txt', ''), ('train_val.txt', ''), ('fold1.txt', ''), ('contest.txt', ''),
    ('TEST.csv', 'test'), ('test1.csv', 'test'),
  ):  # fmt: skip
    assert lists.split_of(name) == split, name


def test_look(write):
  form = list_format.detect(write('\ufeff' + PLAIN.replace('\n', '\r\n').rstrip()))
  assert (form.names, form.crlf, form.bom, form.final_newline) == (
    ('rgb', 'depth', 'ir', 'label'), 1, True, False,
  )  # fmt: skip
  form = list_format.detect(write(PLAIN))
  assert (form.crlf, form.bom, form.final_newline) == (0, False, True)
  assert list_format.detect(write(PLAIN + PLAIN.replace('\n', '\r\n'))).crlf == 3
  long = b'a.jpg b.jpg c.jpg 1\n' * 60_000
  at = (1 << 20) - 1  # the two bytes part where the file is read in blocks
  long = long[: at - at % 20 - 1] + b' ' * (at % 20 + 1) + b'\r\n' + long[:40]
  assert long[at : at + 2] == b'\r\n'
  assert list_format.detect(write(long)).crlf == long[:at].count(b'\n') + 1


def test_the_published_lists():
  if not PUBLISHED.is_dir():
    pytest.skip("FlexModal's protocol lists are not here")
  for name, rows, live in (
    ('CASIA-SURF_CeFA_train', 11_097, 2_100), ('CASIA-SURF_CeFA_val', 4_501, 901),
    ('CASIA-SURF_CeFA_test', 19_303, 3_000), ('WMCA_test', 5_037, 1_041),
  ):  # fmt: skip
    found = list(lists.read(PUBLISHED / f'{name}.txt'))
    assert len(found) == rows
    assert sum(row.label == 'bona_fide' for row in found) == live
    assert all(row.parsed_path and row.subject for row in found)
  ids = lists.read_ids(PUBLISHED / 'CASIA-SURF_CeFA_train.txt')
  assert len(ids) == 11_077
  assert 'casia_surf/CLKJ_AS0005/real/131' in ids


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
  """Opening it would wait for a writer."""
  os.mkfifo(tmp_path / 'train.txt')
  with pytest.raises(DataError, match='is not a regular file'):
    list_format.detect(tmp_path / 'train.txt')


@pytest.mark.parametrize('kind', ['bona_fide', 'Bona-Fide', 'live', 'none'])
@pytest.mark.parametrize('column', ['attack_type', 'attack_category'])
def test_an_attack_whose_kind_is_none(write, column, kind):
  """A card would count it as bona fide, and its stored label is attack."""
  path = write(f'rgb,label,{column}\na.jpg,attack,{kind}\n', 'manifest.csv')
  with pytest.raises(DataError, match=f"is an attack, and its kind '{kind}'; name the attack"):
    list(lists.read(path))
  assert list(lists.read(write(f'rgb,label,{column}\na.jpg,attack,living_doll\n', 'm.csv')))
