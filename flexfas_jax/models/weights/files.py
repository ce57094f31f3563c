"""Foreign weights as named arrays, from files that are trusted in nothing.

Read are safetensors and NumPy's `.npz`; which of the two a file is, its first bytes say. Nothing in
it is executed, and its claims are checked before memory is given to them. A pickle (`.pth`, `.pt`,
`.bin`, `.ckpt`, `.pkl`) runs the code that it holds when it is opened, so it is not opened: the
error holds the command that turns it into safetensors.
"""

import contextlib
import copy
import hashlib
import io
import json
import math
import os
import re
import shlex
import zipfile
from pathlib import Path

import ml_dtypes  # comes with jax; safetensors knows BF16 only once it is imported
import numpy as np
import safetensors
import safetensors.numpy

from flexfas_jax.errors import ConfigError, FlexfasError, StateError

_READABLE = ('.safetensors', '.npz')
_PICKLES = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.pickle', '.tar')
_LOOKS_LIKE = (  # how a file begins: what it then is, and the way out
  (rb'version https://git-lfs', 'a Git LFS pointer, not the file; `git lfs pull` fetches it'),
  (rb'(?i)\s*(<!doctype|<html|<\?xml)', 'a web page; perhaps a login or an error'),
  (rb'\x1f\x8b', 'compressed; gunzip it'),
  (rb'\x93NUMPY', 'one .npy array; numpy.savez gives it a name'),
  (rb'\x89HDF\r\n\x1a\n', 'HDF5; read it with h5py, and save the arrays with numpy.savez'),
)
_HUB = re.compile(r'hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<filename>[^@]+))?')
# What PyTorch calls a state dict stands at the top, or one below beside an epoch and an optimiser:
# the dict with most tensors is taken. clone(), since safetensors refuses tensors that share memory;
# open(), since torch.load goes by the name where it ends in .safetensors.
_CONVERT = (
  'import sys, torch, safetensors.torch as s; '
  "t = torch.load(open(sys.argv[1], 'rb'), map_location='cpu', weights_only=True); "
  't = max([t, *(v for v in t.values() if isinstance(v, dict))], '
  'key=lambda d: sum(map(torch.is_tensor, d.values()))); '
  's.save_file({k: v.clone().contiguous() for k, v in t.items() if torch.is_tensor(v)}, '
  'sys.argv[2])'
)
_CHUNK = 1 << 20
_NPY_HEADER = 1 << 14  # NumPy itself reads none beyond 10,000 characters
# What an archive may unpack to: zeros shrink a thousandfold, weights hardly at all.
_UNPACKED, _UNPACKED_TIMES = 1 << 30, 100


def read(path, sha256: str | None = None) -> dict[str, np.ndarray]:
  """Reads all weights of a file: {the name it has there: array}, of this machine's byte order.

  Args:
    path: a safetensors or npz file, or `hub:OWNER/NAME[@REVISION][/FILE]`, see `from_hub`.
    sha256: what the file's hash must be, 64 hexadecimal digits; None accepts any.

  Raises:
    ConfigError: `sha256` or the `hub:` address is malformed, or see `from_hub`.
    StateError: the file is missing, damaged, no weights, a pickle, or another one than `sha256`
      says; the message names what it is and the way out.
  """
  _check_form(sha256)
  if str(path).startswith('hub:'):
    if not (address := _HUB.fullmatch(str(path))):
      raise ConfigError(f'{path} is not of the form hub:OWNER/NAME[@REVISION][/FILE]')
    path = from_hub(**{k: v for k, v in address.groupdict().items() if v})
  path = Path(path)
  if not path.is_file():  # a pipe or a device would be waited for
    what = 'a folder; give the file in it' if path.is_dir() else 'not there, or no regular file'
    raise StateError(f'weights {path}: this is {what}')
  with _blaming(f'weights {path} cannot be read', 'get the file again'):
    if sha256:
      _check_hash(path, sha256)
    tensors = _reader(path)(path)
  if not tensors:
    raise StateError(f'weights {path}: there is no tensor in it; give the file that has them')
  return tensors


def parse(content: bytes, name: str) -> dict[str, np.ndarray]:
  """The weights in the bytes of a safetensors file: {the name that each has there: array}.

  Args:
    content: all of the file.
    name: of the file, for messages.

  Raises:
    StateError: these are no such bytes.
  """
  with _blaming(f'weights {name} cannot be read', 'get the file again'):
    length = int.from_bytes(content[:8], 'little')
    _check_names(name, content[8 : 8 + length])
    return safetensors.numpy.load(content)


