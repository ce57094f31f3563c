"""Foreign weight files: what is sound comes back exactly, what lies or would run is refused."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import random
import shlex
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.models.weights import files as weight_files

GOOD = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


def installed(package):
  return importlib.util.find_spec(package) is not None


def tensors():
  draw = np.random.default_rng(0)
  kinds = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_]
  some = {np.dtype(k).name: (9 * draw.normal(size=(3, 2))).astype(k) for k in kinds}
  some['bfloat16'] = draw.normal(size=5).astype(ml_dtypes.bfloat16)
  some |= {'scalar': np.float32(3).reshape(()), 'empty': np.zeros((0, 4), np.float32)}
  some |= {'transposed': np.asfortranarray(draw.normal(size=(4, 3, 2)))}
  some |= {'big/endian/王': np.arange(5, dtype='>f4'), 'sliced': np.arange(9.0)[::2]}
  return some


def assert_same(read, written):
  assert sorted(read) == sorted(written)
  for name, array in written.items():
    assert read[name].dtype == array.dtype.newbyteorder('='), name
    assert read[name].dtype.isnative, name
    assert read[name].shape == array.shape, name
    np.testing.assert_array_equal(read[name], array, name)


def refused(path, says, error=StateError, within=4, **arguments):
  """The message of a refusal: one screen, naming the file, and in memory of `within` MiB."""
  tracemalloc.start()
  try:
    with pytest.raises(error, match=says) as caught:
      weight_files.read(path, **arguments)
    assert tracemalloc.get_traced_memory()[1] < within << 20
  finally:
    tracemalloc.stop()
  message = str(caught.value)
  assert str(path) in message
  assert len(message) < 1200 and message.count('\n') < 5
  return message


def safe(path, header, data=bytes(8), length=None):
  header = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(header) if length is None else length) + header + data)
  return path


def npy(header, data=b'', version=(1, 0)):
  """One .npy; `header` is a dict, or text."""
  text = (header if isinstance(header, str) else repr(header)).encode() + b'\n'
  length = struct.pack('<H' if version == (1, 0) else '<I', len(text))
  return b'\x93NUMPY' + bytes(version) + length + text + data


def floats(*shape):
  return {'descr': '<f4', 'fortran_order': False, 'shape': shape}


def zipped(path, members, method=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', method) as archive:
    for name, data in members:
      archive.writestr(name, data)
  return path


def claim(path, file_size=None, crc=None, compress_size=None, flags=None, only_in=None):
  """Changes what an archive of one member says of it, in both of its headers."""
  raw = bytearray(path.read_bytes())
  for start, at in ((b'PK\x01\x02', 16), (b'PK\x03\x04', 14)):
    at += raw.index(start)
    if flags is not None:
      struct.pack_into('<H', raw, at - 8, flags)
    for offset, value in enumerate((crc, compress_size, file_size)):
      if value is not None:
        struct.pack_into('<I', raw, at + 4 * offset, value)
  path.write_bytes(raw)
  return path


def test_safetensors_round_trip(tmp_path):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, tensors(), {'made': 'by hand'})
  assert_same(weight_files.read(path), tensors())
  assert_same(weight_files.read(str(path)), tensors())
  with safetensors.safe_open(path, 'np') as file:
    assert file.metadata() == {'made': 'by hand'}


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, save):
  save(tmp_path / 'a.npz', **tensors())
  assert_same(weight_files.read(tmp_path / 'a.npz'), tensors())


def test_npz_of_more_than_one_chunk(tmp_path):
  large = np.random.default_rng(0).normal(size=(700, 500))
  np.savez_compressed(tmp_path / 'a.npz', a=large, zeros=np.zeros(10**6))
  assert large.nbytes > weight_files._CHUNK
  assert_same(weight_files.read(tmp_path / 'a.npz'), {'a': large, 'zeros': np.zeros(10**6)})


def test_npy_of_the_second_version(tmp_path):
  member = npy(floats(2), np.float32([1, 2]).tobytes(), (2, 0))
  path = zipped(tmp_path / 'a.npz', [('a.npy', member)])
  np.testing.assert_array_equal(weight_files.read(path)['a'], [1, 2])


def test_content_not_the_name_says_what_a_file_is(tmp_path):
  weight_files.write(tmp_path / 'a.bin', tensors())
  assert_same(weight_files.read(tmp_path / 'a.bin'), tensors())
  np.savez(tmp_path / 'a.npz', **tensors())
  (tmp_path / 'a.npz').rename(tmp_path / 'a.safetensors')
  assert_same(weight_files.read(tmp_path / 'a.safetensors'), tensors())


@pytest.mark.parametrize('length', [128, 640])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path, length):
  header = json.dumps({'a': GOOD}).encode().ljust(length)
  path = safe(tmp_path / 'a.bin', header)
  assert path.read_bytes()[:1] == b'\x80'
  np.testing.assert_array_equal(weight_files.read(path)['a'], [0, 0])


@pytest.mark.parametrize(
  ('header', 'data', 'length'),
  [
    ({'a': GOOD}, bytes(8), 2**60),  # the header's length
    ({'a': GOOD}, bytes(8), 2**64 - 1),
    ({'a': GOOD}, bytes(8), 10),
    ({'a': GOOD}, bytes(8), 0),
    ({'a': GOOD | {'shape': [2**62]}}, bytes(8), None),  # shapes
    ({'a': GOOD | {'shape': [2**62, 2**62]}}, bytes(8), None),
    ({'a': GOOD | {'shape': [-2]}}, bytes(8), None),
    ({'a': GOOD | {'shape': [-1, -2]}}, bytes(8), None),
    ({'a': GOOD | {'shape': [3]}}, bytes(8), None),
    ({'a': GOOD | {'shape': [1]}}, bytes(8), None),
    ({'a': GOOD | {'shape': [2.0]}}, bytes(8), None),
    ({'a': GOOD | {'shape': 2}}, bytes(8), None),
    ({'a': GOOD | {'shape': [2] + [1] * 99}}, bytes(8), None),
    ({'a': GOOD | {'shape': [0, 2**62, 2**62], 'data_offsets': [0, 0]}}, b'', None),
    ({'a': GOOD | {'shape': [10**9], 'data_offsets': [0, 4 * 10**9]}}, bytes(8), None),  # offsets
    ({'a': GOOD | {'data_offsets': [8, 0]}}, bytes(8), None),
    ({'a': GOOD | {'data_offsets': [-8, 0]}}, bytes(8), None),
    ({'a': GOOD | {'data_offsets': [4, 12]}}, bytes(12), None),
    ({'a': GOOD, 'b': GOOD}, bytes(8), None),
    ({'a': GOOD, 'b': GOOD | {'data_offsets': [4, 12]}}, bytes(12), None),
    ({'a': GOOD, 'b': GOOD | {'data_offsets': [12, 20]}}, bytes(20), None),
    ({'a': GOOD}, bytes(7), None),  # the file's end
    ({'a': GOOD}, bytes(9), None),
    ({'a': GOOD}, b'', None),
    ({'a': GOOD | {'dtype': 'F64'}}, bytes(8), None),  # dtypes
    ({'a': GOOD | {'dtype': 'O'}}, bytes(8), None),
    ({'a': GOOD | {'dtype': 4}}, bytes(8), None),
    ({'a': {'dtype': 'F32', 'shape': [2]}}, bytes(8), None),  # JSON
    ({'a': 1}, bytes(8), None),
    (b'{"a":' * 10**5, b'', None),
    (b'{' + b'[' * 10**5, b'', None),
    (b'{"\xff": 1}', bytes(8), None),
    (b'{it is no JSON}', bytes(8), None),
  ],
)
def test_safetensors_that_lie(tmp_path, header, data, length):
  refused(safe(tmp_path / 'a.safetensors', header, data, length), 'cannot be read')


def test_a_tensor_that_is_there_twice(tmp_path):
  one, two = json.dumps(GOOD), json.dumps(GOOD | {'dtype': 'I32'})
  path = safe(tmp_path / 'a.safetensors', f'{{"a": {one}, "a": {two}}}'.encode())
  refused(path, "its header has 'a' twice")


def test_a_kind_of_number_that_numpy_lacks(tmp_path):
  path = safe(tmp_path / 'a.safetensors', {'a': GOOD | {'dtype': 'F8_E4M3', 'shape': [8]}})
  refused(path, "tensor 'a' is F8_E4M3, .* save it as F32")


def test_a_name_that_fills_the_screen_or_drives_it(tmp_path):
  name = '\x1b[2J' + 'x' * 10**5
  path = safe(tmp_path / 'a.safetensors', {name: GOOD | {'data_offsets': [4, 12]}}, bytes(12))
  assert '\x1b' not in refused(path, 'cannot be read')  # safetensors itself names the tensor
  path = safe(path, {name: GOOD | {'dtype': 'F8_E4M3', 'shape': [8]}})
  assert '\x1b' not in refused(path, 'is F8_E4M3')
  assert '\x1b' not in refused(zipped(tmp_path / 'a.npz', [(name[:9999], b'')]), 'is no .npy')


@pytest.mark.parametrize(
  ('member', 'says'),
  [
    (npy(floats(3), bytes(8)), 'not match its shape'),
    (npy(floats(1), bytes(8)), 'not match its shape'),
    (npy(floats(10**12), bytes(8)), 'not match its shape'),
    (npy(floats(-2), bytes(8)), 'not match its shape'),
    (npy(floats(-1, -2), bytes(8)), 'not match its shape'),
    (npy(floats(2**62, 2**62, 4), bytes(8)), 'not match its shape'),
    (npy(floats(0, 2**62, 2**62)), 'cannot be read'),
    (npy(floats(2, *[1] * 99), bytes(8)), 'cannot be read'),
    (npy(floats(2.0), bytes(8)), 'shape is not valid'),
    (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0x" + 'f' * 9000 + ',)}'), 'read'),
    (npy({'descr': '|O', 'fortran_order': False, 'shape': (1,)}, bytes(8)), 'Python objects'),
    (npy({'descr': [('x', '|O')], 'fortran_order': False, 'shape': ()}, bytes(8)), 'objects'),
    (npy({'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}, bytes(8)), 'not number'),
    (npy({'descr': '<U2', 'fortran_order': False, 'shape': (1,)}, bytes(8)), 'not number'),
    (npy({'descr': '|V8', 'fortran_order': False, 'shape': (1,)}, bytes(8)), 'not number'),
    (npy({'descr': '|V0', 'fortran_order': False, 'shape': (9**9,)}), 'not number'),
    (npy({'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}, bytes(8)), 'not number'),
    (npy({'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}, bytes(8)), 'cannot be'),
    (npy({'fortran_order': False, 'shape': (1,)}, bytes(8)), 'correct keys'),
    (npy('(' * 5000), 'cannot be read'),
    (npy('__import__("os").abort()'), 'cannot be read'),
    (npy(' ' * 20_000 + repr(floats(2)), bytes(8)), 'cannot be read'),
    (npy(repr(floats(2)) + ' ' * (1 << 25), bytes(8), (2, 0)), 'cannot be read'),
    (npy(floats(2), bytes(8), (3, 0)), 'version'),
    (b'\x93NUMPY\x02\x00\xff\xff\xff\xff{}', 'cannot be read'),
    (b'\x93NUM', 'cannot be read'),
    (b'', 'cannot be read'),
    (b'something else', 'cannot be read'),
  ],
)
def test_npy_that_lies(tmp_path, member, says):
  members = [('fine.npy', npy(floats(2), bytes(8))), ('b/ad.npy', member)]
  path = zipped(tmp_path / 'a.npz', members, zipfile.ZIP_DEFLATED)
  assert "'b/ad'" in refused(path, says)


def test_npz_whose_directory_lies(tmp_path):
  def make(shape, data, method=zipfile.ZIP_DEFLATED, **claims):
    path = zipped(tmp_path / 'a.npz', [('a.npy', npy(floats(*shape), data))], method)
    return claim(path, **claims)

  # A header and a directory that agree, on data that are not there: below the bound, and above.
  n = 250_000_000
  honest = npy(floats(n), bytes(8))
  for method, crc in (
    (zipfile.ZIP_STORED, None),
    (zipfile.ZIP_DEFLATED, None),
    (zipfile.ZIP_DEFLATED, zlib.crc32(honest)),
  ):
    path = make((n,), bytes(8), method, file_size=len(honest) - 8 + 4 * n, crc=crc)
    refused(
      path,
      'less data than its header claims'
      if crc
      else 'less data than its header claims|CRC-32|cannot be read',
    )
  path = make((10**9,), bytes(8), file_size=len(honest) - 8 + 4 * 10**9)
  refused(path, 'look like an attack')
  # More data than claimed, with any checksum that could be thought to fit.
  whole, start = npy(floats(2), bytes(16)), len(npy(floats(2)))
  for n_bytes in (8, 9, 16):
    crc = zlib.crc32(whole[: start + n_bytes])
    path = make((2,), bytes(16), file_size=start + 8, crc=crc)
    refused(path, 'more data than its header claims|CRC-32')
  path = make((2,), bytes(8), crc=1)
  refused(path, 'CRC-32')
  path = make((2,), bytes(8), compress_size=10**6)
  refused(path, 'overlap')
  path = make((2,), bytes(8), flags=1)
  refused(path, 'encrypted')


def test_members_that_do_not_belong(tmp_path):
  good = npy(floats(2), bytes(8))
  refused(zipped(tmp_path / 'a.npz', [('read.me', b'hello')]), "'read.me' is no .npy")
  with pytest.warns(UserWarning, match='Duplicate'):
    path = zipped(tmp_path / 'a.npz', [('a.npy', good), ('a.npy', good)])
  refused(path, "'a' is in the file twice")
  for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
    refused(zipped(tmp_path / 'a.npz', [('a.npy', good)], method), 'method that NumPy never')


def test_an_archive_that_unpacks_to_far_too_much(tmp_path, monkeypatch):
  np.savez_compressed(tmp_path / 'a.npz', a=np.zeros(10**6))
  weight_files.read(tmp_path / 'a.npz')
  monkeypatch.setattr(weight_files, '_MAX_UNPACKED', 10**6)
  refused(tmp_path / 'a.npz', 'unpack to 8,000,.* look like an attack', within=1)


class Evil:
  """Makes a folder when it is unpickled."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.mkdir, (str(self.marker),)


