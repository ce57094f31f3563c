"""Objects of Google Cloud Storage, `gs://BUCKET/NAME`: list, read, write, copy, delete.

Orbax reads and writes checkpoints at gs:// by itself, and ArrayRecord reads records. This module is
for all other files. It needs the extra `gcs`, which is imported on first use.
"""

import contextlib
import functools
import os
import pathlib
import re
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from flexfas_jax.errors import ConfigError, FlexfasError, StateError, TemporaryError

SCHEME = 'gs://'
START_SECONDS = 20.0  # for a bucket to answer at the start, retries included
PATIENCE_SECONDS = 300.0  # without an answer, after which a run ends
PROBE_SECONDS = 15.0  # between two probes of a bucket that a run uses


class Object(NamedTuple):
  """What a listing has of an object: base64 of its CRC32C, bytes, generation."""

  crc32c: str
  size: int
  generation: int


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is at gs://."""
  return os.fspath(path).startswith(SCHEME)


def check_path(path: str, what: str) -> None:
  """Raises a ConfigError for a path of another scheme than gs://, or one without a folder.

  `gs:/BUCKET/FOLDER`, of which a slash was lost, is refused too, instead of a local folder `gs:`.

  Args:
    path: local, or `gs://BUCKET/FOLDER`.
    what: the flag or field that gives it, for the message.
  """
  match = re.match(r'gs:|([a-z][\w+.-]+):/', path, re.IGNORECASE)
  if not match or (match[1] and os.path.exists(path)):
    return
  if match[1]:
    raise ConfigError(
      f'{what} = {path}: {match[1]}:// is not supported; give a local path or gs://BUCKET/FOLDER'
    )
  rest = path.removeprefix(SCHEME)
  name, _, folder = rest.partition('/')
  dots = {'.', '..'} & set(rest.split('/'))
  if rest == path or not name or not folder.strip('/') or '//' in rest or dots:
    raise ConfigError(f'{what} = {path}: give gs://BUCKET/FOLDER')


def check_reachable(url: str, what: str, kind: type[FlexfasError], writes: bool = False) -> None:
  """Raises an error within `START_SECONDS` unless a bucket answers and permits access.

  Args:
    url: a folder at gs://.
    what: the flag or field that gives it, for the message.
    kind: of the error if the bucket is missing or denies access.
    writes: whether checkpoints are written there: Orbax also asks for the bucket's properties.

  Raises:
    TemporaryError: the bucket does not answer.
  """
  with _errors(url, f'{what} = {url}', kind):
    name, prefix = _split(url)
    if writes:
      _client().get_bucket(name, **_patience(START_SECONDS))
    _probe(name, prefix, START_SECONDS)


def list_objects(url: str) -> dict[str, Object]:
  """{name below the folder: Object}, sorted; placeholders of folders are left out.

  Raises:
    StateError: the bucket is missing, or denies access.
    TemporaryError: it does not answer.
  """
  with _errors(url):
    name, prefix = _split(url)
    fields = 'items(name,crc32c,size,generation),nextPageToken'
    blobs = _client().list_blobs(name, prefix=f'{prefix}/', fields=fields)
    return {
      blob.name[len(prefix) + 1 :]: Object(blob.crc32c, int(blob.size), int(blob.generation))
      for blob in blobs
      if not blob.name.endswith('/')
    }


def read(url: str) -> bytes | None:
  """Contents of an object; None if there is none. Errors as in `list_objects`."""
  found = read_version(url)
  return found[0] if found else None


def read_version(url: str) -> tuple[bytes, int] | None:
  """(contents, generation) of an object; None if there is none."""
  from google.api_core import exceptions

  with _errors(url):
    blob = _blob(url)
    try:
      contents = blob.download_as_bytes()
    except exceptions.NotFound:
      return None
    return contents, int(blob.generation)


def write(url: str, contents: bytes, generation: int | None = None) -> int | None:
  """Writes an object atomically.

  Args:
    url: of the object.
    contents: its bytes.
    generation: that it must have before, 0 for none; None: any.

  Returns:
    Its new generation; None if it had another one than `generation`.
  """
  from google.api_core import exceptions
  from google.cloud.storage.retry import DEFAULT_RETRY

  with _errors(url):
    blob = _blob(url)
    try:
      # A write that is repeated after its answer was lost has the same contents.
      blob.upload_from_string(contents, if_generation_match=generation, retry=DEFAULT_RETRY)
    except exceptions.PreconditionFailed:
      return None
    return int(blob.generation)


