"""Trains the runs of a plan, each once, also over interruptions and several processes."""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from experiments.mm_fas.plan import Run
from flexfas_jax.errors import STOPPED, FlexfasError, StateError

_POLL_SECONDS = 1.0  # while other processes train


class Interrupted(FlexfasError):
  """SIGTERM or Ctrl-C; the running trainings have saved."""

  exit_code = STOPPED


def trained(run: Run) -> bool:
  """Whether a run has been trained to its end.

  Raises:
    StateError: another command has trained it.
  """
  file = run.folder / 'trained_by.json'
  if not file.exists():
    return False
  earlier, now = json.loads(file.read_text()), list(run.command[1:])
  if earlier != now:
    different = sorted(set(earlier) - set(now)) or ['without', *sorted(set(now) - set(earlier))]
    raise StateError(
      f'{run.folder} was trained with other flags: {" ".join(different)}; name another --workdir, '
      'or give the same flags'
    )
  return True


def train(runs: Sequence[Run], at_once: int, log=print) -> None:
  """Trains runs, several at a time, each on its own core if there are enough.

  Args:
    runs: a pretraining run before those that start from it.
    at_once: number of trainings at a time.
    log: called with a line for each run that ends.

  Raises:
    StateError: a training failed; the message names its log.
    Interrupted: the running trainings have saved; the same command resumes.
  """
  untrained = [run for run in runs if not trained(run)]
  n_trained = len(runs) - len(untrained)
  log(f'{len(runs)} runs, {n_trained} of them trained already')
  cores = queue.Queue()
  free = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  for i in range(at_once):
    cores.put(free[i] if at_once <= len(free) and at_once > 1 else None)
  by_name, processes, stop = {run.name: run for run in runs}, [], threading.Event()

  def terminate(*_) -> None:
    stop.set()
    for process in list(processes):
      process.terminate()

  def train_when_ready(run: Run) -> str:
    while not stop.is_set():
      if not run.pretrained or trained(by_name[run.pretrained]):
        core = cores.get()
        try:
          if (line := _train_one(run, core, processes, stop)) is not None:
            return line
        finally:
          cores.put(core)
      # Wait for the pretraining, or for the process that trains this run; hold no core meanwhile.
      time.sleep(_POLL_SECONDS)
    return ''

  handlers = {s: signal.signal(s, terminate) for s in (signal.SIGTERM, signal.SIGINT)}
  try:
    with concurrent.futures.ThreadPoolExecutor(max(1, len(untrained))) as pool:
      futures = [pool.submit(train_when_ready, run) for run in untrained]
      try:
        for i, future in enumerate(concurrent.futures.as_completed(futures), n_trained + 1):
          if line := future.result():
            log(f'{i}/{len(runs)}  {line}')
      except BaseException:
        terminate()
        raise
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
  if stop.is_set():
    raise Interrupted(
      f'stopped with {sum(map(trained, runs))} of {len(runs)} runs trained; rerun the same command '
      'to resume'
    )


def _train_one(run: Run, core: int | None, processes: list, stop: threading.Event) -> str | None:
  """Trains a run: a line for the log, '' if it was stopped; None: another process trains it."""
  run.folder.parent.mkdir(parents=True, exist_ok=True)
  with open(run.folder.parent / f'{run.name}.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the process, however it ends
    except OSError:
      return None
    if stop.is_set():
      return ''
    if trained(run):
      return f'{run.name}: trained by another process'
    start = time.perf_counter()
    log = run.folder.parent / f'{run.name}.log'
    with log.open('a') as out:
      process = subprocess.Popen(run.command, stdout=out, stderr=out, env=_environment(run))
      processes.append(process)
      if core is not None:
        with contextlib.suppress(OSError):  # the process has ended
          os.sched_setaffinity(process.pid, {core})
      if stop.is_set():
        process.terminate()
      code = process.wait()
      processes.remove(process)
    if stop.is_set() and code in (STOPPED, 130, -signal.SIGTERM, -signal.SIGINT):
      return ''
    if code:
      raise StateError(f'{run.name} ended with {code}; see the end of {log}')
    seconds = time.perf_counter() - start
    marker = run.folder / 'trained_by.json'
    marker.with_suffix('.tmp').write_text(json.dumps(run.command[1:], indent=1) + '\n')
    marker.with_suffix('.tmp').rename(marker)
    return f'{run.name}: {seconds:.0f} s'


def _environment(run: Run) -> dict[str, str]:
  """Shares the compilation cache: members are the same program, so one compiles it for all."""
  return {'JAX_COMPILATION_CACHE_DIR': str(run.folder.parent / 'compiled'), **os.environ}
