"""What a run measures, as `metrics.jsonl` (one object a line) and TensorBoard events."""

import json
import math
import pathlib
from collections.abc import Mapping

import tensorboardX


class MetricWriter:
  """Appends to a workdir's records; a resumed run takes back what came after its checkpoint.

  Args:
    workdir: where `metrics.jsonl` and `tensorboard/` go.
    step: the step that the run starts from.
  """

  def __init__(self, workdir: pathlib.Path, step: int):
    path = workdir / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith('\n') and json.loads(line)['step'] <= step]
    if kept != lines:
      temporary = path.with_suffix('.tmp')
      temporary.write_text(''.join(kept))
      temporary.replace(path)
    self._file = path.open('a')
    self._board = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Records {name: value} of one step."""
    row = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
    self._file.write(json.dumps({'step': step, **row}) + '\n')
    self._file.flush()
    for name, value in row.items():
      if value is not None:
        self._board.add_scalar(name.replace('+', '_'), value, step)  # TensorBoard has no +

  def close(self) -> None:
    """Closes both records."""
    self._file.close()
    self._board.close()
