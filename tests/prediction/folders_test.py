"""Folders: what is one sample, what is bad, what is named, and what is refused."""

import os

import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.prediction import folders

TRIPLET = ('rgb/1.jpg', 'depth/1.png', 'ir/1.png')


def write(folder, *names):
  """Files with these names; their bytes do not matter, for nothing is decoded."""
  for name in names:
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
      file.write(b'an image')
  return folder


def of(found):
  return {sample.id: '+'.join(sample.given) for sample in found.samples}


def test_what_is_one_sample(tmp_path):
  write(tmp_path, *TRIPLET, 'attack/2_rgb.png', 'attack/2_ir.PNG', 'bona_fide/x/depth/3.jpeg')
  found = folders.read_folder(tmp_path)
  assert of(found) == {'1': 'rgb+depth+ir', 'attack/2': 'rgb+ir', 'bona_fide/x/3': 'depth'}
  assert [sample.label for sample in found.samples] == ['attack', 'bona_fide', '']
  assert not found.bad
  assert found.notes == [
    '1 of 3 samples have no rgb, which counts as absent: bona_fide/x/3',
    '1 of 3 samples have no depth, which counts as absent: attack/2',
    '1 of 3 samples have no ir, which counts as absent: bona_fide/x/3',
  ]


def test_hidden_and_system_files_are_no_images(tmp_path):
  write(tmp_path, *TRIPLET)
  write(tmp_path, '._1.png', 'rgb/._1.jpg', '__MACOSX/rgb/2.jpg', '.cache/rgb/2.jpg', '.DS_Store')
  write(tmp_path, 'Thumbs.db', 'rgb/@eaDir/1.jpg')
  found = folders.read_folder(tmp_path)
  assert of(found) == {'1': 'rgb+depth+ir'} and not found.notes


@pytest.mark.parametrize(
  'name',
  [
    *('depth/1.exr', 'depth/1.BMP', 'depth/1.npz', 'depth/1.jxl', 'depth/1.pfm', 'depth/1.raw'),
    *('depth/1.z16', 'depth/1', 'depth/1.txt', 'depth/1.csv', '1_depth.exr'),
  ],
)
def test_a_sensor_is_never_left_out_for_its_suffix(tmp_path, name):
  write(tmp_path, 'rgb/1.jpg', 'ir/1.png', name, 'rgb/2.jpg', 'ir/2.png')
  with pytest.raises(DataError, match=r'samples with unusable files: 1 .*cannot be read: it is'):
    folders.read_folder(tmp_path)
  found = folders.read_folder(tmp_path, on_bad='skip')
  assert of(found) == {'2': 'rgb+ir'}
  (bad,) = found.bad
  assert (bad.rule, bad.list) == ('unreadable', str(tmp_path)) and bad.text.startswith(name)


@pytest.mark.parametrize('name', ['3.avif', 'p/rgb/3.jp2', 'p/ir/3.raw', 'ir/3.png.part', 'ir.zip'])
def test_a_sample_is_never_left_out_for_its_suffix(tmp_path, name):
  with pytest.raises(DataError, match='cannot be read: it is'):
    folders.read_folder(write(tmp_path, *TRIPLET, name))


def test_other_formats_are_taken_where_a_sensor_has_no_jpeg_or_png(tmp_path):
  write(tmp_path, *TRIPLET, 'depth/1.npy')  # beside depth/1.png, which is taken
  write(tmp_path, 'rgb/2.HEIC', 'ir/2.webp', 'depth/2.npy', 'rgb/3.tif', 'ir/3.png')
  found = folders.read_folder(tmp_path)
  assert of(found) == {'1': 'rgb+depth+ir', '2': 'rgb+depth+ir', '3': 'rgb+ir'}
  given = {sample.id: sample.given for sample in found.samples}
  assert str(given['1']['depth']).endswith('1.png') and str(given['2']['depth']).endswith('2.npy')
  assert any('depth/1.npy' in note for note in found.notes)
  write(tmp_path, 'depth/2.tiff')
  with pytest.raises(DataError, match=r'depth/2.npy and depth/2.tiff are both depth of one sample'):
    folders.read_folder(tmp_path)


