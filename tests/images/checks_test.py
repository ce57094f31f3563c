"""Damaged, mixed up and mislabelled pictures, each as it comes in downloads and exports."""

import hashlib
import io
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.reliability import damaged_jpegs
from flexfas_jax import lint
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import copies
from flexfas_jax.images import files as image_files
from flexfas_jax.images.checks import Rules, Unreadable, decode, inspect


def blobs(seed, channels=3):
  """A smooth picture [80, 96, C], as a face is smooth, of its own for every seed."""
  noise = np.random.default_rng(seed).integers(0, 256, (10, 12, channels), np.uint8)
  return cv2.resize(noise, (96, 80), interpolation=cv2.INTER_LINEAR)


def encode(array, kind='JPEG', **options):
  file = io.BytesIO()
  Image.fromarray(array).save(file, kind, **options)
  return file.getvalue()


def png(array):
  """By OpenCV, which writes 16 bits in any number of channels; colour goes in as it is."""
  return cv2.imencode('.png', array)[1].tobytes()


RGB, IR, DEPTH = blobs(0), blobs(1)[..., 0], blobs(2)[..., 0]
MM = (DEPTH.astype(np.uint16) * 4 + 400).astype(np.uint16)
SOUND = {'rgb': encode(RGB), 'depth': png(MM), 'ir': encode(IR)}


def rules_of(images, **rules):
  return [rule for rule, _ in inspect(images, Rules(**rules))]


def test_a_sound_triplet():
  assert inspect(SOUND, Rules(bits={'rgb': 8, 'depth': 16, 'ir': 8}, sizes='equal')) == []
  assert inspect({}) == []


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'quality': 30}])
def test_a_jpeg_cut_anywhere_is_refused(options):
  whole = encode(RGB, **options)
  assert decode(whole).shape == (80, 96, 3)
  for n in (*range(0, len(whole), 37), *range(len(whole) - 40, len(whole))):
    with pytest.raises(Unreadable):
      decode(whole[:n])


@pytest.mark.parametrize(
  'options',
  [{}, {'progressive': True}, {'restart_marker_rows': 1}, {'subsampling': 0, 'quality': 95}],
)
@pytest.mark.parametrize('kind', damaged_jpegs.BLOCKS)
def test_damaged_jpegs_are_refused(kind, options):
  """Those with more than 1 % wrong pixels; OpenCV decodes nearly all of them."""
  rng = np.random.default_rng(0)
  image = cv2.resize(RGB, (192, 160)) // 2 + rng.integers(0, 40, (160, 192, 3), np.uint8)
  whole, n, refused = encode(image, **options), 0, 0
  intact = decode(whole)
  for _ in range(20):
    damaged = kind(whole, rng)
    if damaged_jpegs.share_wrong(damaged, intact) > damaged_jpegs.SHARE_WRONG:
      n, refused = n + 1, refused + damaged_jpegs.is_reported(damaged)
  # Codes of exactly as many pixels as before are valid: other bytes may well be such codes.
  unsure = (damaged_jpegs.random_block, damaged_jpegs.swapped)
  assert n > 10 and refused >= (0.5 if kind in unsure else 1) * n


def test_a_jpeg_without_its_last_scans_is_refused():
  """Cut exactly where a scan ends, a progressive JPEG is a blurred image without an error."""
  whole = encode(RGB, progressive=True)
  scans = [i for i in range(len(whole)) if whole[i : i + 2] == b'\xff\xda']
  tables = [whole.rindex(b'\xff\xc4', 0, at) for at in scans]
  assert len(scans) == 10
  for at in (*tables[1:], *scans[1:]):
    with pytest.raises(Unreadable, match='before its last scan'):
      decode(whole[:at] + b'\xff\xd9')


