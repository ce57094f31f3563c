"""One training per workdir: `training.lock` names the process that writes it.

The file has the holder's host, process and start time, and a number that the holder raises every
few seconds. It does not outlive its process: on the same machine the process table shows whether
the holder still runs; for a holder on another machine a lock whose number stays the same for
longer is stale. No two clocks are compared. Evaluation and export only read and take no lock.

`WorkdirLock` does this with any store that has the four operations of `LockStore`.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

from flexfas_jax.errors import FlexfasError, StateError

FILE = 'training.lock'
BEAT = 10.0  # seconds between two numbers
# Seconds without a new number after which a lock is stale: file systems of clusters and mounted
# buckets may show a file as it was a minute ago.
STALE = 90.0
_SETTLE = 0.2  # seconds


class LockStore(Protocol):
  """Where a lock is kept: a text that only one of several writers can create or replace.

  Attributes:
    place: of the lock, for messages.
  """

  place: str

  def create(self, text: str) -> bool:
    """Creates the text; False if there already is one."""

  def read(self) -> str | None:
    """The text; None if there is none."""

  def replace(self, old: str, new: str) -> bool:
    """Replaces `old`, with a text of its length; False if there is another text, or none."""

  def delete(self, old: str) -> bool:
    """Deletes `old`; False if there is another text, or none."""


class FileStore:
  """A lock in a folder, also of a file system that several machines share.

  Args:
    path: of the file; its folder must exist.
  """

  def __init__(self, path: pathlib.Path):
    self._path, self.place = path, str(path)

  def create(self, text: str) -> bool:
    """See `LockStore`."""
    temporary = self._path.with_name(f'.{self._path.name}.{uuid.uuid4().hex}')
    try:
      temporary.write_text(text)
      try:
        os.link(temporary, self._path)  # exclusive, and the file is complete from the start
      except FileExistsError:
        # A shared file system repeats a request whose answer was lost, and then finds its own text.
        return self.read() == text
      except OSError:  # a file system without links
        with self._path.open('x') as file:
          file.write(text)
      return True
    except FileExistsError:
      return False
    finally:
      temporary.unlink(missing_ok=True)

  def read(self) -> str | None:
    """See `LockStore`."""
    try:
      return self._path.read_text(errors='replace')
    except FileNotFoundError:
      if self._path.is_symlink():
        raise StateError(
          f'{self._path} is a link to a file that does not exist; delete the link'
        ) from None
      return None

  def replace(self, old: str, new: str) -> bool:
    """See `LockStore`. Writes in place, so that a file that was deleted does not come back."""
    with self._opened(old) as file:
      if file is None:
        return False
      os.pwrite(file.fileno(), new.encode(), 0)
      os.fsync(file.fileno())
      return True

  def delete(self, old: str) -> bool:
    """See `LockStore`."""
    with self._opened(old) as file:
      if file is not None:
        self._path.unlink(missing_ok=True)
      return file is not None

  @contextlib.contextmanager
  def _opened(self, text: str) -> Iterator:
    """The file if it has that text, else None; no other process changes it meanwhile."""
    try:
      file = self._path.open('r+', errors='replace')
    except FileNotFoundError:
      yield None
      return
    with file:
      with contextlib.suppress(OSError):  # not every file system has it; it ends with the process
        fcntl.flock(file, fcntl.LOCK_EX)
      try:
        is_current = os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
      except FileNotFoundError:
        is_current = False
      yield file if is_current and file.read() == text else None


class WorkdirLock:
  """The right to write a workdir.

  Args:
    store: where the lock is.
    warn: called with a line when a lock is stale, or has to be watched for a while.
    beat, stale: seconds, as `BEAT` and `STALE`.

  Attributes:
    noticed: what `problem` would have returned a few seconds ago; costs nothing.
  """

  def __init__(
    self,
    store: LockStore,
    warn: Callable[[str], None],
    beat: float = BEAT,
    stale: float = STALE,
  ):
    self._store, self._warn, self._beat, self._stale = store, warn, beat, stale
    self._holder = {
      'host': socket.gethostname(),
      'process': os.getpid(),
      'machine': _machine(),
      'process_start': _process_start(os.getpid()),
      'since': datetime.now(UTC).isoformat(timespec='seconds'),
      'token': uuid.uuid4().hex,
    }
    self._number, self.noticed = 0, ''
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._keep_beating, daemon=True)
    self._renewing = threading.Lock()

  def acquire(self) -> None:
    """Takes the lock.

    Raises:
      StateError: another training holds it.
      TemporaryError: it is in a bucket that does not answer.
    """
    took_over = False
    while not self._store.create(self._next_text()):
      found = self._store.read()
      if found is None:  # released just now
        continue
      self._refuse_if_alive(found)
      if self._store.delete(found):
        took_over = True
        self._warn(f'WARNING: {self._store.place} was left by {_describe(found)}, which has ended')
    if took_over:
      # Where files cannot be locked, another process may have removed this lock for the old one.
      time.sleep(_SETTLE)
      if problem := self.problem():
        raise StateError(problem)
    self._thread.start()

  def problem(self) -> str:
    """Why this process no longer holds the lock; '' if it does."""
    try:
      found = self._store.read()
    except (OSError, FlexfasError):  # the next save reports a file system that fails
      return ''
    return self._problem_of(found)

  def _problem_of(self, found: str | None) -> str:
    if found is None:
      return (
        f'{self._store.place} does not exist any more: it, or the workdir, was deleted while the '
        'training ran. Rerun the same command to resume from what is left'
      )
    if self._is_own(found):
      return ''
    return (
      f'{self._store.place} was taken over by {_describe(found)}, since this process did not '
      'respond; it writes nothing more'
    )

  def release(self) -> None:
    """Gives the lock back, if it is still this one's."""
    self._ended.set()
    with self._renewing, contextlib.suppress(OSError, FlexfasError):
      text = self._store.read()
      if text is not None and self._is_own(text):
        self._store.delete(text)

  def _keep_beating(self) -> None:
    while not self._ended.wait(self._beat):
      # A full disk, a network or a bucket that fails.
      with self._renewing, contextlib.suppress(OSError, FlexfasError):
        text = self._store.read()
        if self._ended.is_set():
          return
        self.noticed = self._problem_of(text)
        if not self.noticed:
          self._store.replace(text, self._next_text())

  def _is_own(self, text: str) -> bool:
    return _parse(text).get('token') == self._holder['token']

  def _next_text(self) -> str:
    self._number += 1
    return json.dumps({**self._holder, 'number': f'{self._number:012}'}) + '\n'

  def _refuse_if_alive(self, found: str) -> None:
    """Raises a StateError unless the process that wrote a lock has ended."""
    holder = _parse(found)
    if holder.get('machine') == _machine():
      if _process_start(holder.get('process')) != holder.get('process_start'):
        return
    elif not self._is_beating(found):
      return
    raise StateError(
      f'{self._store.place}: {_describe(self._store.read() or found)} trains in this workdir; wait '
      'for it to end, stop it, or name another --workdir'
    )

  def _is_beating(self, found: str) -> bool:
    """Whether a lock changes within the time after which it is stale."""
    self._warn(
      f'{self._store.place} is of {_describe(found)}; waiting up to {self._stale:.0f} s to see '
      'whether it still runs'
    )
    end = time.monotonic() + self._stale
    while time.monotonic() < end:
      time.sleep(min(self._beat, 1.0) / 2)
      now = self._store.read()
      if now != found:
        return now is not None
    return False


