"""Files of formats that are not read, as libraries write them, through every command."""

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image, features

from flexfas_jax.data.manifest.manifest_dataset_builder import Builder
from flexfas_jax.errors import DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import formats as image_formats
from flexfas_jax.prediction import Predictor, folders
from flexfas_jax.protocols.lint import image_scan, linter
from tests.miniatures import faces, manifest
from tests.prediction import bundles

RGB = faces.triplet('', 1, 1, 64)['rgb']
METRES = (faces.triplet('', 1, 1, 64, depth_bits=16)['depth'] / 1000).astype(np.float32)


def by_pillow(kind, array=RGB):
  file = io.BytesIO()
  Image.fromarray(array).save(file, kind)
  return file.getvalue()


def npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def npz(array):
  file = io.BytesIO()
  np.savez(file, array)
  return file.getvalue()


def inks():
  file = io.BytesIO()
  Image.fromarray(RGB).convert('CMYK').save(file, 'JPEG')
  return file.getvalue()


def box(brand):
  return b'\0\0\0\x18ftyp' + brand + b'\0\0\0\0' + brand + b'mif1' + bytes(64)


FILES = {
  'TIFF of 16-bit RGB': (
    cv2.imencode('.tiff', RGB.astype(np.uint16))[1].tobytes(), 'a TIFF of 3 x 16.*-depth 8',
  ),
  'TIFF of float64': (cv2.imencode('.tiff', METRES.astype(float))[1].tobytes(), 'TIFF of 1 x 64'),
  'BigTIFF': (b'II+\0' + bytes(64), 'a BigTIFF image.*tiffcp'),
  'NPY of int32': (npy(METRES.astype(np.int32)), r'a NumPy array \[64, 64\] of int32.*float32'),
  'NPZ': (npz(METRES), 'a ZIP archive.*numpy.save'),
  'PFM': (cv2.imencode('.pfm', METRES)[1].tobytes(), 'a PFM image'),
  'BMP': (by_pillow('BMP'), 'a BMP image'),
  'GIF': (by_pillow('GIF'), 'a GIF image'),
  'PPM': (by_pillow('PPM'), 'a PPM image'),
  'EXR': (b'v/1\x01\2\0\0\0channels' + bytes(64), 'an OpenEXR image'),
  'HEIC sequence': (box(b'hevc'), 'a HEIC image.*heif-convert'),
  'AVIF': (box(b'avif'), 'an AVIF image.*avifdec'),
  'MP4': (box(b'isom'), 'a video.*ffmpeg'),
  'JPEG 2000': (by_pillow('JPEG2000') if features.check('jpg_2000') else b'\0\0\0\x0cjP  ', '2000'),
  'JPEG XL': (b'\xff\x0a' + bytes(64), 'a JPEG XL image.*djxl'),
  'CMYK': (inks(), 'CMYK.*magick FILE -colorspace sRGB FILE.png'),
}  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_every_command_names_the_format_and_the_conversion(name, tmp_path):
  content, says = FILES[name]
  with pytest.raises(image_checks.Unreadable, match=says):
    image_checks.decode(content)
  source = tmp_path / 'source'
  source.mkdir()
  (source / 'a.jpg').write_bytes(content)  # as phones and downloads name them
  # lint
  ((rule, text), *more), *_ = image_scan.inspect_triplet(
    str(source), {'rgb': 'a.jpg'}, image_checks.Rules(), 10**7
  )
  assert rule == 'unreadable' and re.search(says, text) and not more
  # prepare
  row = {'rgb': 'a.jpg', 'label': 'bona_fide', 'subject': 'a', 'video': 'v', 'frame': '1'}
  manifest.write_csv(source / 'manifest.csv', [row])
  builder = Builder(
    config='ours', data_dir=tmp_path, file_format='array_record', source=source, workers=1
  )
  with pytest.raises(DataError, match=says):
    builder.download_and_prepare()
  # predict
  predictor = Predictor.load(bundles.write(tmp_path / 'bundle'))
  for given in (content, source / 'a.jpg'):
    with pytest.raises(DataError, match=says):
      predictor(rgb=given)


def test_a_folder_of_other_images_names_the_conversion(tmp_path):
  (tmp_path / 'rgb').mkdir()
  (tmp_path / 'rgb' / '1.avif').write_bytes(box(b'avif'))
  (tmp_path / 'rgb' / '2.png').write_bytes(bundles.png(RGB))
  with pytest.raises(DataError, match=r'1.avif cannot be read: .*an AVIF image.*avifdec'):
    folders.read_folder(tmp_path, 'fail')


def test_rgb_of_16_bits_is_refused_everywhere(tmp_path):
  deep = bundles.png(RGB.astype(np.uint16) * 257)
  (tmp_path / 'a.png').write_bytes(deep)
  found, *_ = image_scan.inspect_triplet(
    str(tmp_path), {'rgb': 'a.png'}, image_checks.Rules(), 10**7
  )
  assert [rule for rule, _ in found] == ['bit-depth'] and 'magick FILE -depth 8' in found[0][1]
  row = {'rgb': 'a.png', 'label': 'bona_fide', 'subject': 'a', 'video': 'v', 'frame': '1'}
  manifest.write_csv(tmp_path / 'manifest.csv', [row])
  builder = Builder(
    config='ours', data_dir=tmp_path, file_format='array_record', source=tmp_path, workers=1
  )
  with pytest.raises(DataError, match='rgb has 16 bits, and 8 are due; convert it'):
    builder.download_and_prepare()
  predictor = Predictor.load(bundles.write(tmp_path / 'bundle'))
  for given in (deep, RGB.astype(np.uint16) * 257):
    with pytest.raises(DataError, match='rgb has 16 bits, and 8 are due'):
      predictor(rgb=given)


def test_what_is_not_recognised_is_shown():
  assert image_formats.describe(b'\1\2\3\4') == (
    'of an unknown format (it starts with the bytes 01 02 03 04); open it with the program that '
    'wrote it and save it as PNG. JPEG, PNG, TIFF, WebP and NPY are read'
  )
  assert '(it starts with the text "hello wo");' in image_formats.describe(b'hello world')
  assert 'HTML page' in image_formats.describe(b'\n <!DOCTYPE html>')
  assert 'Git LFS' in image_formats.describe(b'version https://git-lfs.github.com/spec/v1\n')


@pytest.mark.parametrize('name', ['a.AVIF', 'b/c.exr', 'd.gif', 'e.mp4'])
def test_lint_without_a_root_goes_by_suffixes(name, tmp_path):
  (tmp_path / 'list.csv').write_text(f'rgb,depth,label\na.jpg,a.png,1\nb.jpg,{name},0\n')
  (found,) = linter.check([tmp_path / 'list.csv']).findings
  described = image_formats.describe_name(name)
  assert re.search('an? .* image|a video', described) and 'convert it: ' in described
  assert found[:4] == ('unreadable', str(tmp_path / 'list.csv'), 3, f'depth is {described}: {name}')


def test_names_say_what_bytes_say(tmp_path):
  for suffix, kind in {'gif': 'GIF', 'bmp': 'BMP', 'ppm': 'PPM'}.items():
    assert image_formats.describe_name(f'x.{suffix}') == image_formats.describe(by_pillow(kind))
  for name in (
    'x.jpg',
    'x.JPEG',
    'x.png',
    'x',
    'x.',
    'x.avif/y',
    'heic',
    'x.heic',
    'x.npy',
    'x.tiff',
  ):
    assert image_formats.describe_name(name) == ''
