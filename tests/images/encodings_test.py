"""What an encoder leaves in a file."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax.images import encodings

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)


def encode(image=IMAGE, form='JPEG', **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, form, **options)
  return file.getvalue()


def test_a_jpeg():
  kind, size, bits, encoder = encodings.describe(encode(quality=75)).split(' ')
  assert (kind, size, bits) == ('JPEG', '32x24', '8')
  process, sampling, tables = encoder.split('/')
  assert (process, sampling) == ('baseline', '2x2,1x1,1x1') and len(tables) == 8


@pytest.mark.parametrize(
  'options', [{'quality': 76}, {'progressive': True}, {'subsampling': 0}, {'subsampling': 1}]
)
def test_other_encoders_differ(options):
  usual = encodings.describe(encode(quality=75))
  other = encodings.describe(encode(**{'quality': 75, **options}))
  assert other != usual
  assert encodings.describe(encode(IMAGE[::-1], quality=75)) == usual  # not by what is shown


def test_metadata_and_comments_do_not_matter():
  exif = Image.Exif()
  exif[0x0112] = 6
  usual = encode(quality=75)
  assert encodings.describe(encode(quality=75, exif=exif)) == encodings.describe(usual)
  assert encodings.describe(usual[:2] + b'\xff\xff' + usual[3:]) == encodings.describe(usual)


def test_a_png():
  assert encodings.describe(encode(form='PNG')) == 'PNG 32x24 8 rgb'
  assert encodings.describe(encode(IMAGE[..., 0], 'PNG')) == 'PNG 32x24 8 grey'
  deep = cv2.imencode('.png', IMAGE[..., 0].astype(np.uint16) * 200)[1].tobytes()
  assert encodings.describe(deep) == 'PNG 32x24 16 grey'


@pytest.mark.parametrize('content', [b'', b'\xff\xd8', b'<html>', b'\x89PNG\r\n\x1a\n'])
def test_what_is_no_image(content):
  assert encodings.describe(content) == ''


def test_cut_and_damaged_files_raise_nothing():
  rng = np.random.default_rng(0)
  for content in (encode(), encode(form='PNG')):
    for end in range(0, len(content), 7):
      encodings.describe(content[:end])
    for _ in range(200):
      damaged = bytearray(content)
      damaged[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
      assert len(encodings.describe(bytes(damaged)).split(' ')) in (1, 4)
