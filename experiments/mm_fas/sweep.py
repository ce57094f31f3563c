"""Trains what a plan has, each run once, however often it is stopped and started again."""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import time
from collections.abc import Sequence

from experiments.mm_fas.plan import Run
from flexfas_jax.errors import STOPPED, FlexfasError, StateError

_LOOK = 1.0  # seconds between looks at what others train


class Interrupted(FlexfasError):
  """SIGTERM or Ctrl-C: what was running has saved."""

  exit_code = STOPPED


def trained(run: Run) -> bool:
  """Whether a run has been trained to its end.

  Raises:
    StateError: by another command.
  """
  file = run.folder / 'trained_by.json'
  if not file.exists():
    return False
  was, now = json.loads(file.read_text()), list(run.command[1:])
  if was != now:
    other = ' '.join(sorted(set(was) - set(now)) or ['without ', *sorted(set(now) - set(was))])
    raise StateError(
      f'{run.folder} was trained otherwise: {other}; name another --workdir, or give the same flags'
    )
  return True


def train(runs: Sequence[Run], at_once: int, tell=print) -> None:
  """Trains runs, several at a time, each on a core of its own if there is one for each.

  Args:
    runs: donors before those that start from them.
    at_once: how many.
    tell: told of each that ends.

  Raises:
    StateError: a training failed; its log is named.
    Interrupted: what was running has saved, and the same command goes on.
  """
  waiting = [run for run in runs if not trained(run)]
  tell(f'{len(runs)} runs, {len(runs) - len(waiting)} of them trained already')
  cores = queue.Queue()
  free = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  for i in range(at_once):
    cores.put(free[i] if at_once <= len(free) and at_once > 1 else None)
  by_name, going, stop = {run.name: run for run in runs}, [], []

  def end(*_) -> None:
    stop.append(True)
    for process in list(going):
      process.terminate()

  def one(run: Run) -> str:
    while not stop:
      if not run.donor or trained(by_name[run.donor]):
        core = cores.get()
        try:
          if (told := _train_one(run, core, going, stop)) is not None:
            return told
        finally:
          cores.put(core)
      time.sleep(_LOOK)  # for the donor, or whoever trains this one; who waits holds no core
    return ''

  before = {s: signal.signal(s, end) for s in (signal.SIGTERM, signal.SIGINT)}
  try:
    with concurrent.futures.ThreadPoolExecutor(max(1, len(waiting))) as pool:
      running = [pool.submit(one, run) for run in waiting]
      try:
        for i, done in enumerate(concurrent.futures.as_completed(running), 1):
          if told := done.result():
            tell(f'{len(runs) - len(waiting) + i}/{len(runs)}  {told}')
      except BaseException:
        end()
        raise
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if stop:
    raise Interrupted(
      f'stopped with {sum(map(trained, runs))} of {len(runs)} runs trained; the same command '
      'goes on'
    )


def _train_one(run: Run, core: int | None, going: list, stop: list) -> str | None:
  """What is to be told of a run, '' if it was stopped; None: another process trains it."""
  run.folder.parent.mkdir(parents=True, exist_ok=True)
  with open(run.folder.parent / f'{run.name}.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
    except OSError:
      return None
    if stop:
      return ''
    if trained(run):
      return f'{run.name}: trained by another process'
    start = time.perf_counter()
    log = run.folder.parent / f'{run.name}.log'
    with log.open('a') as out:
      process = subprocess.Popen(run.command, stdout=out, stderr=out, env=_environment(run))
      going.append(process)
      if core is not None:
        with contextlib.suppress(OSError):  # it is over already
          os.sched_setaffinity(process.pid, {core})
      if stop:
        process.terminate()
      code = process.wait()
      going.remove(process)
    if stop and code in (STOPPED, 130, -signal.SIGTERM, -signal.SIGINT):
      return ''
    if code:
      raise StateError(f'{run.name} ended with {code}; see the end of {log}')
    seconds = time.perf_counter() - start
    marker = run.folder / 'trained_by.json'
    marker.with_suffix('.tmp').write_text(json.dumps(run.command[1:], indent=1) + '\n')
    marker.with_suffix('.tmp').rename(marker)
    return f'{run.name}: {seconds:.0f} s'


def _environment(run: Run) -> dict[str, str]:
  """Members are the same program: one compiles it, and the others find it."""
  return {'JAX_COMPILATION_CACHE_DIR': str(run.folder.parent / 'compiled'), **os.environ}