def test_a_block_of_zeros_that_decodes_is_reported():
  """The code 00..0 is a coefficient of -1, and 512 of its bytes are about as many blocks."""
  rng = np.random.default_rng(0)
  image = cv2.resize(RGB, (192, 160)) // 2 + rng.integers(0, 99, (160, 192, 3), np.uint8)
  for options in ({}, {'restart_marker_rows': 1}, {'optimize': True}):
    whole = encode(image, **options)
    for place in range(1000, len(whole) - 600, 500):
      zeros = whole[:place] + bytes(512) + whole[place + 512 :]
      assert damaged_jpegs.is_reported(zeros), (options, place)


@pytest.mark.parametrize('progressive', [False, True])
def test_zeros_of_one_colour_are_no_damage(progressive):
  flat = np.full((640, 640, 3), 90, np.uint8)
  flat[:8, :8] = RGB[:8, :8]
  whole = encode(flat, optimize=True, progressive=progressive)
  assert bytes(64) in whole
  assert decode(whole).shape == flat.shape


@pytest.mark.parametrize('array', [RGB, IR, MM, np.dstack([RGB, IR])], ids=np.shape)
def test_a_png_with_other_bytes_is_refused(array):
  """A check sum covers each byte. Pillow compares none of the pixels', so the last rows differ."""
  whole = png(array)
  for place in (*range(8, len(whole), 97), *range(len(whole) - 200, len(whole) - 12)):
    damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    with pytest.raises(Unreadable):
      decode(damaged)


def test_zeros_of_tiles_are_no_damage():
  """The same block everywhere: the code 00..0 of one of its scans is a coefficient of -1."""
  rng = np.random.default_rng(2359)
  tile = np.tile(rng.integers(96, 160, (8, 8), np.uint8), (64, 64))
  whole = encode(tile, progressive=True, quality=37)
  assert bytes(64) in whole
  assert decode(whole).shape == tile.shape


def test_the_damage_is_named():
  whole = encode(RGB)
  cut = whole[: len(whole) * 6 // 10] + b'\xff\xd9'
  (found,) = inspect(SOUND | {'rgb': cut})
  assert found == ('unreadable', 'rgb cannot be decoded whole (Corrupt JPEG data: premature end of '
                   'data segment)')  # fmt: skip


def test_intact_jpegs_have_the_pixels_of_other_decoders():
  files, faults = damaged_jpegs.check_intact(60, np.random.default_rng(0))
  assert len(files) >= 3 and faults == []


def test_jpegs_whose_damage_cannot_be_detected_are_refused():
  """Arithmetic codes and lossless JPEGs: no camera writes them."""
  whole = encode(RGB)
  place = whole.index(b'\xff\xc0') + 1
  for marker in (0xC3, 0xC9, 0xCA):
    with pytest.raises(Unreadable, match='arithmetic-coded or lossless'):
      decode(whole[:place] + bytes([marker]) + whole[place + 1 :])


def test_the_end_of_a_thumbnail_is_not_the_end():
  thumbnail = b'Exif\0\0' + encode(blobs(3)[:8, :8])
  whole = encode(RGB, exif=thumbnail)
  for n in (len(whole) // 2, len(whole) - 2, len(whole) - 1):
    with pytest.raises(Unreadable):
      decode(whole[:n])


def chunks_of(encoded):
  """The chunks of a PNG, each with its length, name and check sum."""
  found, at = [], 8
  while at < len(encoded):
    end = at + 12 + int.from_bytes(encoded[at : at + 4])
    found.append(encoded[at:end])
    at = end
  return found


def with_palette():
  file = io.BytesIO()
  Image.fromarray(RGB).quantize(16).save(file, 'PNG')
  return file.getvalue()


DEEP = np.random.default_rng(0).integers(0, 65536, (96, 96, 3)).astype(np.uint16)  # several IDAT


@pytest.mark.parametrize('encoded', [png(DEEP), with_palette()], ids=['16 bit', 'palette'])
def test_a_png_with_a_chunk_missing_twice_or_elsewhere_has_its_pixels_or_is_refused(encoded):
  """Each chunk is whole and its check sum right; OpenCV and Pillow give other pixels."""
  whole, right = chunks_of(encoded), decode(encoded)
  refused = 0
  for at in range(len(whole)):
    for other in range(len(whole)):
      for changed in (
        whole[:at] + whole[at + 1 :],
        whole[:other] + [whole[at]] + whole[other:],
        [whole[{at: other, other: at}.get(i, i)] for i in range(len(whole))],
      ):
        try:
          got = decode(encoded[:8] + b''.join(changed))
        except Unreadable:
          refused += 1
        else:
          np.testing.assert_array_equal(got, right)
  assert refused > len(whole) ** 2


@pytest.mark.parametrize('share', [0, 0.9])
def test_a_png_of_less_data_than_pixels_is_refused_before_it_is_decoded(share):
  head, data, end = chunks_of(png(IR))
  rows = zlib.decompress(data[8:-4])
  rows = zlib.compress(rows[: int(share * len(rows))])
  body = b'IDAT' + rows
  lying = len(rows).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
  with pytest.raises(Unreadable, match='less data than its pixels need'):
    image_files.check(b'\x89PNG\r\n\x1a\n' + head + lying + end)


def test_a_png_cut_anywhere_is_refused():
  whole = encode(RGB, 'PNG')
  for n in (*range(0, len(whole) - 8, 211), len(whole) - 5):
    with pytest.raises(Unreadable):
      decode(whole[:n])
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 1
  with pytest.raises(Unreadable):  # PNG carries check sums
    decode(bytes(flipped))


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (b'', 'empty'),
    (b'\n <!DOCTYPE html><title>Log in</title>', 'HTML page'),
    (b'<HTML><body>', 'HTML page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS'),
    (b'GIF89a' + bytes(20), 'a GIF image'),
    (b'\xff\xd8\xff', 'truncated'),
    (b'\x89PNG\r\n\x1a\n', 'truncated'),
    (encode(np.zeros((4, 4, 4), np.uint8), 'TIFF'), 'each side must have at least 16'),
    (b'RIFF\0\0\0\0WEBPVP8 ', 'the WebP has another length'),
    (b'\1\2\3\4', r'of an unknown format \(it starts with the bytes 01 02 03 04\)'),
  ],
)
def test_what_is_no_picture(content, says):
  with pytest.raises(Unreadable, match=says):
    decode(content)
  assert inspect({'rgb': content, 'ir': SOUND['ir']})[0][0] == 'unreadable'


