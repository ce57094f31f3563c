"""What a run measures, as `metrics.jsonl` (one object a line) and TensorBoard events.

A disk that is full for a while costs no row and ends no training: what could not be written is
written with the next row. (tensorboardX's own writer has a thread that dies of it, and a queue that
is then waited for.)
"""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class MetricWriter:
  """Appends to a workdir's records; a resumed run takes back what came after its checkpoint.

  Args:
    workdir: where `metrics.jsonl` and `tensorboard/` go.
    step: the step that the run starts from.
    tell: called with a line when what is measured cannot be written, once until it can.
    again: val is scored again at that step.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    tell: Callable[[str], None] = print,
    again: bool = False,
  ):
    path = workdir / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [(json.loads(line), line) for line in lines if line.endswith('\n')]
    kept = [
      line
      for row, line in whole
      if row['step'] <= step and not (again and row['step'] == step and 'val/auc' in row)
    ]
    if kept != lines:
      temporary = path.with_suffix('.tmp')
      temporary.write_text(''.join(kept))
      temporary.replace(path)
    self._path, self._tell, self._told = path, tell, False
    self._file, self._pending = path.open('ab', buffering=0), b''
    (workdir / 'tensorboard').mkdir(exist_ok=True)
    self._board = EventsWriter(str(workdir / 'tensorboard' / 'events'))
    self._event(step + 1, session_log=SessionLog(status=SessionLog.START))  # hides what comes after

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Records {name: value} of one step."""
    row = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
    self._pending += (json.dumps({'step': step, **row}) + '\n').encode()
    try:
      while self._pending:
        self._pending = self._pending[self._file.write(self._pending) :]
      self._told = False
    except OSError as error:
      if not self._told:
        self._tell(f'WARNING: {self._path} cannot be written ({error.strerror}); its rows are kept')
      self._told = True
    for name, value in row.items():
      if value is not None:
        self._event(step, summary=scalar(name.replace('+', '_'), value))  # TensorBoard has no +

  def _event(self, step: int, **what) -> None:
    with contextlib.suppress(OSError):  # what is buffered is written later
      self._board.write_event(Event(step=step, wall_time=time.time(), **what))
      self._board.flush()

  def close(self) -> None:
    """Closes both records."""
    self._file.close()
    with contextlib.suppress(OSError):
      self._board.close()
