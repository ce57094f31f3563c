"""A workdir at gs://: Orbax writes its checkpoints there; all else is in a local scratch folder.

The scratch folder is filled at the start, and what changes in it is copied to the bucket
periodically, before each checkpoint and at the end. So the files in the bucket are never older than
the newest checkpoint, and a run that is killed resumes from both. Every process has its own scratch
folder, but only the first one sends. A training fetches what has changed once it holds the lock of
the workdir, sends for the last time before it releases the lock, and sends nothing without it.
"""

import contextlib
import functools
import os
import pathlib
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from flexfas_jax import bucket, errors
from flexfas_jax.errors import DataError, FlexfasError, StateError
from flexfas_jax.training import distributed, lock, workdir

SEND_SECONDS = 30.0
_METRICS = 'metrics.jsonl'
# Folders whose files are not read again: they are not fetched.
_NOT_FETCHED = (
  *('checkpoints', 'damaged_checkpoints', 'tensorboard', 'profile'),
  'bundle',
)


class OpenWorkdir(NamedTuple):
  """A workdir that is in use.

  Attributes:
    folder: local; of a workdir at gs://, the scratch folder.
    send: copies what changed in the scratch folder to the bucket; does nothing for a local workdir.
    hold: makes the context in which a training holds the workdir's lock, which it is called with
      (None except in the first process). It fetches what another training has changed before, and
      ends by sending for the last time.
  """

  folder: pathlib.Path
  send: Callable[[], None]
  hold: Callable[[lock.WorkdirLock | None], contextlib.AbstractContextManager]


@contextlib.contextmanager
def open_workdir(path: str, data_dir: str = '', read_only: bool = False) -> Iterator[OpenWorkdir]:
  """Opens a workdir at gs:// or a local one; call it when the processes have joined.

  Args:
    path: of the workdir.
    data_dir: of the run; a bucket must answer, too.
    read_only: nothing is sent.

  Raises:
    ConfigError: another scheme than gs://, or the extra `gcs` is missing.
    StateError: the workdir's bucket is missing, or denies access.
    DataError: that of the data is, or does.
    TemporaryError: a bucket does not answer.
  """
  uses = check(path, data_dir)
  with bucket.watch(uses, _stop):
    if not bucket.is_remote(path):
      yield OpenWorkdir(pathlib.Path(path), _nothing, contextlib.nullcontext)
      return
    with tempfile.TemporaryDirectory(prefix='flexfas_') as scratch:
      url = path.rstrip('/')
      folder, generations = _fetch(url, pathlib.Path(scratch))
      sends = not read_only and distributed.is_first()
      sender = _Sender(url, folder, generations) if sends else None

      @contextlib.contextmanager
      def hold(held: lock.WorkdirLock | None) -> Iterator[None]:
        fetch = functools.partial(_fetch, url, pathlib.Path(scratch), generations)
        if sender is None:
          fetch()
          yield
          return
        with sender.holding(held, lambda: fetch()[1]):
          yield

      with _named(folder, url), sender or contextlib.nullcontext():
        yield OpenWorkdir(folder, sender.send if sender else _nothing, hold)


def check(path: str, data_dir: str = '') -> list[tuple[str, str, type[FlexfasError]]]:
  """Checks that the buckets of workdir and data answer; errors as in `open_workdir`.

  Returns:
    For `bucket.watch`.
  """
  problems: list[FlexfasError] = []
  used = [(path, '--workdir', StateError), (data_dir, 'config.data_dir', DataError)]
  for url, what, _ in used:
    errors.attempt(problems, what, bucket.check_path, url, what)
  errors.raise_all(problems)
  used = [(url, what, kind) for url, what, kind in used if bucket.is_remote(url)]
  for url, what, kind in used:
    writes = what == '--workdir'
    errors.attempt(problems, what, bucket.check_reachable, url, what, kind, writes)
  errors.raise_all(problems)
  return [(url, f'{what} = {url}', kind) for url, what, kind in used]


@functools.cache
def fetch_run(path: str) -> pathlib.Path:
  """The local folder of a run that is only read, such as a pretrained source."""
  if not bucket.is_remote(path):
    return pathlib.Path(path)
  scratch = tempfile.TemporaryDirectory(prefix='flexfas_')
  _kept.append(scratch)  # to the end of the process
  return _fetch(path.rstrip('/'), pathlib.Path(scratch.name))[0]


_kept: list[tempfile.TemporaryDirectory] = []