def test_inks_are_refused():
  file = io.BytesIO()
  Image.fromarray(RGB).convert('CMYK').save(file, 'JPEG')
  with pytest.raises(Unreadable, match='4 channels .CMYK inks.*magick FILE -colorspace sRGB'):
    decode(file.getvalue())


def test_a_lying_header_costs_no_memory():
  lying = bytearray(encode(IR, 'PNG'))
  lying[16:24] = (60_000).to_bytes(4, 'big') * 2
  with pytest.raises(Unreadable):
    decode(bytes(lying))


def test_all_bits_arrive():
  np.testing.assert_array_equal(decode(png(MM)), MM)
  deep = blobs(4).astype(np.uint16) * 257 + 3
  for channels, expected in (
    (deep[..., ::-1], deep),
    (np.dstack([deep[..., ::-1], deep[..., 0]]), deep),  # OpenCV writes blue first
  ):
    got = decode(png(channels))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, expected)
    assert rules_of(SOUND | {'rgb': png(channels)}, bits={'rgb': 8}) == ['bit-depth']
    ((_, text),) = inspect(SOUND | {'rgb': png(channels)})  # whatever rules say of RGB
    assert text == 'rgb has 16 bits, and 8 are due; convert it: magick FILE -depth 8 FILE.png'
  for array in (RGB, IR):
    np.testing.assert_array_equal(decode(encode(array, 'PNG')), array)
  with_alpha = np.dstack([RGB, IR])
  np.testing.assert_array_equal(decode(encode(with_alpha, 'PNG')), RGB)