def test_nothing_is_unpickled(tmp_path):
  marker = tmp_path / 'it ran'
  evil = Evil(marker)
  pickle.loads(pickle.dumps(evil))
  marker.rmdir()  # it does run, where it is opened

  np.savez(tmp_path / 'a.npz', fine=np.ones(3), bad=np.array([evil], object))
  assert "'bad' holds Python objects" in refused(tmp_path / 'a.npz', 'pickle')
  for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    for name in ('a.pth', 'b.pt', 'c.bin', 'd.ckpt', 'e.pkl', 'f.pth.tar'):
      (tmp_path / name).write_bytes(pickle.dumps({'w': evil}, protocol))
      refused(tmp_path / name, 'this is a pickle')
  (tmp_path / 'a.safetensors').write_bytes(pickle.dumps({'w': evil}))
  refused(tmp_path / 'a.safetensors', 'this is a pickle')
  members = [('archive/data.pkl', pickle.dumps(evil, 2)), ('archive/data/0', bytes(8))]
  refused(zipped(tmp_path / 'a.npz', members), 'this is a pickle')
  with tarfile.open(tmp_path / 'weights', 'w') as tar:
    tar.addfile(tarfile.TarInfo('pickle'), io.BytesIO())
  refused(tmp_path / 'weights', 'this is a pickle')
  assert not marker.exists()


