"""How far a long piece of work is: a bar on a terminal, a few plain lines in a log."""

import sys
from collections.abc import Iterable, Iterator


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
