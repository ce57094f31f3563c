"""Writes files and folders atomically: readers see the old contents or the new, never a part."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str) -> None:
  """Writes a file atomically, by renaming a temporary file in the same folder.

  A path that is not a regular file, e.g. /dev/stdout, is written to and not replaced.
  """
  write_bytes(path, text.encode('utf-8', 'backslashreplace'))  # a path may have other bytes


def write_bytes(path: Path, contents: bytes) -> None:
  """Writes a file as `write_text` does."""
  if path.exists() and not path.is_file():
    path.write_bytes(contents)
    return
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(contents)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
  """A temporary folder that is renamed to `target` on success and deleted on failure."""
  temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    temporary.mkdir(parents=True)
    yield temporary
    temporary.rename(target)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