@pytest.mark.parametrize('name', ['a.pth', 'b\'c "d" $HOME `x`.pth.tar', 'a.safetensors'])
def test_the_command_that_converts_names_the_files(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(pickle.dumps({'w': 1}))
  command = refused(path, 'pip install torch safetensors').splitlines()[-1]
  python, _, code, source, target = shlex.split(command)
  compile(code, 'command', 'exec')
  assert (python, source) == ('python', str(path))
  assert target.endswith('.safetensors') and target != source
  assert target.rpartition('.')[0].startswith(source.rpartition('.')[0])


@pytest.mark.skipif(not installed('torch'), reason='PyTorch, which we never need, is not there')
@pytest.mark.parametrize('name', ['a.pth', "it's.pt", 'a.safetensors'])
@pytest.mark.parametrize('zipped', [True, False])
def test_the_command_that_converts(tmp_path, name, zipped):
  """Tensors that share memory, are views or transposed; an optimiser, an epoch, a name beside."""
  path = tmp_path / name
  save = f"""
import sys, torch
w = torch.arange(6.).reshape(2, 3)
state = {{'a': w, 'tied': w, 'b': w.t(), 'row': w[1], 'h': w.bfloat16(), 'n': torch.tensor(3)}}
whole = {{'epoch': 3, 'optimizer': {{'state': {{0: {{'m': w}}}}}}, 'model': {{**state, 'is': 'x'}}}}
torch.save(whole, sys.argv[1], _use_new_zipfile_serialization={zipped})
"""
  subprocess.run([sys.executable, '-c', save, path], check=True)
  command = refused(path, 'this is a pickle').splitlines()[-1]
  bin_folder = os.path.dirname(sys.executable)
  env = {**os.environ, 'PATH': f'{bin_folder}{os.pathsep}{os.environ["PATH"]}'}
  subprocess.run(command, shell=True, check=True, env=env)
  w = np.arange(6, dtype=np.float32).reshape(2, 3)
  expected = {'a': w, 'tied': w, 'b': w.T, 'row': w[1], 'n': np.array(3)}
  expected['h'] = w.astype(ml_dtypes.bfloat16)
  assert_same(weight_files.read(shlex.split(command)[-1]), expected)


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (b'', 'is empty'),
    (b'<!DOCTYPE html><html>Log in', 'a web page'),
    (b'\n<HTML>', 'a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (gzip.compress(b'x' * 1000, mtime=0), 'gunzip'),
    (npy(floats(2), bytes(8)), 'one .npy'),
    (b'\x89HDF\r\n\x1a\n' + bytes(99), 'HDF5'),
    (b'PK\x03\x04 and no more', 'not a zip file'),
    (b'PK\x05\x06' + bytes(18), 'has no tensors'),
    (b'\x02\0\0\0\0\0\0\0{}', 'has no tensors'),
    (b'hello', 'begins with the bytes 68 65 6c 6c 6f;'),
    (b'\0' * 100, 'begins with'),
  ],
)
@pytest.mark.parametrize('name', ['a.safetensors', 'a.npz', 'weights'])
def test_what_is_no_weight_file(tmp_path, name, content, says):
  (tmp_path / name).write_bytes(content)
  refused(tmp_path / name, says)


