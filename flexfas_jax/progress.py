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
  if sys.stderr.isatty():
    import rich.console  # imported only for a terminal
    import rich.progress

    columns = (
      rich.progress.TextColumn('{task.description}', markup=False),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=transient) as bar:
      yield from bar.track(items, total=total, description=text)
    return
  if transient:
    yield from items
    return
  done, printed, of = 0, time.monotonic(), f' of {total}' if total else ''
  for done, item in enumerate(items, 1):
    yield item
    if time.monotonic() - printed >= EVERY and done != total:
      printed = time.monotonic()
      print(f'{text}: {done}{of}', file=sys.stderr, flush=True)
  if done:
    print(f'{text}: {done}{of}', file=sys.stderr, flush=True)


class Progress:
  """A bar with the latest metrics and the remaining time; plain lines without a terminal.

  Args:
    text: shown before the numbers.
    total: number of items.
    done: of these, at the start.
    every: minimum seconds between plain lines.
    silent: show nothing, as in all processes but the first.
  """

  def __init__(
    self, text: str, total: int, done: int = 0, every: float = EVERY, silent: bool = False
  ):
    self._silent = silent
    self._text, self._total, self._done, self._every = text, total, done, every
    self._start, self._first = time.monotonic(), done
    self._printed, self._printed_done = self._start, -1
    self._bar = None
    if sys.stderr.isatty() and not silent:
      import rich.console  # imported only for a terminal
      import rich.progress

      self._bar = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}'),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn('{task.fields[metrics]}'),
        console=rich.console.Console(stderr=True),
      )
      self._task = self._bar.add_task(text, total=total, completed=done, metrics='')

  def __enter__(self):
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exception):
    if self._bar:
      self._bar.stop()

  def update(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
    """Shows that `done` of `total` items are finished, with metrics if given."""
    if self._silent:
      return
    values = '  '.join(f'{k} {v:.4g}' for k, v in (metrics or {}).items())
    if self._bar:
      fields = {'metrics': values} if metrics else {}
      self._bar.update(self._task, completed=done, **fields)
      return
    now = time.monotonic()
    if now - self._printed < self._every and done < self._total or done == self._printed_done:
      return
    self._printed, self._printed_done = now, done
    rate = (done - self._first) / max(now - self._start, 1e-9)
    left = (self._total - done) / rate if rate else float('inf')
    parts = [f'{self._text} {done}/{self._total}', values, f'{left:.0f} s left']
    print('  '.join(p for p in parts if p), file=sys.stderr, flush=True)

  def print_line(self, line: str) -> None:
    """Prints a line above the bar."""
    if self._silent:
      return
    if self._bar:
      self._bar.console.print(line, highlight=False)
    else:
      print(line, file=sys.stderr, flush=True)