def delete(url: str, generation: int | None = None) -> bool:
  """Deletes an object; False if it does not exist with that generation (None: any)."""
  from google.api_core import exceptions
  from google.cloud.storage.retry import DEFAULT_RETRY

  with _errors(url):
    try:
      _blob(url).delete(if_generation_match=generation, retry=DEFAULT_RETRY)
    except (exceptions.NotFound, exceptions.PreconditionFailed):
      return False
    return True


def delete_folder(url: str, first: str = '') -> None:
  """Deletes all objects of a folder, that of the name `first` before the others."""
  if first:
    delete(f'{url}/{first}')
  for name in list_objects(url):
    delete(f'{url}/{name}')


def move_folder(url: str, target: str, first: str) -> None:
  """Copies all objects of a folder within a bucket and deletes them, the name `first` first."""
  for name in list_objects(url):
    with _errors(url):
      blob = _blob(f'{url}/{name}')
      bucket, place = _split(f'{target}/{name}')
      copy, token = _client().bucket(bucket).blob(place), None
      while token is not None or not copy.generation:
        token, _, _ = copy.rewrite(blob, token=token)
  delete_folder(url, first)


def fetch(
  url: str,
  folder: pathlib.Path,
  wanted: Callable[[str], bool],
  known: Mapping[str, int] = types.MappingProxyType({}),
) -> dict[str, int]:
  """Copies the wanted objects of a folder at gs:// into a local one.

  Args:
    url: of the folder.
    folder: the local one.
    wanted: whether the object of a name is copied.
    known: what an earlier call returned; only what has changed since is copied, or deleted.

  Returns:
    {name of an object: its generation}.
  """
  generations = {}
  for name, listed in list_objects(url).items():
    if not wanted(name):
      continue
    if known.get(name) == listed.generation:
      generations[name] = listed.generation
      continue
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
      raise StateError(f'{url}/{name} is not within {url}')
    file.parent.mkdir(parents=True, exist_ok=True)
    found = read_version(f'{url}/{name}')
    if found is not None:  # else deleted meanwhile
      contents, generations[name] = found
      file.write_bytes(contents)
  for name in known.keys() - generations.keys():
    (folder / name).unlink(missing_ok=True)
  return generations


class LockStore:
  """A text that only one of several writers can create or replace: `training.lock.LockStore`.

  Args:
    url: of the object.
  """

  def __init__(self, url: str):
    self.place = url

  def create(self, text: str) -> bool:
    """Creates the text; False if there already is one."""
    # A request that is repeated after its answer was lost finds its own text.
    return write(self.place, text.encode(), generation=0) is not None or self.read() == text

  def read(self) -> str | None:
    """The text; None if there is none."""
    found = self._find()
    return found and found[0]

  def replace(self, old: str, new: str) -> bool:
    """Replaces `old`; False if there is another text, or none."""
    found = self._find()
    if not found or found[0] != old:
      return False
    return write(self.place, new.encode(), found[1]) is not None or self.read() == new

  def delete(self, old: str) -> bool:
    """Deletes `old`; False if there is another text, or none."""
    found = self._find()
    return bool(found) and found[0] == old and delete(self.place, found[1])

  def _find(self) -> tuple[str, int] | None:
    found = read_version(self.place)
    return found and (found[0].decode(errors='replace'), found[1])


@functools.cache
def local_copy(
  url: str, what: str = 'BUNDLE', wanted: Callable[[str], bool] = lambda name: True
) -> pathlib.Path:
  """A folder at gs:// that is only read, as a local folder that lasts as long as the process.

  Args:
    url: of the folder.
    what: the flag or argument that gives it, for messages.
    wanted: whether the object of a name is copied.

  Raises:
    ConfigError: not gs://BUCKET/FOLDER, or the extra `gcs` is missing.
    StateError: the bucket denies access, or has no such folder.
    TemporaryError: the bucket does not answer.
  """
  check_path(url, what)
  check_reachable(url, what, StateError)
  scratch = tempfile.TemporaryDirectory(prefix='flexfas_')
  _copies.append(scratch)
  folder = pathlib.Path(scratch.name) / url.rstrip('/').rpartition('/')[2]
  folder.mkdir()
  if not fetch(url.rstrip('/'), folder, wanted):
    raise StateError(f'{url} holds no files of a {what.lower()}')
  return folder


_copies: list[tempfile.TemporaryDirectory] = []  # each is deleted with the process


