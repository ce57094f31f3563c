"""Triplets found in folders: their order, what is left out, and the problems that are listed."""

import os

import pytest

from flexfas_jax.data import folders
from flexfas_jax.errors import DataError

_CLIP = 'Training/real_part/CLKJ_AS0005/real.rssdk'


@pytest.fixture
def source(tmp_path):
  """Four triplets of empty files."""
  for frame in ('1', '2'):
    for subject in ('CLKJ_AS0005', 'CLKJ_AS0002'):
      for kind in ('color', 'depth', 'ir'):
        touch(tmp_path / _CLIP.replace('CLKJ_AS0005', subject) / kind / f'{frame}.jpg')
  return tmp_path


def touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()


def ids(source, below=('',), **settings):
  found, findings = folders.find_triplets(source, below, 'casia_surf', **settings)
  return [one.parsed_path.id for one in found], [str(finding) for finding in findings]


def test_triplets_come_in_the_order_of_names(source):
  found, findings = folders.find_triplets(source, [''], 'casia_surf')
  assert [one.parsed_path.id for one in found] == [
    'casia_surf/CLKJ_AS0002/real/1',
    'casia_surf/CLKJ_AS0002/real/2',
    'casia_surf/CLKJ_AS0005/real/1',
    'casia_surf/CLKJ_AS0005/real/2',
  ]
  assert found[2].files == {
    'rgb': f'{_CLIP}/color/1.jpg', 'depth': f'{_CLIP}/depth/1.jpg', 'ir': f'{_CLIP}/ir/1.jpg',
  }  # fmt: skip
  assert not findings


def test_what_is_no_picture_is_passed_over(source):
  before = ids(source)
  for name in ('.1.jpg', 'Thumbs.db', '._1.jpg', 'readme.txt', '1.jpg.part', 'desktop.ini'):
    touch(source / _CLIP / 'color' / name)
  touch(source / '.cache' / 'color' / '1.jpg')
  assert ids(source) == before


def test_a_triplet_that_lacks_a_file(source):
  (source / _CLIP / 'ir' / '2.jpg').unlink()
  (source / _CLIP / 'color' / '2.jpg').unlink()
  found, problems = ids(source)
  assert len(found) == 3
  assert problems == [
    f'{_CLIP}/depth: missing-file: casia_surf/CLKJ_AS0005/real/2 has no rgb and no ir '
    f'(there is {_CLIP}/depth/2.jpg)'
  ]
  found, problems = ids(source, may_lack=lambda said: said.subject == 'CLKJ_AS0005')
  assert len(found) == 4 and not problems


def test_names_of_no_known_form(source):
  for k in range(5):
    touch(source / 'Training' / 'more' / f'IMG_{k}.JPG')
  touch(source / '001_01_000_0_00' / 'color' / '0012.jpg')  # of another data set
  (source / 'Training' / 'more' / os.fsdecode(b'\xff.png')).touch()
  found, problems = ids(source)
  assert len(found) == 4
  assert problems == [
    '001_01_000_0_00/color: row: 0012.jpg is of no form that casia_surf has',
    *(f'Training/more: row: IMG_{k}.JPG is of no form that casia_surf has' for k in range(5)),
    'Training/more: row: \\udcff.png is of no form that casia_surf has',
  ]
  assert all(text.isascii() for text in problems)
  (source / 'Training' / 'more').rename(source / os.fsdecode(b'\xfe'))
  assert any(text.startswith('\\udcfe: ') for text in ids(source)[1])  # and can be written


def test_one_picture_twice(source):
  touch(source / _CLIP / 'color' / '1.png')
  found, problems = ids(source)
  assert len(found) == 4
  assert problems == [
    f'{_CLIP}/color: duplicate: casia_surf/CLKJ_AS0005/real/1: rgb is {_CLIP}/color/1.jpg and '
    f'{_CLIP}/color/1.png'
  ]
  assert not ids(source, skip=lambda path: path.endswith('.png'))[1]


