"""Every fault that published lists have had, in small lists; and the published lists."""

import collections
import io
import itertools
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexfas_jax.errors import ConfigError
from flexfas_jax.protocols import lists
from flexfas_jax.protocols.findings import RULES
from flexfas_jax.protocols.lint import image_scan, linter

PUBLISHED = Path(__file__).parents[4] / 'shared' / 'data' / 'flexmodal_protocols'


def surf(subject, clip='real', frame=1, kinds=('color', 'depth', 'ir')):
  part = 'real' if clip == 'real' else 'fake'
  folder = f'S/{part}_part/CLKJ_AS{subject:04}/{clip}.rssdk'
  return [f'{folder}/{kind}/{frame}.jpg' for kind in kinds]


def row(*args, label=None, **options):
  paths = surf(*args, **options)
  return ' '.join([*paths, str(int('real' in paths[0])) if label is None else str(label)])


@pytest.fixture
def write(tmp_path):
  def write(name, *rows, end='\n', start=''):
    path = tmp_path / name
    path.write_bytes((start + ''.join(f'{row}{end}' for row in rows)).encode())
    return str(path)

  return write


def rules_of(report):
  return [finding.rule for finding in report.findings]


def where(report):
  return [(f.rule, Path(f.list).name, f.row) for f in report.findings]


def test_sound_lists(write):
  report = linter.check(
    [write('train.txt', row(1), row(1, '04_en_b')), write('test.txt', row(2), row(2, frame=2))]
  )
  assert report.findings == report.notes == report.leaks == report.relations == []
  assert report.counts() == {}
  train, test = report.lists
  assert (train.splits, train.rows, train.bona_fide, train.attacks) == (('train',), 2, 1, 1)
  assert (train.subjects, train.videos, train.datasets) == (1, 2, ('casia_surf',))
  assert (test.rows, test.subjects, test.videos, test.redundant) == (2, 1, 1, 0)


def test_duplicates(write):
  path = write('train.txt', row(1), row(2), row(1), row(1), row(2, frame=2))
  report = linter.check([path])
  assert where(report) == [('duplicate', 'train.txt', 3), ('duplicate', 'train.txt', 4)]
  assert report.findings[0].text == 'the same triplet as row 1: casia_surf/CLKJ_AS0001/real/1'
  assert report.lists[0].redundant == 2
  again = write('train_2.txt', row(1))  # of the same split: a part, not a duplicate
  assert len(linter.check([path, again]).findings) == 2


def test_one_id_for_two_triplets(write):
  path = write('train.csv', 'id,rgb,label', 'a,1.jpg,1', 'b,2.jpg,1', 'a,3.jpg,1')
  (found,) = linter.check([path]).findings
  assert (found.rule, found.row) == ('duplicate', 4)
  assert 'the id a is also that of row 2' in found.text
  # Numbers that every list starts again are not the same triplets.
  other = write('val.csv', 'id,rgb,label', 'a,4.jpg,0', 'b,5.jpg,1')
  assert len(linter.check([path, other]).findings) == 1


def test_a_file_in_two_splits(write):
  train = write('train.txt', row(3), row(1), row(1, frame=2))
  val = write('val.txt', row(4), row(1))
  report = linter.check([train, val])
  (found,) = report.findings
  assert (found.rule, found.list, found.row) == ('leak-file', train, 2)
  assert found.text == (
    f'{surf(1)[0]}, subject casia_surf/CLKJ_AS0001 is in train, and in {val}:2 (val)'
  )
  # Without that row of val, neither video nor person is in both: they are not reported again.
  assert [str(leak) for leak in report.leaks] == [
    'leak: subject casia_surf/CLKJ_AS0001 in train, val'
  ]
  # With another frame they are, but not twice.
  val = write('val.txt', row(4), row(1), row(1, frame=3))
  assert rules_of(linter.check([train, val])) == ['leak-file', 'leak-video']


def test_a_file_of_one_modality_in_two_splits(write):
  mixed = ' '.join([*surf(2)[:2], surf(1)[2], '1'])
  report = linter.check([write('train.txt', row(1)), write('val.txt', mixed)])
  found = next(f for f in report.findings if f.rule == 'leak-file')
  assert found.text.startswith(surf(1)[2])


