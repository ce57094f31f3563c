"""Files that are never seen half written."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
  """Writes a file atomically: a temporary file beside it takes its place.

  What is no regular file, e.g. /dev/stdout, is written to and not replaced.
  """
  text_bytes = text.encode('utf-8', 'backslashreplace')  # a path may have bytes that are no UTF-8
  if path.exists() and not path.is_file():
    path.write_bytes(text_bytes)
    return
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(text_bytes)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