def test_what_is_no_image_is_named(tmp_path):
  write(tmp_path, *TRIPLET, 'rgb/1.bmp')  # 1 has its RGB
  write(tmp_path, 'README.md', 'scores.csv', 'depth/calibration.json', '1.json', 'model.onnx')
  write(tmp_path, b'caf\xe9.txt')
  found = folders.read_folder(tmp_path)
  assert of(found) == {'1': 'rgb+depth+ir'} and not found.bad
  (note,) = found.notes
  assert note.startswith('ignored files: 7 (.json 2, ')
  assert note.endswith(
    '1.json, README.md, caf\\xe9.txt, depth/calibration.json, model.onnx, and 2 more'
  )


@pytest.mark.parametrize('name', ['ir1', 'infra1', 'thermal', 'depthmap', 'infrared2', 'Depth Map'])
def test_unknown_sensors_are_refused(tmp_path, name):
  write(tmp_path, 'rgb/1.jpg', 'ir/1.png', f'{name}/1.png')
  for on_bad in ('fail', 'skip'):
    with pytest.raises(DataError, match=rf'{name} does not name a supported sensor.*--manifest'):
      folders.read_folder(tmp_path, on_bad)


@pytest.mark.parametrize(
  ('names', 'says'),
  [
    (['rgb/1.png', 'depth_map/1.png'], 'no sample has rgb and another sensor'),
    (['rgb/1.png', 'ir/1.png', 'depth_map/1.png'], 'no sample has depth and another sensor'),
    (['rgb/1.png', 'ir/1.png', 'aligned_depth/1.png'], 'no sample has depth and another'),
    (['image/1.png', 'depth/1.png'], 'image/1.png would be two samples|depth/1.png would be'),
    (['visible/1.png', 'depth/1.png', 'ir/1.png'], 'no sample has rgb and another sensor'),
    (['depth_map/1.png'], 'depth_map is more than the name of a sensor'),
    (['IR_0/1.png', 'IR_1/1.png'], 'IR_0 is more than the name of a sensor'),
    # Where others pair, one that does not is still seen.
    ([*TRIPLET, 'p/rgb/2.png', 'p/ir/2.png', 'p/depth_map/2.png'], 'depth_map is more than'),
    (['rgb/1.png', 'rgb/1.jpg'], 'are both rgb of one sample'),
    (['rgb/1.png', 'color/1.png'], 'are both rgb of one sample'),
  ],
)
def test_images_of_one_sample_do_not_become_two(tmp_path, names, says):
  with pytest.raises(DataError, match=says):
    folders.read_folder(write(tmp_path, *names))


def test_longer_names_that_pair_are_fine(tmp_path):
  write(tmp_path, 'rgb_alice_1.jpg', 'depth_alice_1.png', 'rgb_aligned/2.png', 'ir_aligned/2.png')
  assert list(of(folders.read_folder(tmp_path)).values()) == ['rgb+depth', 'rgb+ir']
  only_rgb = write(tmp_path / 'other', 'profile_pictures/1.jpg', 'color-study/2.jpg')
  assert list(of(folders.read_folder(only_rgb)).values()) == ['rgb', 'rgb']


@pytest.mark.parametrize(
  ('name', 'says'),
  [
    (b'rgb/\xff.png', r'rgb/\\xff.png is not UTF-8'),
    (b'a\xe9/rgb/2.png', r'a\\xe9/rgb/2.png is not UTF-8'),
    ('rgb/a\nb.png', r'rgb/a\\nb.png has a line break'),
    ('rgb/a\rb.png', r'rgb/a\\rb.png has a line break'),
    ('rgb/a\x1b[2Jb.png', r'rgb/a\\x1b\[2Jb.png has a line break or another control'),
    ('rgb/a\u2028b.png', 'has a line break'),
  ],
)
def test_names_that_a_score_file_cannot_hold(tmp_path, name, says):
  write(tmp_path, *TRIPLET, name)
  with pytest.raises(DataError, match=says):
    folders.read_folder(tmp_path)
  found = folders.read_folder(tmp_path, on_bad='skip')
  assert of(found) == {'1': 'rgb+depth+ir'} and len(found.bad) == 1
  found.bad[0].text.encode()  # UTF-8