def test_the_same_picture_below_another_root(write):
  other = row(1).replace('S/', 'Elsewhere/Data/Training/')
  report = linter.check([write('train.txt', row(1)), write('val.txt', other)])
  assert rules_of(report) == ['leak-file']


def test_a_video_and_a_person_in_two_splits(write):
  train = write('train.txt', row(1), row(2), row(2, '04_en_b'))
  val = write('dev.txt', row(1, frame=5), row(2, '05_enm_s'), row(3))
  report = linter.check([train, val])
  assert where(report) == [('leak-video', 'train.txt', 1), ('leak-subject', 'train.txt', 2)]
  assert report.findings[0].text == (
    f'video casia_surf/CLKJ_AS0001/real is in train (1 rows), and in {val}:1 (val, 1 rows)'
  )
  assert report.findings[1].text == (
    f'subject casia_surf/CLKJ_AS0002 is in train (2 rows), and in {val}:2 (val, 1 rows)'
  )
  assert len(report.leaks) == 2


def test_three_splits(write):
  paths = [write(f'{name}.txt', row(1)) for name in ('train', 'val', 'test')]
  (found,) = linter.check(paths).findings
  assert f'in {paths[1]}:1 (val); {paths[2]}:1 (test)' in found.text
  (leak,) = linter.check(paths).leaks
  assert leak.rows == {'train': 1, 'val': 1, 'test': 1}


def test_who_is_unknown_does_not_leak(write):
  head = 'rgb,depth,label'
  train = write('train.csv', head, 'x/rgb/1.png,x/depth/1.png,1')
  val = write('val.csv', head, 'x/rgb/2.png,x/depth/2.png,1')
  assert linter.check([train, val]).findings == []
  phase = [
    write(f'{name}.txt', ' '.join(f'Val/0000/00000{i}-{m}.jpg' for m in ('color', 'depth', 'ir')))
    for i, name in enumerate(('train', 'val'))
  ]
  assert linter.check(phase).findings == []


def test_splits_by_column_option_and_name(write):
  head = 'rgb,label,subject,split'
  one = write('all.csv', head, 'a.jpg,1,p,train', 'b.jpg,1,p,dev', 'c.jpg,1,q,test')
  report = linter.check([one])
  assert rules_of(report) == ['leak-subject']
  assert report.lists[0].splits == ('train', 'val', 'test')
  train, other = write('train.txt', row(1)), write('b.txt', row(1))
  leak, note = linter.check([train, other]).findings
  assert (leak.rule, note.rule, note.list) == ('leak-file', 'no-split', other)
  assert leak.text.endswith(f'is in train, and in {other}:1 (whole)')
  assert linter.check([other, write('c.txt', row(1))]).findings == []  # no splits at all
  assert rules_of(linter.check([train, other], splits={other: 'val'})) == ['leak-file']
  assert linter.check([train, other], splits={other: 'train'}).findings == []
  again = write('c.csv', head, 'a.jpg,1,p,train', 'a.jpg,1,p,val')
  assert rules_of(linter.check([again])) == ['leak-file']  # and no duplicate
  assert rules_of(linter.check([again], splits={again: 'test'})) == ['duplicate']
  many = [f'{i}.jpg,1,,s{i}' for i in range(70)]
  with pytest.raises(ConfigError, match='more than 62 splits'):
    linter.check([write('many.csv', head, *many)])
  most = write('62.csv', head, *many[:62], 'x,1,p,s0', 'y,1,p,s61')
  assert linter.check([most]).counts() == {'leak-subject': 1}