def test_no_file(tmp_path):
  refused(tmp_path / 'a.npz', 'no such file')
  refused(tmp_path, 'a folder')
  os.mkfifo(tmp_path / 'pipe')  # must not be waited for
  refused(tmp_path / 'pipe', 'no regular file')


def test_the_hash(tmp_path):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, tensors())
  right = hashlib.sha256(path.read_bytes()).hexdigest()
  assert_same(weight_files.read(path, right), tensors())
  assert_same(weight_files.read(path, right.upper()), tensors())
  wrong = hashlib.sha256(b'').hexdigest()
  message = refused(path, 'another file', sha256=wrong)
  assert right in message and wrong in message
  path.write_bytes(pickle.dumps({}))
  refused(path, 'another file', sha256=right)  # before anything is looked at
  for malformed in ('', right[:-1], right + '0', 'g' * 64, 'sha256:' + right, 5):
    with pytest.raises(ConfigError, match='64 hexadecimal digits'):
      weight_files.read(path, malformed)


def test_damage_never_shows_as_another_error_and_takes_no_memory(tmp_path):
  """Bytes of sound files flipped, cut, doubled: arrays, or an error of ours."""
  sound = {k: v for k, v in tensors().items() if k in ('float32', 'int8', 'bfloat16', 'scalar')}
  path = tmp_path / 'file'
  weight_files.write(path, sound)
  files = [path.read_bytes()]
  for save in (np.savez, np.savez_compressed):
    buffer = io.BytesIO()
    save(buffer, **sound)
    files.append(buffer.getvalue())
  draw = random.Random(0)
  outcomes = {True: 0, False: 0}
  tracemalloc.start()
  try:
    for i in range(1200):
      raw = bytearray(files[i % 3])
      # The first 500 bytes, which are headers, twice as often.
      for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(draw.choice((len(raw), min(500, len(raw)))))
        raw[at] = draw.choice((0, 1, 9, 0x7F, 0x80, 0xFF, *b'09-{}[]"\',', draw.randrange(256)))
      if i % 5 == 0:
        del raw[draw.randrange(len(raw)) :]
      if i % 7 == 0:
        at = draw.randrange(len(raw) + 1)
        raw[at:at] = raw[: draw.randrange(60)]
      path.write_bytes(raw)
      tracemalloc.reset_peak()
      before = tracemalloc.get_traced_memory()[0]
      try:
        read = weight_files.read(path)
        assert all(isinstance(array, np.ndarray) for array in read.values())
        outcomes[True] += 1
      except StateError as error:
        assert 'file' in str(error) and len(str(error)) < 1200
        outcomes[False] += 1
      peak = tracemalloc.get_traced_memory()[1] - before
      assert peak < 500_000, (i, peak)
  finally:
    tracemalloc.stop()
  assert min(outcomes.values()) > 100, outcomes


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, {'a': np.zeros(3)})
  before = path.read_bytes()
  for bad in ({'a': np.array([None])}, {'a': np.array(['x'])}, {1: np.zeros(2)}):
    with pytest.raises(StateError, match='a.safetensors cannot be written'):
      weight_files.write(path, bad)
  with pytest.raises(StateError, match='cannot be written'):
    weight_files.write(path, {'a': np.zeros(2)}, {'a': 1})
  with pytest.raises(StateError, match='cannot be written'):
    weight_files.write(tmp_path / 'none' / 'a.safetensors', {'a': np.zeros(2)})

  save = safetensors.numpy.save_file

  def full(tensors, path, metadata):
    assert path.parent == tmp_path  # the same disk, so that to rename is one act
    save(tensors, path, metadata)
    raise OSError('disk full')

  monkeypatch.setattr(safetensors.numpy, 'save_file', full)
  with pytest.raises(StateError, match='disk full'):
    weight_files.write(path, {'a': np.ones(3)})
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['a.safetensors']