@contextlib.contextmanager
def watch(
  uses: Sequence[tuple[str, str, type[FlexfasError]]], stop: Callable[[str, int], None]
) -> Iterator[None]:
  """Ends a process whose bucket does not answer for `PATIENCE_SECONDS`.

  Readers and writers in other libraries retry for longer, each on its own, and cannot be
  interrupted.

  Args:
    uses: (url, the flag or field that gives it, kind of its errors) of the folders in use.
    stop: called with a message and the exit code, in another thread.
  """
  ended, pause = threading.Event(), min(PROBE_SECONDS, PATIENCE_SECONDS / 3)

  def probe() -> None:
    now = time.monotonic()
    probed, silent = {url: now for url, _, _ in uses}, {url: 0.0 for url, _, _ in uses}
    while not ended.wait(pause):
      for url, what, kind in uses:
        try:
          with _errors(url, what, kind):
            _probe(*_split(url), 0.0)
          silent[url] = 0.0
        except FlexfasError as error:
          # A process that was stopped itself (SIGSTOP, a suspended machine) asked no one meanwhile.
          silent[url] += min(time.monotonic() - probed[url], 2 * pause)
          if silent[url] > PATIENCE_SECONDS and not ended.is_set():
            stop(
              f'{error}, for {silent[url]:.0f} s; rerun the same command to resume',
              error.exit_code,
            )
        probed[url] = time.monotonic()

  thread = threading.Thread(target=probe, daemon=True)
  if uses:
    thread.start()
  try:
    yield
  finally:
    ended.set()


def _probe(name: str, prefix: str, seconds: float) -> None:
  blobs = _client().list_blobs(name, prefix=f'{prefix}/', max_results=1, **_patience(seconds))
  next(iter(blobs), None)


def _patience(seconds: float) -> dict:
  from google.cloud.storage.retry import DEFAULT_RETRY

  return {'timeout': 10.0, 'retry': DEFAULT_RETRY.with_timeout(seconds) if seconds else None}


@functools.cache
def _client():
  """The client of the process.

  Raises:
    ConfigError: the extra `gcs` is not installed.
  """
  try:
    import fsspec
    import gcsfs  # noqa: F401  # Orbax and TFDS need it
    from google.cloud import storage
  except ImportError as error:
    raise ConfigError(
      f"gs:// requires the extra `gcs` ({error}): pip install 'flexfas_jax[gcs]'"
    ) from error
  # What other processes and TensorStore write must be seen.
  fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False
  client = storage.Client(project=os.environ.get('GOOGLE_CLOUD_PROJECT'))
  # Orbax makes its own client, which demands the name of a project and does not use it.
  os.environ.setdefault('GOOGLE_CLOUD_PROJECT', client.project or 'unknown')
  return client


def _split(url: str) -> tuple[str, str]:
  bucket, _, name = os.fspath(url).removeprefix(SCHEME).partition('/')
  return bucket, name.strip('/')


def _blob(url: str):
  bucket, name = _split(url)
  return _client().bucket(bucket).blob(name)


@contextlib.contextmanager
def _errors(url: str, where: str = '', kind: type[FlexfasError] = StateError) -> Iterator[None]:
  """Turns an error of the client into one that a user can act on.

  Args:
    url: of the bucket.
    where: the beginning of the message; '': the URL.
    kind: of the error if the bucket is missing or denies access; else it is a TemporaryError.
  """
  try:
    _client()
    yield
  except FlexfasError:
    raise
  except Exception as error:  # of requests, urllib3, google.auth, google.api_core
    cause = getattr(error, 'cause', None) or error  # of a RetryError
    kind = TemporaryError if _is_temporary(cause) else kind
    raise kind(f'{where or url}: {_explain(cause, url)}') from error


def _is_temporary(cause: Exception) -> bool:
  from google.api_core import exceptions
  from google.auth import exceptions as auth

  if isinstance(cause, auth.GoogleAuthError):
    # Of a machine's service account, the server of whose tokens does not answer.
    transport = [isinstance(one, auth.TransportError) for one in (cause, *cause.args)]
    return cause.retryable or any(transport)
  # 408: the server waited too long; 429: there were too many requests.
  return not isinstance(cause, exceptions.ClientError) or cause.code in (408, 429)


def _explain(cause: Exception, url: str) -> str:
  from google.api_core import exceptions
  from google.auth import exceptions as auth

  reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]
  bucket = _split(url)[0]
  if isinstance(cause, auth.DefaultCredentialsError | auth.RefreshError):
    return (
      f'there are no valid Google Cloud credentials ({reason}); run `gcloud auth '
      'application-default login`, or give the machine a service account'
    )
  if isinstance(cause, exceptions.Forbidden | exceptions.Unauthorized):
    return (
      f'permission denied ({reason}); grant roles/storage.objectUser and '
      f'roles/storage.bucketViewer on gs://{bucket} to the account that runs this'
    )
  if isinstance(cause, exceptions.NotFound):
    return f'there is no bucket {bucket} ({reason})'
  return f'the bucket {bucket} cannot be reached ({reason})'
