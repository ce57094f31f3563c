"""Reads weight files as named arrays; the files are untrusted.

It reads safetensors and NumPy's `.npz`, and recognises them by their first bytes. It executes
nothing of a file, and checks each size before it allocates memory. Opening a pickle (`.pth`, `.pt`,
`.bin`, `.ckpt`, `.pkl`) runs code from the file, so pickles are refused; the error gives the
command that converts one to safetensors.
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
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes  # jax depends on it; safetensors reads BF16 only after this import
import numpy as np
import safetensors
import safetensors.numpy

from flexfas_jax.errors import ConfigError, FlexfasError, StateError

_READABLE = ('.safetensors', '.npz')
_PICKLES = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.pickle', '.tar')
_OTHER_FILES = (  # (first bytes, description with the remedy)
  (rb'version https://git-lfs', 'a Git LFS pointer, not the file; `git lfs pull` fetches it'),
  (rb'(?i)\s*(<!doctype|<html|<\?xml)', 'a web page; perhaps a login or an error'),
  (rb'\x1f\x8b', 'compressed; gunzip it'),
  (rb'\x93NUMPY', 'one .npy array; numpy.savez gives it a name'),
  (rb'\x89HDF\r\n\x1a\n', 'HDF5; read it with h5py, and save the arrays with numpy.savez'),
)
_HUB = re.compile(r'hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<filename>[^@]+))?')
# A state dict is the file's own dict, or one of its values next to an epoch and an optimiser; this
# takes the dict with the most tensors. clone(): safetensors refuses tensors that share memory.
# open(): torch.load goes by the file's name where it ends in .safetensors.
_CONVERT = (
  'import sys, torch, safetensors.torch as s; '
  "t = torch.load(open(sys.argv[1], 'rb'), map_location='cpu', weights_only=True); "
  't = max([t, *(v for v in t.values() if isinstance(v, dict))], '
  'key=lambda d: sum(map(torch.is_tensor, d.values()))); '
  's.save_file({k: v.clone().contiguous() for k, v in t.items() if torch.is_tensor(v)}, '
  'sys.argv[2])'
)
_CHUNK = 1 << 20
_NPY_HEADER = 1 << 14  # bytes; NumPy itself refuses headers beyond 10,000 characters
# Limits on unpacked bytes: in all, or as a multiple of the file. Weights hardly compress.
_MAX_UNPACKED, _MAX_RATIO = 1 << 30, 100


def read(path, sha256: str | None = None) -> dict[str, np.ndarray]:
  """Reads all weights of a file: {name in the file: array}, in this machine's byte order.

  Args:
    path: a safetensors or npz file, or `hub:OWNER/NAME[@REVISION][/FILE]`, see `from_hub`.
    sha256: required hash of the file, 64 hexadecimal digits; None accepts any.

  Raises:
    ConfigError: `sha256` or the `hub:` address is malformed, or see `from_hub`.
    StateError: the file is missing, damaged, a pickle, holds no weights, or has another hash; the
      message describes the file and the remedy.
  """
  _check_form(sha256)
  if str(path).startswith('hub:'):
    if not (address := _HUB.fullmatch(str(path))):
      raise ConfigError(f'{path} is not of the form hub:OWNER/NAME[@REVISION][/FILE]')
    path = from_hub(**{k: v for k, v in address.groupdict().items() if v})
  path = Path(path)
  if not path.is_file():  # reading a pipe or a device could block
    if path.is_dir():
      raise StateError(f'weights {path}: this is a folder; give the file in it')
    raise StateError(f'weights {path}: no such file, or no regular file')
  with _as_state_error(f'weights {path} cannot be read', 'get the file again'):
    if sha256:
      _check_hash(path, sha256)
    tensors = _reader(path)(path)
  if not tensors:
    raise StateError(f'weights {path}: the file has no tensors; give the file that has them')
  return tensors


def parse(content: bytes, name: str) -> dict[str, np.ndarray]:
  """The weights in the bytes of a safetensors file: {name in the file: array}.

  Args:
    content: the whole file.
    name: of the file, for messages.

  Raises:
    StateError: the bytes are not valid safetensors.
  """
  with _as_state_error(f'weights {name} cannot be read', 'get the file again'):
    length = int.from_bytes(content[:8], 'little')
    _check_names(name, content[8 : 8 + length])
    return safetensors.numpy.load(content)


def from_hub(
  repo: str,
  filename: str = 'model.safetensors',
  revision: str | None = None,
  sha256: str | None = None,
) -> Path:
  """Downloads a file from the Hugging Face hub into its local cache, unless it is there.

  Args:
    repo: 'OWNER/NAME'.
    filename: a file of the repository.
    revision: a branch, tag or commit. A branch may move: pin a commit, or the hash.
    sha256: required hash of the file; None accepts any.

  Returns:
    The path of the local file.

  Raises:
    ConfigError: the file is of a kind that `read` refuses, or huggingface_hub is not installed.
    StateError: the download fails, or the file has another hash.
  """
  _check_form(sha256)
  if Path(filename).suffix not in _READABLE:
    raise ConfigError(
      f'hub:{repo}/{filename} is not fetched: only {" and ".join(_READABLE)} files are read, never '
      "a pickle; look for model.safetensors among the repository's files"
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise ConfigError(
      f"hub:{repo} requires huggingface_hub: pip install 'flexfas_jax[hub]'"
    ) from error
  where = f'hub:{repo}{f"@{revision}" if revision else ""}/{filename}'
  what_to_do = 'check the name and the network, or give a file'
  with _as_state_error(f'{where} cannot be fetched', what_to_do):
    path = Path(huggingface_hub.hf_hub_download(repo, filename, revision=revision))
    if sha256:
      _check_hash(path, sha256)
  return path


def write(path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
  """Writes a safetensors file atomically; replaces an existing file.

  Args:
    path: `NAME.safetensors`, in an existing folder.
    tensors: numbers, in any layout and byte order.
    metadata: texts for the file's header.

  Raises:
    StateError: the file cannot be written, or safetensors lacks the dtype of a tensor.
  """
  path = Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  with _as_state_error(f'weights {path} cannot be written', 'give numbers, and a folder with room'):
    try:
      # The library ignores strides: a transposed array would come back scrambled.
      # (np.ascontiguousarray would turn a scalar into a vector.)
      tensors = {name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}
      safetensors.numpy.save_file(tensors, temporary, metadata)
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_state_error(what: str, what_to_do: str):
  """Turns any exception of a parser into a StateError of one line.

  Every kind of exception: on hostile files these parsers raise a dozen kinds (from zlib, struct,
  tokenize, Unicode, memory, recursion), and a kind missing here would give the user a traceback.
  """
  try:
    yield
  except FlexfasError:
    raise
  except Exception as error:
    line = next(iter(str(error).strip().splitlines()), '')
    # The message may quote control characters of the file.
    line = printable(line, 200)
    raise StateError(f'{what}: {type(error).__name__}: {line}; {what_to_do}') from error


def printable(text, max_length: int = 100) -> str:
  """A text from a file on one line, of limited length, control characters escaped."""
  text = str(text)
  return repr(text[:max_length] + ('...' if len(text) > max_length else ''))[1:-1]


def list_names(names: Iterable, max_names: int = 4) -> str:
  """Names from a file for a message: the first few, and the number of the others."""
  names = [printable(n, 200) for n in names]
  rest = f' and {len(names) - max_names} more' if len(names) > max_names else ''
  return ', '.join(names[:max_names]) + rest


def _check_form(sha256: str | None) -> None:
  if sha256 is not None and not re.fullmatch('[0-9a-fA-F]{64}', str(sha256)):
    raise ConfigError(f'sha256 {sha256!r} is not 64 hexadecimal digits; `sha256sum FILE` prints it')


def _check_hash(path: Path, sha256: str) -> None:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if digest != sha256.lower():
    raise StateError(
      f'weights {path}: this is another file than the config names: its sha256 is\n  {digest}, '
      f'not\n  {sha256.lower()}; get the file again, or give its hash if you trust it'
    )


def _reader(path: Path):
  """The function that reads a file, by its first bytes."""
  with path.open('rb') as file:
    head = file.read(512)
  if not head:
    raise StateError(f'weights {path}: the file is empty; get it again')
  header_length = int.from_bytes(head[:8], 'little')
  fits = header_length <= path.stat().st_size - 8
  # First, since a length can equal the magic of another format: 128 is a pickle's \x80.
  if head[8:9] == b'{' and (fits or path.suffix == '.safetensors'):
    return _safetensors
  if head.startswith((b'PK\x03\x04', b'PK\x05\x06')):
    return _npz
  for start, description in _OTHER_FILES:
    if re.match(start, head):
      raise StateError(f'weights {path}: this looks like {description}')
  if head[:1] == b'\x80' or head[257:262] == b'ustar' or path.suffix in _PICKLES:
    raise _pickle(path)
  raise StateError(
    f'weights {path}: this is neither safetensors nor .npz: it begins with the bytes '
    f'{head[:12].hex(" ")}; convert it with the program that wrote it, or get the file again'
  )


def _pickle(path: Path) -> StateError:
  target = path.with_suffix('.safetensors')
  if target == path:
    target = path.with_suffix('.converted.safetensors')
  return StateError(
    f'weights {path}: this is a pickle. Opening a pickle runs the code in it, so it is not opened. '
    'Convert it on a machine with PyTorch (pip install torch safetensors), and give the new file:\n'
    f'  python -c "{_CONVERT}" {shlex.quote(str(path))} '
    f'{shlex.quote(str(target))}'
  )


def _safetensors(path: Path) -> dict[str, np.ndarray]:
  tensors = {}
  # Opening allocates nothing, and checks the header against itself and the file's size.
  with safetensors.safe_open(path, framework='np') as file:
    _check_names(path, _header(path))
    for name in file.keys():  # noqa: SIM118  # not a dict
      what = f'weights {path}: tensor {name[:100]!r} cannot be read'
      with _as_state_error(what, 'get the file again'):
        dtype = file.get_slice(name).get_dtype()
        if re.fullmatch('F[468](_.*)?', dtype):
          raise StateError(
            f'weights {path}: tensor {name[:100]!r} is {dtype}, which NumPy lacks; '
            'save it as F32 with the program that wrote it'
          )
        tensors[name] = file.get_tensor(name)
  return tensors


def _header(path: Path) -> bytes:
  with path.open('rb') as file:
    return file.read(int.from_bytes(file.read(8), 'little'))


def _check_names(path: Path | str, header: bytes) -> None:
  """Refuses a header with a duplicate name: readers differ in which of the two they take."""

  def unique(pairs):
    entries = {}
    for name, value in pairs:
      if name in entries:
        raise StateError(f'weights {path}: its header has {name[:100]!r} twice; get the file again')
      entries[name] = value
    return entries

  json.loads(header.decode(), object_pairs_hook=unique)


def _npz(path: Path) -> dict[str, np.ndarray]:
  tensors = {}
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if any(m.filename.endswith('.pkl') for m in members):  # what torch.save writes
      raise _pickle(path)
    size = path.stat().st_size
    unpacked = sum(m.file_size for m in members)
    if unpacked > max(_MAX_UNPACKED, _MAX_RATIO * size):
      raise StateError(
        f'weights {path}: {size:,} bytes that unpack to {unpacked:,} look like an attack; '
        'if you trust the file, rewrite it with numpy.load and numpy.savez'
      )
    if sum(m.compress_size for m in members) > size:
      raise StateError(f'weights {path}: its members overlap; get the file again')
    for member in members:
      name = member.filename.removesuffix('.npy')
      where = f'weights {path}: array {name[:100]!r}'
      with _as_state_error(f'{where} cannot be read', 'get the file again'):
        if name == member.filename:
          raise StateError(f'{where} is no .npy, so this is no .npz; give one from numpy.savez')
        if name in tensors:
          raise StateError(f'{where} is in the file twice; get the file again')
        tensors[name] = _npy(archive, member, where)
  return tensors


def _npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
  """One array; memory grows with the data in the file, not with the size in its header."""
  # The two methods that NumPy writes. LZMA could allocate a dictionary of 4 GB.
  if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise StateError(f'{where} has a compression method that NumPy never writes')
  # zipfile stops silently at the claimed size; one more byte reveals surplus data.
  longer = copy.copy(member)
  longer.file_size += 1
  with archive.open(longer) as file:
    head = io.BytesIO(file.read(_NPY_HEADER))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):  # version 3 is for field names
      raise StateError(f'{where} is .npy version {version}, which plain numbers never have')
    header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran_order, dtype = header[version[0]](head)
    if dtype.hasobject:
      raise StateError(
        f'{where} holds Python objects, a pickle. Opening a pickle runs the code in it, so it is '
        'not opened; if you trust the file, save it again as numbers'
      )
    bfloat16 = dtype == np.dtype('V2')  # as NumPy writes it, in big_vision's checkpoints too
    if dtype.kind not in 'biufc' and not bfloat16:
      raise StateError(f'{where} is {str(dtype)[:100]}, not numbers; save the file without it')
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or head.tell() + n_bytes != member.file_size:
      raise StateError(
        f'{where} has {member.file_size:,} bytes, which does not match its shape '
        f'{str(shape)[:100]} of {dtype}; get the file again'
      )
    data = bytearray(head.read())
    while chunk := file.read(_CHUNK):
      data += chunk
  if len(data) != n_bytes:
    less_or_more = 'less' if len(data) < n_bytes else 'more'
    raise StateError(
      f'{where} holds {less_or_more} data than its header claims; get the file again'
    )
  array = np.ndarray(shape, dtype, data, order='F' if fortran_order else 'C')
  if bfloat16:
    return array.view(ml_dtypes.bfloat16)
  return array.astype(dtype.newbyteorder('='), copy=False)