def test_links(source, tmp_path_factory):
  before = ids(source)
  clip = source / _CLIP
  (clip / 'up').symlink_to('..')
  (clip / 'here').symlink_to('.')
  (clip / 'round').symlink_to('round')
  (clip / 'nothing').symlink_to('not there')
  (source / 'top').symlink_to(source.parent)
  assert ids(source) == before
  elsewhere = tmp_path_factory.mktemp('elsewhere')
  (source / 'Training').rename(elsewhere / 'Training')
  (source / 'Training').symlink_to(elsewhere / 'Training')
  assert ids(source) == before


def test_a_closed_folder(source, monkeypatch):
  scandir = os.scandir

  def gone(path):
    if path.endswith('ir'):
      raise PermissionError(13, 'Permission denied', path)
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', gone)
  found, problems = ids(source)
  assert not found and f'{_CLIP}/ir: unreadable: Permission denied' in problems


def test_folders_by_name(source):
  for place in ('a/Val', 'a/Val/Testing', 'b/c/d/e/Training', 'Training2'):
    (source / place).mkdir(parents=True)
  names = {'Training', 'Val', 'Testing'}
  assert folders.find_folders(source, names) == ['Training', 'a/Val']
  assert folders.find_folders(source, names, depth=5) == ['Training', 'a/Val', 'b/c/d/e/Training']
  assert folders.find_folders(source / 'Training2', names) == []


def test_files_that_may_be_lists(source):
  for name in ('a.txt', 'lists/b.CSV', 'lists/c/d.txt', 'lists/c/e/f.txt', '.g.txt', 'h.md'):
    touch(source / name)

  def names(lists):
    return [p.relative_to(source).as_posix() for p in folders.list_files(*lists)]

  assert names((source, None)) == ['a.txt', 'lists/b.CSV', 'lists/c/d.txt']
  assert names((source, source / 'lists')) == ['lists/b.CSV', 'lists/c/d.txt', 'lists/c/e/f.txt']
  both = f'{source / "h.md"},{source / "lists" / "c"}'
  assert names((source, both)) == ['h.md', 'lists/c/d.txt', 'lists/c/e/f.txt']
  with pytest.raises(DataError, match='--lists: there is no .*nothing.txt'):
    folders.list_files(source, source / 'nothing.txt')


def test_files_below_links_are_found_once(tmp_path):
  source, disk = tmp_path / 'source', tmp_path / 'disk'
  for place in (source / 'a', disk / 'b' / 'deep'):
    place.mkdir(parents=True)
    touch(place / '1.npz')
  touch(source / '.hidden' / '2.npz')
  touch(source / 'a' / '._1.npz')
  (source / 'linked').symlink_to(disk / 'b')
  (source / 'a' / 'up').symlink_to('..')
  (source / 'a' / 'round').symlink_to('round')
  (source / 'above').symlink_to(tmp_path)
  (disk / 'b' / 'back').symlink_to(source / 'a')  # and a/up leads back from there
  assert [str(path.relative_to(source)) for path in folders.find_files(source, '*.npz')] == [
    'a/1.npz', 'linked/back/1.npz', 'linked/deep/1.npz',
  ]  # fmt: skip
  (source / 'a' / 'there').symlink_to(disk / 'b')  # two folders with links to each other
  assert len(folders.find_files(source, '*.npz')) == 4
  with pytest.raises(DataError, match='nowhere cannot be listed: No such file'):
    folders.find_files(tmp_path / 'nowhere', '*')


def test_triplets_below_links_to_each_other(source, tmp_path_factory):
  elsewhere = tmp_path_factory.mktemp('elsewhere')
  (source / 'Training').rename(elsewhere / 'Training')
  (source / 'Training').symlink_to(elsewhere / 'Training')
  (elsewhere / 'Training' / 'back').symlink_to(source)
  assert len(ids(source)[0]) == 4 and not ids(source)[1]


def test_an_instrument_that_the_data_set_does_not_have(source):
  for frame in (1, 2):
    touch(source / 'Training/fake_part/CLKJ_AS0005/07_x_s.rssdk/color' / f'{frame}.jpg')
  assert ids(source)[1] == [
    'Training/fake_part/CLKJ_AS0005/07_x_s.rssdk/color: label: '
    'CLKJ_AS0005: CASIA-SURF has no clip 07_x_s in fake_part (2 images, 1.jpg)'
  ]