def test_leaks_against_the_definition(write):
  """Random rows, compared one by one."""
  chance, at = random.Random(7), lambda r: (r.list, r.line)
  for _ in range(60):
    rows = {
      split: [
        lists.make_row(
          {m: f'{m}/{chance.randrange(14)}.png' for m in ('rgb', 'depth')},
          subject=(subject := chance.choice(['', 'p', 'q', 'r'])),
          video=subject and chance.choice('vw'),
          list=split,
          line=line,
        )
        for line in range(1, chance.randrange(2, 6))
      ]
      for split in ('train', 'val', 'test')
    }
    found, *_ = linter.check_rows(rows)
    reported, expected = set(), collections.Counter()
    for one, other in itertools.permutations(rows, 2):
      for a, b in itertools.product(rows[one], rows[other]):
        if set(a.paths.values()) & set(b.paths.values()):
          reported.add((at(a), other))
    files = {
      (f, frozenset(s for s in rows if any(f in r.paths.values() for r in rows[s])))
      for s in rows for r in rows[s] for f in r.paths.values()
    }  # fmt: skip
    assert any(len(s) > 1 for _, s in files) == any(f.rule == 'leak-file' for f in found)
    for file in {f for f, s in files if len(s) > 1}:
      # Each shared file's rows are named.
      lines = {f'{r.list}:{r.line}' for s in rows for r in rows[s] if file in r.paths.values()}
      assert any(
        f'{f.list}:{f.row}' in lines and any(line in f.text for line in lines)
        for f in found
        if f.rule == 'leak-file'
      )
    for rule, key in (('leak-video', 'video'), ('leak-subject', 'subject')):
      new = set()
      for name in {getattr(r, key) for s in rows for r in rows[s]} - {''}:
        for one, other in itertools.combinations(rows, 2):
          a = [r for r in rows[one] if getattr(r, key) == name and (at(r), other) not in reported]
          b = [r for r in rows[other] if getattr(r, key) == name and (at(r), one) not in reported]
          if a and b:
            expected[rule, name] = 1
            new |= {(at(r), other) for r in a} | {(at(r), one) for r in b}
      reported |= new
    names = collections.Counter(
      (f.rule, f.text.split()[1]) for f in found if f.rule in ('leak-video', 'leak-subject')
    )
    assert dict.fromkeys(names, 1) == dict(expected)


def test_triplets_that_are_mixed(write):
  good = [row(i) for i in range(1, 4)]
  for paths, says in (
    ([*surf(1)[:2], surf(1, frame=7)[2]], 'frame 7 of ir is not 1 of rgb'),
    ([surf(1)[0], surf(2)[1], surf(1)[2]], 'subject CLKJ_AS0002 of depth is not CLKJ_AS0001 of'),
    ([*surf(1)[:2], surf(1, '04_en_b')[2]], 'video 04_en_b of ir is not real of rgb'),
  ):
    report = linter.check([write('train.txt', *good, ' '.join([*paths, '1']))])
    assert ('triplet', 'train.txt', 4) in where(report)
    assert says in next(f.text for f in report.findings if f.rule == 'triplet')


def test_triplets_of_anyones_names(write):
  head = 'rgb,depth,ir,label'
  rows = [f'x/rgb/{i:03}.jpg,x/depth/{i:03}.png,x/ir/{i:03}.png,1' for i in range(20)]
  bad = 'x/rgb/100.jpg,x/depth/101.png,x/ir/100.png,1'
  assert where(linter.check([write('train.csv', head, *rows[:10], bad, *rows[10:])])) == [
    ('triplet', 'train.csv', 12)
  ]
  # Where names never agree, they say nothing.
  rows = [f'{i}a.jpg,{i}b.png,{i}c.png,1' for i in range(20)]
  assert linter.check([write('train.csv', head, *rows)]).findings == []


def test_columns_that_are_swapped(write):
  report = linter.check([write('train.txt', row(1), row(2, kinds=('color', 'ir', 'depth')))])
  assert where(report) == [('swapped', 'train.txt', 2)] * 2
  assert report.findings[0].text == f'depth is {surf(2)[2]}, which is named as ir'
  # As in a reader of CASIA-SURF that took the columns for colour, infrared, depth.
  every = [f'f/{i}/rgb.png f/{i}/ir.png f/{i}/depth.png 1' for i in range(5)]
  assert rules_of(linter.check([write('train.txt', *every)])) == ['swapped'] * 10
  above = [f'x/{kind}/{surf(3)[2]}' for kind in ('color', 'depth', 'ir')]  # the last word counts
  assert rules_of(linter.check([write('train.txt', row(1), ' '.join([*above, '1']))])) == [
    'swapped', 'swapped',
  ]  # fmt: skip
  one = write('train.csv', 'ir,label', f'{surf(1)[0]},1')
  assert rules_of(linter.check([one])) == ['swapped']
  names = [f'rgb_depth/a{i}.png rgb_depth/b{i}.png rgb_depth/c{i}.png 1' for i in range(3)]
  assert linter.check([write('train.txt', *names)]).findings == []


