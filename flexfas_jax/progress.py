"""How far a long piece of work is: a bar on a terminal, a few plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping


def show_progress(items: Iterable, total: int | None, text: str, passing: bool = False) -> Iterator:
  """Passes items on and shows on stderr how far they are.

  Args:
    items: anything.
    total: how many there will be, None when unknown.
    text: what is being done, shown before the figures.
    passing: leave no trace: nothing in a log, and no bar on a terminal when it is over.
  """
  if sys.stderr.isatty():
    import rich.console  # only a terminal pays for it
    import rich.progress

    columns = (
      rich.progress.TextColumn('{task.description}', markup=False),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=passing) as bar:
      yield from bar.track(items, total=total, description=text)
    return
  if passing:
    yield from items
    return
  step = max(1, (total or 10_000) // 10)
  for done, item in enumerate(items, 1):
    yield item
    if done % step == 0 or done == total:
      print(f'{text}: {done}' + (f' of {total}' if total else ''), file=sys.stderr, flush=True)


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
      import rich.console  # only a terminal pays for it
      import rich.progress

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
