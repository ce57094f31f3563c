"""Progress displays: a bar on a terminal, a few plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping

EVERY = 10.0  # seconds between the lines of a log


def show_progress(
  items: Iterable, total: int | None, text: str, transient: bool = False
) -> Iterator:
  """Yields items and shows the progress on stderr.

  Args:
    items: any iterable.
    total: number of items; None: unknown.
    text: shown before the numbers.
    transient: remove the bar at the end; write nothing to a log.
  """
  done = 0
  with Progress(text, total, transient=transient) as progress:
    for done, item in enumerate(items, 1):
      yield item
      progress.update(done)
    if done:
      progress.update(done, last=True)


class Progress:
  """A bar with the latest metrics and the remaining time; plain lines without a terminal.

  Args:
    text: shown before the numbers.
    total: number of items; None: unknown.
    done: of these, at the start.
    silent: show nothing, as in all processes but the first.
    transient: remove the bar at the end; write nothing to a log.
  """

  def __init__(
    self,
    text: str,
    total: int | None,
    done: int = 0,
    silent: bool = False,
    transient: bool = False,
  ):
    on_terminal = sys.stderr.isatty()
    self._silent = silent or (transient and not on_terminal)
    self._text, self._total = text, total
    self._begun: tuple[float, int] | None = None  # (time, items) at the first update
    self._printed, self._printed_done = time.monotonic(), -1
    self._bar = None
    if on_terminal and not silent:
      import rich.console  # imported only for a terminal
      import rich.progress

      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[metrics]}'),
        console=rich.console.Console(stderr=True),
        transient=transient,
      )
      self._task = self._bar.add_task(text, total=total, completed=done, metrics='')

  def __enter__(self):
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exception):
    if self._bar:
      self._bar.stop()

  def update(
    self, done: int, metrics: Mapping[str, float] | None = None, last: bool = False
  ) -> None:
    """Shows that `done` items are finished, with metrics if given.

    A log gets a line every `EVERY` seconds, and one of the last item.
    """
    if self._silent:
      return
    values = '  '.join(f'{k} {v:.4g}' for k, v in (metrics or {}).items())
    if self._bar:
      fields = {'metrics': values} if metrics else {}
      self._bar.update(self._task, completed=done, **fields)
      return
    now = time.monotonic()
    # The first item may wait for a compilation: what is left is estimated from those after it.
    start, first = self._begun = self._begun or (now, done)
    is_due = last or done == self._total or now - self._printed >= EVERY
    if not is_due or done == self._printed_done:
      return
    self._printed, self._printed_done = now, done
    parts = [f'{self._text} {done}', values]
    if self._total is not None:
      parts = [f'{self._text} {done}/{self._total}', values]
      if done > first or done == self._total:
        left = (self._total - done) * (now - start) / max(done - first, 1)
        parts.append(f'{left:.0f} s left')
    print('  '.join(p for p in parts if p), file=sys.stderr, flush=True)

  def print_line(self, line: str) -> None:
    """Prints a line above the bar."""
    if self._silent:
      return
    if self._bar:
      self._bar.console.print(line, highlight=False)
    else:
      print(line, file=sys.stderr, flush=True)