def test_a_file_twice_in_a_row(write):
  color, depth, _ = surf(1)
  report = linter.check([write('train.txt', row(2), f'{color} {depth} {color} 1')])
  assert where(report) == [('same-image', 'train.txt', 2)]
  assert report.findings[0].text == f'rgb and ir are one file: {color}'


def test_labels_that_contradict_the_path(write):
  path = write('train.txt', row(1), row(2, label=0), row(3, '04_en_b'), row(4, '04_en_b', label=1))
  report = linter.check([path])
  assert where(report) == [('label', 'train.txt', 2), ('label', 'train.txt', 4)]
  assert report.findings[1].text.startswith('label is bona_fide, but the path names attack')


def test_polarity(write):
  path = write('train.txt', row(1, label=0), row(2, label=0), row(3, '04_en_b', label=1))
  (found,) = linter.check([path]).findings
  assert (found.rule, found.row) == ('label', 0)
  assert 'polarity' in found.text and '--labels=0=bona_fide,1=attack' in found.text
  mapped = linter.check([path], labels={'0': 'bona_fide', '1': 'attack'})
  assert mapped.findings == []
  assert (mapped.lists[0].bona_fide, mapped.lists[0].attacks) == (2, 1)


def test_labels_that_are_not_known(write):
  path = write('train.txt', row(1), row(2, label='-1'), row(3, label='live'))
  report = linter.check([path])
  assert where(report) == [('label', 'train.txt', 2), ('label', 'train.txt', 3)]
  assert report.lists[0].unlabelled == 2
  path = write('train.txt', *(row(i, label='live') for i in range(50)), row(60, label='fake'))
  report = linter.check([path])  # a matter of the list, not of its rows
  assert [(f.rule, f.row) for f in report.findings] == [('label', 1), ('label', 51)]
  assert '(and 49 more rows)' in report.findings[0].text


def test_one_triplet_with_two_labels(write):
  one = write('test.txt', row(1))
  other = write('test_2.txt', row(1, label=0), row(2))
  found = [f.text for f in linter.check([one, other]).findings]
  assert f'casia_surf/CLKJ_AS0001/real/1 is attack here, and bona_fide in {one}:1' in found
  same = linter.check([write('train.csv', 'rgb,label', 'a.jpg,1', 'a.jpg,0')])
  assert rules_of(same) == ['label', 'label', 'duplicate']  # each of them may be the wrong one


def test_how_a_list_is_written(write):
  report = linter.check([write('train.txt', row(1), row(2), end='\r\n', start='\ufeff')])
  assert [(f.rule, f.row) for f in report.findings] == [('line-endings', 1)] * 2
  path = write('train.txt', row(1), row(2))
  Path(path).write_text(Path(path).read_text().rstrip())
  assert where(linter.check([path])) == [('no-last-newline', 'train.txt', 0)]


def test_rows_and_paths_that_cannot_be(write, tmp_path):
  path = write('train.txt', row(1), 'a.jpg b.jpg 1', '/etc/passwd ../b.jpg c.jpg 1', row(2))
  report = linter.check([path, str(tmp_path), str(tmp_path / 'absent'), write('val.txt')])
  assert [(f.rule, f.row) for f in report.findings if f.list == path] == [
    ('row', 2), ('outside-root', 3), ('outside-root', 3),
  ]  # fmt: skip
  others = [f for f in report.findings if f.list != path]
  assert [f.rule for f in others] == ['row'] * 3
  assert [str(f)[len(f.list) :] for f in others] == [
    ': row: cannot be read: Is a directory',
    ': row: cannot be read: No such file or directory',
    ': row: is empty: it has no rows',
  ]
  assert report.lists[0].rows == 3