def test_palettes_and_bits():
  palette = Image.fromarray(RGB).convert('P')
  file = io.BytesIO()
  palette.save(file, 'PNG', transparency=bytes(range(256)))
  np.testing.assert_array_equal(decode(file.getvalue()), np.asarray(palette.convert('RGB')))
  file = io.BytesIO()
  Image.fromarray(IR).convert('1').save(file, 'PNG')
  assert set(np.unique(decode(file.getvalue()))) == {0, 255}


def test_bit_depths():
  bits = {'depth': 16, 'ir': 8}
  assert rules_of(SOUND | {'depth': encode(DEPTH)}, bits=bits) == ['bit-depth']
  assert rules_of(SOUND | {'ir': png(IR.astype(np.uint16) * 257)}, bits=bits) == ['bit-depth']
  (found,) = inspect(SOUND | {'ir': png(IR.astype(np.uint16))}, Rules(bits=bits))
  assert found == ('bit-depth', 'ir has 16 bits, and 8 are due')
  assert rules_of(SOUND | {'ir': png(IR.astype(np.uint16))}) == ['range']
  assert rules_of(SOUND | {'ir': png(IR.astype(np.uint16) * 257)}) == []


def test_the_range_of_millimetres():
  """8-bit values in a file of 16, and tenths of a millimetre."""
  assert rules_of(SOUND | {'depth': png(DEPTH.astype(np.uint16))}) == ['range']
  assert rules_of(SOUND | {'depth': png(MM * 40)}) == ['range']
  assert rules_of(SOUND | {'depth': png(MM * 40)}, units=None) == []
  holes = MM.copy()
  holes[:52] = 0  # what the sensor did not see counts for nothing
  assert rules_of(SOUND | {'depth': png(holes)}) == []


def test_a_copied_modality():
  assert rules_of(SOUND | {'ir': SOUND['rgb']}) == ['colour', 'same-image']
  grey = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
  for copy in (encode(grey, quality=60), encode(grey, 'PNG'), png(grey.astype(np.uint16) * 200)):
    assert rules_of(SOUND | {'ir': copy}) == ['same-image']
  assert rules_of(SOUND | {'ir': encode(DEPTH)}) == ['same-image']
  smaller = cv2.resize(grey, (90, 75), interpolation=cv2.INTER_AREA)
  assert copies.correlation(*(copies.fingerprint(x).whole for x in (RGB, smaller))) > 0.99


def test_different_modalities_are_no_copies():
  related = (0.8 * cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY) + 0.2 * IR).astype(np.uint8)
  assert (
    0.9 < copies.correlation(*(copies.fingerprint(x).whole for x in (RGB, related))) < copies.EXACT
  )
  assert rules_of(SOUND | {'ir': encode(related)}) == []


def test_swapped_columns():
  found = rules_of({'rgb': encode(IR), 'depth': png(MM), 'ir': encode(RGB)})
  assert found == ['colour', 'swapped']
  three = np.repeat(IR[..., None], 3, 2)
  assert 'swapped' in rules_of({'rgb': encode(three), 'ir': encode(RGB)})
  assert rules_of({'rgb': encode(three), 'ir': encode(DEPTH)}) == []


def test_nothing_was_acquired():
  black = np.zeros((80, 96), np.uint8)
  red = np.full((80, 96, 3), (255, 0, 0), np.uint8)
  both = inspect(SOUND | {'depth': encode(black), 'ir': encode(black)})
  assert both == [
    ('black', 'depth is one colour throughout'),
    ('black', 'ir is one colour throughout'),
  ]
  assert rules_of(SOUND | {'rgb': encode(red, 'PNG')}) == ['black']
  black[40, 48] = 255
  assert rules_of(SOUND | {'ir': encode(black, 'PNG')}) == ['black']


def test_three_channels_of_depth():
  grey = np.repeat(DEPTH[..., None], 3, 2)
  assert rules_of(SOUND | {'depth': encode(grey, quality=50)}) == []
  colours = cv2.applyColorMap(DEPTH, cv2.COLORMAP_JET)
  assert rules_of(SOUND | {'depth': encode(colours)}) == ['colour']


