"""How a run shows that it goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping

import rich.console
import rich.progress


class Progress:
  """A bar with the latest metrics and the time left, or a line at each update without a terminal.

  Args:
    what: shown at its start.
    total: steps, or batches.
    done: of these, at the start.
    every: seconds between plain lines at least.
    silent: shows nothing: of several processes one is enough.
  """

  def __init__(
    self, what: str, total: int, done: int = 0, every: float = 10.0, silent: bool = False
  ):
    self._silent = silent
    self._what, self._total, self._done, self._every = what, total, done, every
    self._start, self._first = time.monotonic(), done
    self._said = self._start
    self._bar = None
    if sys.stderr.isatty() and not silent:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}'),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[text]}'),
        console=rich.console.Console(stderr=True),
      )
      self._task = self._bar.add_task(what, total=total, completed=done, text='')

  def __enter__(self):
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exception):
    if self._bar:
      self._bar.stop()

  def update(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
    """`done` of `total`; metrics, where given, are shown."""
    if self._silent:
      return
    text = '  '.join(f'{k} {v:.4g}' for k, v in (metrics or {}).items())
    if self._bar:
      fields = {'text': text} if metrics else {}
      self._bar.update(self._task, completed=done, **fields)
      return
    now = time.monotonic()
    if now - self._said < self._every and done < self._total:
      return
    self._said = now
    rate = (done - self._first) / max(now - self._start, 1e-9)
    left = (self._total - done) / rate if rate else float('inf')
    parts = [f'{self._what} {done}/{self._total}', text, f'{left:.0f} s left']
    print('  '.join(p for p in parts if p), file=sys.stderr, flush=True)

  def say(self, line: str) -> None:
    """A line above the bar."""
    if self._silent:
      return
    if self._bar:
      self._bar.console.print(line, highlight=False)
    else:
      print(line, file=sys.stderr, flush=True)