def test_relations(write):
  whole = write('test.txt', row(1), row(1, '01_e_s'), row(1, '02_e_b'), row(2, '02_e_b'))
  parts = [write('test_a.txt', row(1, '01_e_s')), write('test_b.txt', row(1, '02_e_b'))]
  rest = write('test_c.txt', row(2, '02_e_b'))
  (found,) = linter.check([whole, *parts, rest]).relations
  assert (found.kind, found.other, found.lists) == ('partition', whole, (*parts, rest))
  assert str(found) == (
    'test_a.txt, test_b.txt, test_c.txt (3 lists) partition the attacks of test.txt: '
    '3 triplets, each in one list'
  )

  def kinds(*paths):
    return [r.kind for r in linter.check(paths).relations]

  assert kinds(whole, *parts) == ['subset', 'subset']  # one attack is left out
  twice = write('test_d.txt', row(1, '02_e_b'), row(2, '02_e_b'))
  assert kinds(whole, *parts, twice) == [
    'subset',
    'subset',
    'subset',
    'subset',
  ]  # one is there twice
  assert kinds(whole, write('test_e.txt', row(1), row(9))) == ['overlap']
  assert kinds(whole, write('eval.txt', *Path(whole).read_text().splitlines()[::-1])) == ['equal']
  assert kinds(whole, write('test_f.txt', row(9))) == []
  assert kinds(whole, write('train.txt', row(1))) == []  # that is a leak
  live = write('test_live.txt', row(1))
  all_of = linter.check([whole, live, *parts, rest]).relations
  assert [r.compared for r in all_of] == ['attacks', 'rows']


KNOWN = 'CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1/{}/0026.jpg'


def cefa(path):
  return ' '.join([*(path.format(m) for m in ('profile', 'depth', 'ir')), '1'])


def test_known_leaks(write):
  paths = [write('val.txt', cefa(KNOWN)),
           write('test.txt', cefa(KNOWN), cefa(KNOWN.replace('0026', '0032')))]  # fmt: skip
  assert rules_of(linter.check(paths)) == ['leak-file']
  report = linter.check(paths, accept=['flexmodal_v1'])
  assert report.findings == []
  assert [(n.exception, n.finding.rule) for n in report.notes] == [('flexmodal_v1', 'leak-file')]
  assert str(report.leaks[0]) == (
    'leak (accepted: flexmodal_v1): subject casia_cefa/AF-300 in val, test'
  )
  assert report.accepted == ('flexmodal_v1',)


def test_other_leaks_are_not_known(write):
  accept = ['flexmodal_v1']
  other = KNOWN.replace('0026', '0032')
  for frames in ((other, other), (KNOWN, KNOWN, other)):
    paths = [write('val.txt', *map(cefa, frames[:1] + frames[2:])),
             write('test.txt', *map(cefa, frames[1:2] + frames[2:]))]  # fmt: skip
    report = linter.check(paths, accept=accept)
    assert rules_of(report) == ['leak-file']
    assert '0032' in report.findings[0].text
    assert not report.leaks[0].accepted
  train = [write('train.txt', cefa(KNOWN)), write('test.txt', cefa(KNOWN))]
  assert rules_of(linter.check(train, accept=accept)) == ['leak-file']
  with pytest.raises(ConfigError, match="'mine'"):
    linter.check(train, accept=['mine'])


def picture(seed, channels=3, size=(40, 32)):
  noise = np.random.default_rng(seed).integers(0, 256, (5, 4, channels), np.uint8)
  image = Image.fromarray(noise if channels == 3 else noise[..., 0]).resize(size)
  file = io.BytesIO()
  image.save(file, 'JPEG')
  return file.getvalue()


def put(root, paths, seed):
  for i, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(picture(10 * seed + i, 1 if i else 3))


def wmca(video, frames=(12, 12, 12)):
  kinds = ('color', 'depth', 'ir')
  return [f'W/{video}/{k}/{f:04}.jpg' for k, f in zip(kinds, frames, strict=True)]


def test_pictures(write, tmp_path):
  root = tmp_path / 'root'
  for i in range(1, 7):
    put(root, surf(i), i)
  (root / surf(2)[1]).unlink()
  (root / surf(3)[0]).write_bytes(picture(30)[:-60])
  (root / surf(4)[2]).write_bytes(picture(40))
  (root / surf(5)[1]).write_bytes(b'<html>log in</html>')
  (root / surf(6)[2]).unlink()
  (root / surf(6)[2]).mkdir()
  path = write('train.txt', *(row(i) for i in range(1, 7)), row(2), '../x ../y ../z 1')
  report = linter.check([path], root=root)
  assert where(report) == [
    ('duplicate', 'train.txt', 7), ('same-image', 'train.txt', 4), ('missing-file', 'train.txt', 2),
    ('unreadable', 'train.txt', 3), ('unreadable', 'train.txt', 5), ('unreadable', 'train.txt', 6),
    ('colour', 'train.txt', 4),
    ('outside-root', 'train.txt', 8), ('outside-root', 'train.txt', 8),
    ('outside-root', 'train.txt', 8),
  ]  # fmt: skip
  texts = [f.text for f in report.findings]
  assert f'depth {surf(2)[1]}' in texts
  assert f'ir cannot be read (it is a directory, not a regular file): {surf(6)[2]}' in texts
  assert any(t.startswith('rgb ') and surf(3)[0] in t for t in texts)
  assert report.root == str(root)