def test_shapes():
  half, wide = (cv2.resize(IR, size) for size in ((48, 40), (96, 60)))
  assert rules_of(SOUND | {'ir': encode(half)}, sizes='aspect') == []
  assert rules_of(SOUND | {'ir': encode(half)}, sizes='equal') == ['size']
  assert rules_of(SOUND | {'ir': encode(wide)}, sizes='aspect') == ['size']
  assert rules_of(SOUND | {'ir': encode(wide)}) == []
  (found,) = inspect(SOUND | {'ir': encode(wide)}, Rules(sizes='equal'))
  assert found[1] == 'rgb 96 x 80, depth 96 x 80, ir 96 x 60'


def test_sizes_are_compared_upright():
  """A camera on its side stores 80 x 96 and a tag; the other one is held upright."""
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = encode(np.ascontiguousarray(RGB.swapaxes(0, 1)), exif=exif)
  assert rules_of(SOUND | {'rgb': turned}, sizes='equal') == []
  exif[0x0112] = 3
  assert rules_of(SOUND | {'rgb': encode(RGB, exif=exif)}, sizes='equal') == []
  exif[0x0112] = 8
  assert rules_of(SOUND | {'rgb': encode(RGB, exif=exif)}, sizes='aspect') == ['size']


def test_sizes_that_cannot_be_registered():
  rgb, ir = np.zeros((100, 200, 3)), np.zeros((50, 100))
  assert not image_checks.find_size_mismatch({})
  assert not image_checks.find_size_mismatch({'rgb': rgb})
  assert not image_checks.find_size_mismatch({'rgb': rgb, 'ir': ir})
  assert not image_checks.find_size_mismatch({'rgb': rgb, 'ir': np.zeros((104, 200))})
  wrong = {'rgb': rgb, 'ir': np.zeros((50, 50))}
  assert image_checks.find_size_mismatch(wrong) == 'rgb 200 x 100, ir 50 x 50'
  assert (
    image_checks.find_size_mismatch({'rgb': rgb, 'ir': ir}, 'equal') == 'rgb 200 x 100, ir 100 x 50'
  )
  assert not image_checks.find_size_mismatch(wrong, 'any')


def test_lint_offers_the_rules_of_sizes():
  """It names them itself: OpenCV is not loaded to parse a command line."""
  for sizes in image_checks.SIZES:
    assert lint._parser().parse_args(['a.txt', f'--sizes={sizes}']).sizes == sizes


def test_threads_leave_the_filters_of_warnings_alone():
  """They are the process's: two threads that set them aside leave them changed for ever."""
  large = encode(np.tile(RGB, (8, 8, 1)))
  before = list(warnings.filters)
  with ThreadPoolExecutor(8) as pool:
    list(pool.map(decode, [large] * 64))
  assert warnings.filters == before


def test_all_that_is_wrong_is_reported():
  images = {'rgb': b'', 'depth': b'<html>', 'ir': encode(np.zeros((16, 16), np.uint8))}
  assert rules_of(images) == ['unreadable', 'unreadable', 'black']


def test_digest():
  assert image_checks.digest(b'abc') == hashlib.sha256(b'abc').hexdigest()


@pytest.mark.parametrize('colours', [cv2.COLORMAP_JET, cv2.COLORMAP_HOT, cv2.COLORMAP_INFERNO])
@pytest.mark.parametrize('low', [20, 146])
def test_a_colour_map_is_not_taken_for_no_signal(colours, low):
  """One of its channels may be saturated where the face is."""
  grey = cv2.normalize(IR, None, low, 218, cv2.NORM_MINMAX).astype(np.uint8)
  mapped = np.ascontiguousarray(cv2.applyColorMap(grey, colours)[..., ::-1])
  assert [rule for rule, _ in inspect({'ir': png(mapped)})] == ['colour']
  even = np.full_like(mapped, (0, 0, 255))  # the colour of nothing at all
  assert [rule for rule, _ in inspect({'ir': png(even)})] == ['black']