@contextlib.contextmanager
def hold(
  folder: pathlib.Path, warn: Callable[[str], None], store: LockStore | None = None
) -> Iterator[WorkdirLock]:
  """Holds the lock of a workdir. Folders that are made for it and stay empty are removed again.

  Args:
    folder: the workdir.
    warn: called with a line.
    store: of the lock; None: a file in the folder.

  Raises:
    StateError: another training holds the lock.
  """
  new = [one for one in (folder, *folder.parents) if not one.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  lock = WorkdirLock(store or FileStore(folder / FILE), warn)
  try:
    lock.acquire()
    yield lock
  finally:
    lock.release()
    with contextlib.suppress(OSError):
      for one in new:
        one.rmdir()


def _describe(text: str) -> str:
  holder = _parse(text)
  if not holder:
    return 'an unknown process'
  return f'process {holder.get("process")} on {holder.get("host")} (since {holder.get("since")})'


def _parse(text: str) -> dict:
  """The holder in a lock; {} if the lock is damaged."""
  try:
    holder = json.loads(text)
  except ValueError:
    return {}
  return holder if isinstance(holder, dict) else {}


def _machine() -> str:
  """What shares a process table: a start of a system, and in it a namespace."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:  # not Linux
    return f'{sys.platform} {socket.gethostname()}'


def _process_start(process: int | None) -> str | None:
  """When a process of this machine started, in the system's unit; None if it does not run.

  Numbers of processes are used again; with its start time a process is unique.
  """
  try:
    status = pathlib.Path(f'/proc/{process}/stat').read_text()
    fields = status.rpartition(')')[2].split()  # after the name, which may contain spaces
    return None if fields[0] in 'ZX' else fields[19]
  except FileNotFoundError:
    pass
  if pathlib.Path('/proc/self/stat').exists() or not isinstance(process, int):
    return None
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return None
  except PermissionError:
    pass
  return 'unknown'