def test_damaged_jpegs_and_bytes_behind_the_end(write, tmp_path):
  """OpenCV and Pillow decode the first three; padding and a motion photo's video are no damage."""
  root = tmp_path / 'root'
  for i in range(1, 7):
    put(root, surf(i), i)
  whole = picture(7, size=(160, 128))
  middle = len(whole) // 2
  damaged = (
    whole[:middle] + b'\xff\xd9',
    whole[:middle] + bytes(512) + whole[middle + 512 :],
    whole[:middle] + whole[middle + 512 :],
  )
  behind = (bytes(8192), np.random.default_rng(0).bytes(3 << 20), picture(8))
  for i, content in enumerate((*damaged, *(whole + more for more in behind)), start=1):
    (root / surf(i)[0]).write_bytes(content)
  report = linter.check([write('train.txt', *(row(i) for i in range(1, 7)))], root=root)
  assert where(report) == [('unreadable', 'train.txt', i) for i in (1, 2, 3)]
  said = ('rgb is damaged', 'rgb cannot be decoded whole')
  assert all(f.text.startswith(said) for f in report.findings)


@pytest.mark.process
def test_pictures_on_all_cores(write, tmp_path, monkeypatch, capfd):
  root = tmp_path / 'root'
  for i in range(1, 9):
    put(root, surf(i), i)
    if i % 3 == 0:
      (root / surf(i)[i % 2]).write_bytes(b'')
  path = write('train.txt', *map(row, range(1, 9)))
  alone = linter.check([path], root=root)
  monkeypatch.setattr(image_scan, '_MIN_BATCHES', 2)
  monkeypatch.setattr(image_scan, '_BATCH', 3)
  assert linter.check([path], root=root) == alone
  assert rules_of(alone) == ['unreadable'] * 2
  assert capfd.readouterr().err == ''  # no bar where nobody watches


def test_a_wrong_root(write, tmp_path):
  path = write('train.txt', *map(row, range(20)))
  (found,) = linter.check([path], root=tmp_path).findings
  assert (found.rule, found.row) == ('missing-file', 0)
  assert found.text.startswith('none of the 60 files is below')
  with pytest.raises(ConfigError, match='is no folder'):
    linter.check([path], root=tmp_path / 'absent')
  put(tmp_path / 'disk', surf(0), 0)
  (found,) = linter.check([path], root=tmp_path).findings  # none of the first's is there
  assert found.text.endswith(f'is that where the paths start? They start at {tmp_path / "disk"}')
  assert f'e.g. {surf(0)[0]};' in found.text


def test_sizes_by_data_set(write, tmp_path):
  """Crops that were made for each modality may have any; the rules are those of the builders."""
  rows = surf(1), wmca('001_01_000_0_00'), ['a.jpg', 'b.jpg', 'c.jpg']
  for i, paths in enumerate(rows):
    put(tmp_path, paths, i)
    (tmp_path / paths[2]).write_bytes(picture(99 + i, 1, (40, 20)))
  path = write('test.txt', *(' '.join([*paths, '1']) for paths in rows))

  def check(**options):
    return where(linter.check([path], root=tmp_path, **options))

  assert check() == [('size', 'test.txt', 3)]
  assert check(sizes='any') == []
  assert check(sizes='aspect') == [('size', 'test.txt', n) for n in (1, 2, 3)]
  assert len(check(sizes='equal')) == 3