def test_the_hub_is_asked_for_no_pickle_and_not_without_its_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)  # what is not installed
  for name in ('pytorch_model.bin', 'a.pth', 'model.safetensors.index.json', 'README'):
    with pytest.raises(ConfigError, match=f'hub:timm/vit/{name} is not fetched: .* a pickle'):
      weight_files.read(f'hub:timm/vit/{name}')
  for path in ('hub:timm/vit', 'hub:timm/vit@main/a.npz'):
    with pytest.raises(ConfigError, match=r"hub:timm/vit requires .* 'flexfas_jax\[hub\]'"):
      weight_files.read(path)
  for path in ('hub:', 'hub:timm', 'hub:timm/', 'hub:/vit', 'hub:timm/vit@', 'hub:timm/a b'):
    with pytest.raises(ConfigError, match='not of the form hub:OWNER/NAME'):
      weight_files.read(path)
  with pytest.raises(ConfigError, match='64 hexadecimal'):
    weight_files.from_hub('timm/vit', sha256='abc')


@pytest.mark.skipif(not installed('huggingface_hub'), reason='the hub extra is not installed')
def test_the_hub_by_its_local_cache(tmp_path):
  commit = 'c' * 40
  repo = tmp_path / 'models--timm--vit.b_16'
  snapshot = repo / 'snapshots' / commit
  (snapshot / 'sub').mkdir(parents=True)
  (repo / 'refs').mkdir()
  (repo / 'refs' / 'main').write_text(commit)
  weight_files.write(snapshot / 'model.safetensors', {'a': np.zeros(2)})
  np.savez(snapshot / 'sub' / 'b.npz', b=np.zeros(2))
  code = f"""
import hashlib
from flexfas_jax.errors import StateError
from flexfas_jax.models.weights.files import from_hub, read
for path, name in {{
    'hub:timm/vit.b_16': 'a', 'hub:timm/vit.b_16@main': 'a', 'hub:timm/vit.b_16@{commit}': 'a',
    'hub:timm/vit.b_16/sub/b.npz': 'b', 'hub:timm/vit.b_16@{commit}/sub/b.npz': 'b'}}.items():
  assert list(read(path)) == [name], path
right = hashlib.sha256(from_hub('timm/vit.b_16').read_bytes()).hexdigest()
assert from_hub('timm/vit.b_16', sha256=right).name == 'model.safetensors'
for call in (lambda: from_hub('timm/vit.b_16', sha256='0' * 64),
             lambda: read('hub:timm/vit.b_16', '0' * 64),
             lambda: read('hub:timm/other'), lambda: read('hub:timm/vit.b_16@other'),
             lambda: read('hub:timm/vit.b_16/../../x.npz'), lambda: from_hub('no good name')):
  try:
    call()
  except StateError as error:
    print(error)
  else:
    raise AssertionError
"""
  env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)}
  env['HF_HUB_CACHE'] = str(tmp_path)
  done = subprocess.run([sys.executable, '-c', code], env=env, text=True, capture_output=True)
  assert not done.returncode, done.stderr
  for says in ('another file', 'hub:timm/other/model.safetensors cannot be fetched: ', '@other/'):
    assert says in done.stdout
  assert len(done.stdout) < 3000


def test_no_jax_and_no_hub_until_asked():
  code = (
    'import sys; import flexfas_jax.models.weights.files; '
    "print({'jax', 'flax', 'torch', 'huggingface_hub', 'pickle'} & set(sys.modules))"
  )
  done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True, check=True)
  assert done.stdout.strip() in ('set()', "{'pickle'}")
