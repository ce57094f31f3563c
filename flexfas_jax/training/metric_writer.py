"""Writes a run's metrics to `metrics.jsonl` (one object per line) and as TensorBoard events.

A full disk loses no row and does not end the training: rows that cannot be written are kept and
written with the next one. Damaged lines, as a crash of the machine leaves them, are moved to
`metrics.jsonl.damaged`. (The thread of tensorboardX's own writer dies of a full disk, and closing
it then hangs.)
"""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar, text

from flexfas_jax.files import write_text


class MetricWriter:
  """Appends to a workdir's metrics; a resumed run first removes rows after its checkpoint.

  Args:
    workdir: the folder of `metrics.jsonl` and `tensorboard/`.
    step: that the run starts from.
    warn: called with a line when a row cannot be written; not again until writing succeeds.
    rescore_val: val is scored again at that step, so its metrics are removed.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    warn: Callable[[str], None] = print,
    rescore_val: bool = False,
  ):
    path = workdir / 'metrics.jsonl'
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = list(map(_parse, lines))

    def is_valid(row: dict) -> bool:
      rescored = rescore_val and row['step'] == step and 'val/auc' in row
      return row['step'] <= step and not rescored and 'status' not in row

    # A last line without an end was being written when its process was killed.
    damaged = [i for i, row in enumerate(rows) if row is None and lines[i].endswith(b'\n')]
    if damaged:
      other = path.with_name(path.name + '.damaged')
      with other.open('ab') as file:
        file.writelines(lines[i] for i in damaged)
      warn(
        f'WARNING: {path}: {len(damaged)} damaged lines, the first of which is line '
        f'{damaged[0] + 1}, were moved to {other}; the metrics of their steps are missing'
      )
    kept = [lines[i] for i, row in enumerate(rows) if row and is_valid(row)]
    if kept != lines:
      write_text(path, b''.join(kept).decode())
    self._path, self._warn, self._warned = path, warn, False
    self._file, self._pending = path.open('ab', buffering=0), b''
    (workdir / 'tensorboard').mkdir(exist_ok=True)
    self._board = EventsWriter(str(workdir / 'tensorboard' / 'events'))
    self._event(
      step + 1, session_log=SessionLog(status=SessionLog.START)
    )  # TensorBoard hides later steps

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Records {name: value} of one step."""
    row = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
    self._append({'step': step, **row})
    for name, value in row.items():
      if value is not None:
        self._event(step, summary=scalar(name.replace('+', '_'), value))  # TensorBoard has no +

  def write_status(self, step: int, status: str) -> None:
    """Records what goes on after a step, e.g. 'compiling'; a resumed run removes it."""
    self._append({'step': step, 'status': status})
    self._event(step, summary=text('status', status))

  def _append(self, row: Mapping) -> None:
    self._pending += (json.dumps(row) + '\n').encode()
    try:
      if not self._path.exists():
        self._file.close()
        self._file = self._path.open('ab', buffering=0)
        self._warn(f'WARNING: {self._path} was deleted; later rows are in a new one')
      while self._pending:
        self._pending = self._pending[self._file.write(self._pending) :]
      self._warned = False
    except OSError as error:
      if not self._warned:
        self._warn(f'WARNING: {self._path} cannot be written ({error.strerror}); its rows are kept')
      self._warned = True

  def _event(self, step: int, **contents) -> None:
    with contextlib.suppress(OSError):  # the writer keeps its buffer
      self._board.write_event(Event(step=step, wall_time=time.time(), **contents))
      self._board.flush()

  def close(self) -> None:
    """Closes both files."""
    self._file.close()
    with contextlib.suppress(OSError):
      self._board.close()


def _parse(line: bytes) -> dict | None:
  """The row in a line; None if it is damaged or has no end."""
  try:
    row = json.loads(line.decode('utf-8')) if line.endswith(b'\n') else None
  except (ValueError, RecursionError):
    return None
  is_row = isinstance(row, dict) and type(row.get('step')) is int
  return row if is_row else None