def test_limits_of_images(write, tmp_path):
  """What prepare and predict refuse, lint reports."""
  put(tmp_path, surf(1), 1)
  (tmp_path / surf(1)[0]).write_bytes(picture(3, size=(400, 12)))
  (tmp_path / surf(1)[1]).unlink()
  os.mkfifo(tmp_path / surf(1)[1])
  path = write('test.txt', row(1))
  found = [f.text for f in linter.check([path], root=tmp_path).findings]
  assert [text.partition(':')[0] for text in found] == [
    'depth cannot be read (it is a named pipe, not a regular file)',
    'rgb is 400 x 12 pixels; each side must have at least 16',
  ]
  found = linter.check([path], root=tmp_path, max_pixels=1000).findings
  assert [f.text for f in found][-1].startswith(
    'ir is 40 x 32 pixels, more than the limit of 1,000'
  )
  with pytest.raises(ConfigError, match='max_pixels is 255'):
    linter.check([path], root=tmp_path, max_pixels=255)


def test_the_known_videos_of_wmca(write, tmp_path):
  for video, known in (('100_03_015_2_10', True), ('101_06_067_1_02', True),
                       ('100_03_015_2_11', False)):  # fmt: skip
    paths = wmca(video, (12, 12, 13))
    put(tmp_path, paths[:2], 1)
    path = write('test.txt', ' '.join([*paths, '0']))
    report = linter.check([path], root=tmp_path)
    found = [note.finding for note in report.notes] if known else report.findings
    assert [f.rule for f in found] == ['triplet', 'missing-file']
    assert bool(report.findings) != known
    (tmp_path / paths[1]).write_bytes(b'')  # whatever else is wrong with them is reported
    assert 'unreadable' in rules_of(linter.check([path], root=tmp_path))
    assert all(note.exception == 'wmca_frame_indices' for note in report.notes)


@pytest.mark.parametrize('files', [True, False])
def test_rows_without_a_split_are_compared_as_one_split(write, files):
  rows = ['a.jpg,1,anna,train', f'{"a" if files else "b"}.jpg,1,anna,', 'c.jpg,1,ben,']
  report = linter.check([write('list.csv', 'rgb,label,subject,split', *rows)])
  assert rules_of(report) == ['leak-file' if files else 'leak-subject', 'no-split']
  assert report.leaks[0].rows == {'train': 1, 'whole': 1}


def test_a_misspelt_column_is_noted(write):
  report = linter.check([write('list.csv', 'rgb,depht,irr,labl,subjct,note,day', 'a,b,c,1,p,x,y')])
  notes = report.of_severity('note')
  assert [(n.rule, n.row) for n in notes] == [('misspelt-column', 1)] * 4
  assert [n.text.removeprefix('the column ') for n in notes] == [
    'depht is not used; is it depth?',
    'irr is not used; is it ir?',
    'labl is not used; is it label?',
    'subjct is not used; is it subject?',
  ]
  # Both exist, or the name is that of something else.
  names = 'rgb,rgb2,label,labels,device,left,top,right,bottom,session,score'
  assert linter.check([write('train.csv', names, 'a,b,1,1,d,1,1,9,9,s,0.5')]).findings == []


def test_rows_without_a_split_beside_rows_with_one_are_noted(write):
  rows = ['a.jpg,1,train', 'b.jpg,0,', 'c.jpg,0,']
  report = linter.check([write('list.csv', 'rgb,label,split', *rows)])
  (note,) = report.findings
  assert (note.rule, note.row) == ('no-split', 3) and '2 of 3 rows have no split' in note.text
  assert report.of_severity('error') == []
  assert rules_of(linter.check([write('train.csv', 'rgb,label,split', *rows)])) == []


def test_rows_at_hand(write):
  """What a builder asks, before it writes anything."""
  rows = list(lists.read(write('a.txt', row(1), row(2), row(1))))
  other = list(lists.read(write('b.txt', row(2), row(3), row(3, label=0))))
  found, notes, wrong = linter.check_rows({'train': rows, 'val': other})
  assert notes == [] and wrong == {'train': {1, 2}, 'val': {1, 2}}
  assert [(f.rule, Path(f.list).name, f.row) for f in found] == [
    ('label', 'b.txt', 2), ('label', 'b.txt', 3), ('duplicate', 'a.txt', 3),
    ('duplicate', 'b.txt', 3), ('leak-file', 'a.txt', 2),
  ]  # fmt: skip
  assert f'{other[0].list}:1 (val)' in found[-1].text
  two_lists, *_ = linter.check_rows({'train': [*rows[:2], other[0]]})
  assert two_lists[0].text.startswith(f'the same triplet as {rows[0].list}:2: ')
  assert linter.check_rows({}) == ([], [], {})
  assert linter.check_rows({'train': rows[:2], 'val': []})[:2] == ([], [])
  known = list(lists.read(write('c.txt', cefa(KNOWN))))
  found, (note,), _ = linter.check_rows({'val': known, 'test': known}, ('flexmodal_v1',))
  assert found == []
  assert note.startswith('accepted: flexmodal_v1: ')