def _fetch(
  url: str, scratch: pathlib.Path, known: Mapping[str, int] = types.MappingProxyType({})
) -> tuple[pathlib.Path, dict[str, int]]:
  """(the scratch folder of a workdir, the generations of the objects in it); see `bucket.fetch`."""
  folder = scratch / url.rpartition('/')[2]  # a report shows the name
  folder.mkdir(exist_ok=True)

  def wanted(name: str) -> bool:
    top, slash, _ = name.partition('/')
    if slash:
      (folder / top).mkdir(exist_ok=True)  # for the checks of what a workdir may hold
    return not (slash and top in _NOT_FETCHED) and name != lock.FILE

  generations = bucket.fetch(url, folder, wanted, known)
  for name in ('checkpoints', 'tensorboard'):
    with contextlib.suppress(OSError):
      (folder / name).rmdir()
  workdir.set_origin(folder, url)
  return folder, generations


class _Sender:
  """Copies what changes in a scratch folder to a bucket; as a context, periodically."""

  def __init__(self, url: str, folder: pathlib.Path, fetched: Mapping[str, int]):
    self._url, self._folder, self._metrics = url, folder, fetched.get(_METRICS, 0)
    self._sent, self._held = self._versions(), None
    self._lock, self._ended, self._warned = threading.Lock(), threading.Event(), False
    self._thread = threading.Thread(target=self._send_periodically, daemon=True)

  def send(self) -> None:
    """Copies the files that changed since the last time; deletes those that are gone.

    Raises:
      StateError: the bucket denies access, or another training has the lock.
      TemporaryError: the bucket does not answer.
    """
    with self._lock:
      if self._held and (problem := self._held.problem()):
        raise StateError(problem)
      versions = self._versions()
      for name, version in versions.items():
        if self._sent.get(name) != version:
          try:
            contents = (self._folder / name).read_bytes()
          except FileNotFoundError:  # replaced meanwhile
            continue
          if name == _METRICS:
            self._send_metrics(contents)
          else:
            bucket.write(f'{self._url}/{name}', contents)
          self._sent[name] = version
      for name in self._sent.keys() - versions.keys():
        bucket.delete(f'{self._url}/{name}')
        del self._sent[name]

  @contextlib.contextmanager
  def holding(
    self, held: lock.WorkdirLock | None, fetch: Callable[[], Mapping[str, int]]
  ) -> Iterator[None]:
    """Calls `fetch`, and afterwards sends only while a lock is held; ends with the last send."""
    with self._lock:
      fetched = fetch()
      self._metrics, self._sent, self._held = fetched.get(_METRICS, 0), self._versions(), held
    with contextlib.ExitStack() as stack:
      stack.push(self)  # calls __exit__
      yield

  def _send_metrics(self, contents: bytes) -> None:
    """Replaces the metrics that were fetched or sent; another training's rows are not lost."""
    place = f'{self._url}/{_METRICS}'
    new = bucket.write(place, contents, self._metrics)
    if new is None:
      found = bucket.read_version(place)
      # A request that is repeated after its answer was lost finds its own contents.
      if found is None or found[0] != contents:
        raise StateError(
          f'{place} was changed by another process after this one read it; stop the other one, and '
          'rerun the same command'
        )
      new = found[1]
    self._metrics = new

  def _versions(self) -> dict[str, tuple[int, int]]:
    """{name of a file: what changes when it is written}; without temporary files."""
    versions = {}
    for place, folders, names in os.walk(self._folder):
      folders[:] = [name for name in folders if name[0] != '.']
      for name in names:
        file = pathlib.Path(place) / name
        if name[0] != '.' and file.suffix != '.tmp':
          with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            versions[file.relative_to(self._folder).as_posix()] = found.st_mtime_ns, found.st_size
    return dict(sorted(versions.items()))

  def _send_periodically(self) -> None:
    while not self._ended.wait(SEND_SECONDS):
      try:
        self.send()
        self._warned = False
      except FlexfasError as error:
        if not self._warned:
          print(f'WARNING: {error}; trying again', file=sys.stderr, flush=True)
        self._warned = True

  def __enter__(self) -> '_Sender':
    self._thread.start()
    return self

  def __exit__(self, kind, error, traceback) -> None:
    if self._ended.is_set():  # the lock that was held is released
      return
    self._ended.set()
    try:
      self.send()
    except FlexfasError as failure:
      if kind is None:
        raise
      print(f'WARNING: {failure}; some files were not sent', file=sys.stderr, flush=True)


@contextlib.contextmanager
def _named(folder: pathlib.Path, url: str) -> Iterator[None]:
  """Errors name the workdir, not its scratch folder."""
  try:
    yield
  except FlexfasError as error:
    error.args = tuple(a.replace(str(folder), url) if isinstance(a, str) else a for a in error.args)
    raise


def _nothing() -> None:
  """What a local workdir sends."""


def _stop(message: str, code: int) -> None:
  try:
    print(f'error: {message}', file=sys.stderr, flush=True)
    sys.stdout.flush()
  finally:  # also where no one reads the message any more
    os._exit(code)