def from_hub(
  repo: str,
  filename: str = 'model.safetensors',
  revision: str | None = None,
  sha256: str | None = None,
) -> Path:
  """Fetches a file from the Hugging Face hub, or from its local cache, which is kept.

  Args:
    repo: 'OWNER/NAME'.
    filename: of a file in it.
    revision: a branch, tag or commit. A branch may move: pin a commit, or the hash.
    sha256: what the file's hash must be; None accepts any.

  Returns:
    Where the file is now.

  Raises:
    ConfigError: a file that would not be read, or huggingface_hub is not installed.
    StateError: the hub does not give it, or gives another one than `sha256` says.
  """
  _check_form(sha256)
  if Path(filename).suffix not in _READABLE:
    raise ConfigError(
      f'hub:{repo}/{filename} is not fetched: weights are read from {" and ".join(_READABLE)} '
      "alone, a pickle never; look for model.safetensors among the repository's files"
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise ConfigError(
      f"hub:{repo} needs huggingface_hub: pip install 'flexfas_jax[hub]'"
    ) from error
  where = f'hub:{repo}{f"@{revision}" if revision else ""}/{filename}'
  with _blaming(f'{where} cannot be fetched', 'check the name and the network, or give a file'):
    path = Path(huggingface_hub.hf_hub_download(repo, filename, revision=revision))
    if sha256:
      _check_hash(path, sha256)
  return path


def write(path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
  """Writes a safetensors file, whole or not at all; what stood there is replaced.

  Args:
    path: `NAME.safetensors`, in a folder that exists.
    tensors: numbers, in any layout and byte order.
    metadata: texts to keep beside them.

  Raises:
    StateError: it cannot be written, or a tensor is of a kind that safetensors does not have.
  """
  path = Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  with _blaming(f'weights {path} cannot be written', 'give numbers, and a folder with room'):
    try:
      # The library writes an array's memory as it lies: a transposed one would come back scrambled.
      # (np.ascontiguousarray would make a vector of a scalar.)
      tensors = {name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}
      safetensors.numpy.save_file(tensors, temporary, metadata)
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _blaming(what: str, way_out: str):
  """Turns whatever a parser makes of a hostile file into one StateError of one line.

  Any exception: these parsers raise a dozen kinds (of zlib, struct, tokenize, Unicode, memory,
  recursion), and a kind forgotten here would be a traceback there.
  """
  try:
    yield
  except FlexfasError:
    raise
  except Exception as error:
    line = next(iter(str(error).strip().splitlines()), '')
    line = repr(line[:200])[1:-1]  # the file may have put control characters into it
    raise StateError(f'{what}: {type(error).__name__}: {line}; {way_out}') from error


def _check_form(sha256: str | None) -> None:
  if sha256 is not None and not re.fullmatch('[0-9a-fA-F]{64}', str(sha256)):
    raise ConfigError(f'sha256 {sha256!r} is not 64 hexadecimal digits; `sha256sum FILE` prints it')


def _check_hash(path: Path, sha256: str) -> None:
  with path.open('rb') as file:
    found = hashlib.file_digest(file, 'sha256').hexdigest()
  if found != sha256.lower():
    raise StateError(
      f'weights {path}: this is another file than was asked for: its sha256 is\n  {found}, not\n'
      f'  {sha256.lower()}; get the file again, or give its hash if you trust it'
    )


def _reader(path: Path):
  """The function that reads a file, by its first bytes."""
  with path.open('rb') as file:
    head = file.read(512)
  if not head:
    raise StateError(f'weights {path}: the file is empty; get it again')
  header_length = int.from_bytes(head[:8], 'little')
  fits = header_length <= path.stat().st_size - 8
  # First, since a length can look like the start of anything: 128 begins with a pickle's \x80.
  if head[8:9] == b'{' and (fits or path.suffix == '.safetensors'):
    return _safetensors
  if head.startswith((b'PK\x03\x04', b'PK\x05\x06')):
    return _npz
  for start, what in _LOOKS_LIKE:
    if re.match(start, head):
      raise StateError(f'weights {path}: this looks like {what}')
  if head[:1] == b'\x80' or head[257:262] == b'ustar' or path.suffix in _PICKLES:
    raise _pickle(path)
  raise StateError(
    f'weights {path}: this is neither safetensors nor .npz, it begins with {head[:12]!r}; '
    'convert it with the program that wrote it, or get the file again'
  )


def _pickle(path: Path) -> StateError:
  target = path.with_suffix('.safetensors')
  if target == path:
    target = path.with_suffix('.converted.safetensors')
  return StateError(
    f'weights {path}: this is a pickle, which runs the code that it holds when it is opened, so it '
    'is not opened here. Where PyTorch is (pip install torch safetensors), make another file of '
    f'it, and give that:\n  python -c "{_CONVERT}" {shlex.quote(str(path))} '
    f'{shlex.quote(str(target))}'
  )


def _safetensors(path: Path) -> dict[str, np.ndarray]:
  tensors = {}
  # Opening allocates nothing, and compares the header with itself and with the file's size.
  with safetensors.safe_open(path, framework='np') as file:
    _check_names(path, _header(path))
    for name in file.keys():  # noqa: SIM118  # it is no dict
      with _blaming(f'weights {path}: tensor {name[:100]!r} cannot be read', 'get the file again'):
        dtype = file.get_slice(name).get_dtype()
        if re.fullmatch('F[468](_.*)?', dtype):
          raise StateError(
            f'weights {path}: tensor {name[:100]!r} is {dtype}, which NumPy does not have; '
            'save it as F32 where it was made'
          )
        tensors[name] = file.get_tensor(name)
  return tensors


def _header(path: Path) -> bytes:
  with path.open('rb') as file:
    return file.read(int.from_bytes(file.read(8), 'little'))


def _check_names(path: Path | str, header: bytes) -> None:
  """That no tensor stands in a header twice: readers differ in which one they take."""

  def once(pairs):
    entries = {}
    for name, value in pairs:
      if name in entries:
        raise StateError(f'weights {path}: {name[:100]!r} is in its header twice; get it again')
      entries[name] = value
    return entries

  json.loads(header.decode(), object_pairs_hook=once)


def _npz(path: Path) -> dict[str, np.ndarray]:
  tensors = {}
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if any(m.filename.endswith('.pkl') for m in members):  # what torch.save writes
      raise _pickle(path)
    size = path.stat().st_size
    unpacked = sum(m.file_size for m in members)
    if unpacked > max(_UNPACKED, _UNPACKED_TIMES * size):
      raise StateError(
        f'weights {path}: {size:,} bytes that unpack to {unpacked:,} are a trap, no weights; '
        'if you trust it, numpy.load and numpy.savez make a plain file of it'
      )
    if sum(m.compress_size for m in members) > size:
      raise StateError(f'weights {path}: its members overlap; get the file again')
    for member in members:
      name = member.filename.removesuffix('.npy')
      where = f'weights {path}: array {name[:100]!r}'
      with _blaming(f'{where} cannot be read', 'get the file again'):
        if name == member.filename:
          raise StateError(f'{where} is no .npy, so this is no .npz; give one from numpy.savez')
        if name in tensors:
          raise StateError(f'{where} is there twice; get the file again')
        tensors[name] = _npy(archive, member, where)
  return tensors


def _npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
  """One array; memory grows with what is really there, never with what is claimed."""
  # The two that NumPy writes. LZMA would be given the dictionary of 4 GB that a member asks for.
  if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise StateError(f'{where} is compressed in a way that NumPy never does')
  # zipfile stops at the size that is claimed without a word: one byte more shows what follows.
  longer = copy.copy(member)
  longer.file_size += 1
  with archive.open(longer) as file:
    head = io.BytesIO(file.read(_NPY_HEADER))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):  # the third is for names of fields
      raise StateError(f'{where} is .npy of version {version}, which plain numbers never are')
    header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran_order, dtype = header[version[0]](head)
    if dtype.hasobject:
      raise StateError(
        f'{where} holds Python objects, a pickle, which runs the code that it holds when it is '
        'opened, so it is not opened here; where you trust it, save it again as numbers'
      )
    bfloat16 = dtype == np.dtype('V2')  # what NumPy makes of it, in big_vision's checkpoints too
    if dtype.kind not in 'biufc' and not bfloat16:
      raise StateError(f'{where} is {str(dtype)[:100]}, no numbers; save the file without it')
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or head.tell() + n_bytes != member.file_size:
      raise StateError(
        f'{where} has {member.file_size:,} bytes, which is not what its shape '
        f'{str(shape)[:100]} of {dtype} says; get the file again'
      )
    data = bytearray(head.read())
    while chunk := file.read(_CHUNK):
      data += chunk
  if len(data) != n_bytes:
    less_or_more = 'less' if len(data) < n_bytes else 'more'
    raise StateError(f'{where} holds {less_or_more} than it claims; get the file again')
  array = np.ndarray(shape, dtype, data, order='F' if fortran_order else 'C')
  if bfloat16:
    return array.view(ml_dtypes.bfloat16)
  return array.astype(dtype.newbyteorder('='), copy=False)