def test_json_has_all(write):
  paths = [write('train.txt', row(1), row(1)), write('val.txt', row(1)), write('val_2.txt', row(1))]
  said = linter.check(paths).json_safe()
  assert said['counts'] == {'duplicate': 1, 'leak-file': 1}
  assert [f['rule'] for f in said['findings']] == ['duplicate', 'leak-file']
  assert said['leaks'][0]['rows'] == {'train': 2, 'val': 2}
  assert said['relations'][0]['kind'] == 'equal'
  assert len(said['lists'][0]['sha256']) == 64


def test_every_finding_has_a_rule_with_a_way_out(write):
  report = linter.check([write('train.txt', row(1), row(1), 'x')])
  assert set(rules_of(report)) <= set(RULES)


@pytest.fixture(scope='module')
def published():
  if not PUBLISHED.is_dir():
    pytest.skip("FlexModal's protocol lists are not here")
  return linter.check(sorted(PUBLISHED.glob('*.txt')), accept=['flexmodal_v1'])


def test_the_published_lists(published):
  rows = {Path(s.list).stem: (s.rows, s.bona_fide, s.redundant) for s in published.lists}
  assert rows['CASIA-SURF_CeFA_train'] == (11_097, 2_100, 20)
  assert rows['CASIA-SURF_CeFA_val'] == (4_501, 901, 0)
  assert rows['CASIA-SURF_CeFA_test'] == (19_303, 3_000, 60)
  assert rows['WMCA_test'] == (5_037, 1_041, 0)
  assert published.counts() == {
    'duplicate': 80, 'shortcut': 3, 'line-endings': 11, 'no-last-newline': 4,
  }  # fmt: skip
  # CeFA's live clips and attacks were taken by different devices.
  assert [(s['split'], s['fact'], s['accuracy']) for s in published.shortcuts] == [
    ('test', 'device', 1.0), ('train', 'device', 1.0), ('val', 'device', 1.0),
  ]  # fmt: skip
  assert published.shortcuts[1]['values'] == (('bag', 1.0, 0.0), ('rssdk', 0.0, 1.0))
  duplicates = [Path(f.list).stem for f in published.findings if f.rule == 'duplicate']
  assert collections.Counter(duplicates) == {
    'CASIA-SURF_CeFA_train': 20, 'CASIA-SURF_CeFA_test': 60,
  }  # fmt: skip
  wmca_test = next(s for s in published.lists if s.list.endswith('WMCA_test.txt'))
  assert wmca_test.videos == 1_679


def test_the_published_leak(published):
  (note,) = published.notes
  assert note.exception == 'flexmodal_v1'
  assert note.finding.rule == 'leak-file'
  for word in (KNOWN.format('profile'), 'AF-300', 'CASIA-SURF_CeFA_val.txt:'):
    assert word in note.finding.text
  assert [str(leak) for leak in published.leaks] == [
    'leak (accepted: flexmodal_v1): subject casia_cefa/AF-300 in val, test'
  ]
  assert linter.check(sorted(PUBLISHED.glob('CASIA*.txt'))).counts()['leak-file'] == 1


def test_the_published_partition(published):
  (found,) = published.relations
  assert (found.kind, found.compared, found.triplets) == ('partition', 'attacks', 3_996)
  assert Path(found.other).name == 'WMCA_test.txt'
  assert sorted(Path(name).stem for name in found.lists) == [
    f'WMCA_test_{kind}'
    for kind in (
      'fakehead', 'flexiblemask', 'glasses', 'papermask', 'print', 'replay', 'rigidmask',
    )
  ]  # fmt: skip
