"""Mutates images, lists, manifests and prepared data, and counts the results of reading them.

  python -m experiments.reliability.fuzz_data --mutations=2000
  python -m experiments.reliability.fuzz_data --mutations=500 --only=png,shard --seed=1

  jpeg, png   of several encoders, through the check of lint, prepare and predict
  list        three paths and a label, or a header: through lint
  manifest    a CSV of data/manifest and its images: through lint, the builder's plan, and builds
  shard       a prepared set: ArrayRecord and the files beside it, opened and read whole

Each mutation must be refused with a message, or be read as it is. The run fails (exit code 1) if
another exception is raised, if wrong data is accepted, or if memory grows by 200 MB. A JPEG has no
checksums: files that are accepted with more than 1 % wrong pixels are counted by kind of mutation,
next to the rates of damaged_jpegs. The same seed makes the same mutations.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.reliability import fuzz_images, fuzz_rows, fuzz_shards
from flexfas_jax.input_pipeline import sources
from flexfas_jax.progress import show_progress

MOST_GROWTH = 200  # MB
KINDS = ('jpeg', 'png', 'list', 'manifest', 'shard')
_WARM_UP = 20  # mutations that load and cache what is loaded once
_SHOWN = 8  # of tracebacks, and of wrong acceptances


class Outcome(NamedTuple):
  """What became of the mutations of one kind."""

  endings: collections.Counter  # {(how, what): n}
  lines: list[str]  # further figures
  bad: list[str]  # what must not be, in words
  growth: int  # of memory, MB
  seconds: float

  def count(self, how: str) -> int:
    """How many ended so."""
    return sum(n for (one, _), n in self.endings.items() if one == how)


def fuzz(kind: str, n: int, seed: int = 0, data_dir: str | None = None) -> Outcome:
  """Runs n mutations of a kind.

  Args:
    kind: of `KINDS`.
    n: mutations.
    seed: of the mutations.
    data_dir: of the prepared rendered_faces/surf_like_tiny; None: prepare it first.
  """
  rng = random.Random(f'{seed} {kind}')
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    scratch = pathlib.Path(folder)
    if data_dir is None and kind in ('manifest', 'shard'):
      data_dir = str(scratch / 'prepared')
      sources.prepare(f'rendered_faces/{fuzz_shards.CONFIG}', data_dir)
    mutate = _make(kind, seed, data_dir, scratch)
    stack.callback(getattr(mutate, 'close', lambda: None))
    for _ in range(min(n, _WARM_UP)):
      _ending(mutate, rng)
    before, start = _memory(), time.monotonic()
    endings = collections.Counter()
    for _ in show_progress(range(n), n, kind):
      endings[_ending(mutate, rng)] += 1
    grown = max(_memory() - before, getattr(mutate, 'growth', 0) >> 20)
    bad = mutate.bad()
    bad += [f'{count} {how}: {what}' for (how, what), count in endings.most_common()
            if how in ('traceback', 'wrong')]  # fmt: skip
    if grown >= MOST_GROWTH:
      bad.append(f'memory grows by {grown} MB')
    return Outcome(endings, mutate.lines(), bad, grown, time.monotonic() - start)


def _make(kind: str, seed: int, data_dir: str | None, scratch: pathlib.Path) -> Any:
  if kind == 'jpeg':
    return fuzz_images.Jpegs(seed)
  if kind == 'png':
    return fuzz_images.Pngs(seed)
  if kind == 'list':
    return fuzz_rows.Lists(scratch)
  if kind == 'manifest':
    return fuzz_rows.Manifests(data_dir, scratch)
  return fuzz_shards.Shards(data_dir, scratch / 'copy')


def _ending(mutate: Callable, rng: random.Random) -> tuple[str, str]:
  """How one mutation ends: ('accepted', 'refused', 'another', ..., what)."""
  try:
    with _quiet():
      return mutate(rng)
  except Exception as error:
    at = traceback.extract_tb(error.__traceback__)[-1]
    place = f'{pathlib.Path(at.filename).name}:{at.lineno}'
    return 'traceback', f'{type(error).__name__} at {place}: {error}'[:160]


@contextlib.contextmanager
def _quiet():
  """Nothing is printed, by decoders in C either."""
  sys.stderr.flush()
  kept = os.dup(2)
  with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing):
    os.dup2(nothing.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(kept, 2)
      os.close(kept)


def _memory() -> int:
  """The most memory that this process has had, in MB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--mutations', type=int, default=2000, metavar='N', help='of each kind')
  parser.add_argument('--only', default=','.join(KINDS), metavar='KIND,...')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--data_dir', help='of the prepared rendered_faces/surf_like_tiny')
  args = parser.parse_args(argv)
  kinds = args.only.split(',')
  if unknown := set(kinds) - set(KINDS):
    parser.error(f'--only={args.only}: {sorted(unknown)[0]!r} is none of {", ".join(KINDS)}')
  found = {kind: fuzz(kind, args.mutations, args.seed, args.data_dir) for kind in kinds}
  hows = ('accepted', 'refused', 'another', 'undetectable', 'traceback', 'wrong')
  print(f'{"":10}' + ''.join(f'{how:>14}' for how in hows) + '  memory, MB  seconds')
  for kind, outcome in found.items():
    counts = ''.join(f'{outcome.count(how):14,}' for how in hows)
    print(f'{kind:10}{counts}{outcome.growth:+12}{outcome.seconds:9.0f}')
  for kind, outcome in found.items():
    print(f'\n{kind}: refused by')
    for (how, what), n in outcome.endings.most_common():
      if how in ('refused', 'another'):
        note = ' (another whole file is accepted)' if how == 'another' else ''
        print(f'  {n:6,} {what}{note}')
    for line in outcome.lines:
      print(f'  {line}')
    for line in outcome.bad[:_SHOWN]:
      print(f'  BAD: {line}')
  return int(any(outcome.bad for outcome in found.values()))


if __name__ == '__main__':
  sys.exit(main())