def test_names_that_it_can(tmp_path):
  write(tmp_path, 'rgb/a, b;"c".png', 'ir/a, b;"c".png', 'rgb/Zoë 王.png', 'ir/Zoë 王.png')
  assert of(folders.read_folder(tmp_path)) == {'a, b;"c"': 'rgb+ir', 'Zoë 王': 'rgb+ir'}


def test_composed_and_decomposed_names_are_one_sample(tmp_path):
  """Written by macOS and by Linux."""
  write(tmp_path, 'rgb/Zo\u00eb.png', 'ir/Zoe\u0308.png')
  assert list(of(folders.read_folder(tmp_path)).values()) == ['rgb+ir']


def test_links_and_what_is_no_file(tmp_path):
  write(tmp_path / 'set', 'rgb/1.png', 'rgb/2.png', 'ir/1.png', 'ir/2.png')
  write(tmp_path / 'other', '1.png', '2.png')
  os.symlink(tmp_path / 'other', tmp_path / 'set/depth')  # a folder elsewhere is read
  assert set(of(folders.read_folder(tmp_path / 'set')).values()) == {'rgb+depth+ir'}
  (tmp_path / 'other/2.png').unlink()
  os.symlink('nowhere.png', tmp_path / 'other/2.png')
  with pytest.raises(DataError, match='depth/2.png is not a file'):
    folders.read_folder(tmp_path / 'set')
  (tmp_path / 'other/2.png').unlink()
  os.mkfifo(tmp_path / 'other/2.png')
  assert list(of(folders.read_folder(tmp_path / 'set', 'skip'))) == ['1']
  os.symlink('..', tmp_path / 'set/rgb/again')
  with pytest.raises(DataError, match='is a link to a folder that contains it'):
    folders.read_folder(tmp_path / 'set')


def test_no_folder_and_no_image(tmp_path):
  with pytest.raises(DataError, match='absent is not a folder'):
    folders.read_folder(tmp_path / 'absent')
  with pytest.raises(DataError, match=r'has no image \(.jpg, .jpeg, .png, .webp, .*\)$'):
    folders.read_folder(tmp_path)
  with pytest.raises(DataError, match='has no image.*: rgb/1.exr cannot be read'):
    folders.read_folder(write(tmp_path, 'rgb/1.exr'))


def test_a_folder_that_is_one_sample(tmp_path):
  assert of(folders.read_folder(write(tmp_path, 'rgb.png', 'ir.png'))) == {'rgb': 'rgb+ir'}


def test_two_samples_of_one_id(tmp_path):
  """Two copies of one data set, whose layout gives the ids."""
  path = 'real_part/CLKJ_AS0005/real.rssdk/color/1.jpg'
  with pytest.raises(DataError, match='2 samples have the id casia_surf/CLKJ_AS0005/real/1'):
    folders.read_folder(write(tmp_path, f'a/{path}', f'b/{path}'))


@pytest.mark.parametrize(
  'name',
  ['disp/1.png', 'near-infrared/1.png', '近红外/1.png', 'mono_1.png', '1_mask.png', 'a.b/1.png'],
)
def test_a_word_where_others_have_their_sensor_is_refused(tmp_path, name):
  """It would be a sample of its own, which RGB alone decides."""
  write(tmp_path, *TRIPLET, name)
  if name == 'a.b/1.png':  # two words: another person's or camera's folder
    assert of(folders.read_folder(tmp_path)) == {'1': 'rgb+depth+ir', 'a.b/1': 'rgb'}
    return
  with pytest.raises(DataError, match=f'{name} would be a sample of its own, and differs from'):
    folders.read_folder(tmp_path)


def test_a_word_beside_rgb_alone_is_refused_and_numbers_are_not(tmp_path):
  write(tmp_path, 'rgb/1.jpg', '2/1.jpg', 'anna/7.jpg')
  assert of(folders.read_folder(tmp_path)) == {'1': 'rgb', '2/1': 'rgb', 'anna/7': 'rgb'}
  write(tmp_path, 'disp/1.jpg')
  with pytest.raises(DataError, match='disp/1.jpg would be a sample of its own'):
    folders.read_folder(tmp_path)
