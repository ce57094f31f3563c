"""Kills a training with SIGKILL at random moments, some during a save, and compares its result.

  python -m experiments.reliability.kill --workdir=runs/kill --data_dir=prepared
  python -m experiments.reliability.kill --workdir=gs://bucket/kill --data_dir=prepared

Trains and evaluates twice with the main command: once uninterrupted, once killed and restarted
again and again. The losses of every step, the whole last state and the score files must be
bit-identical. 20 kills of 400 steps took about 20 minutes (by the times of the files) on two
CPU cores that other jobs shared.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import jax
from etils import epath

from experiments.reliability import runs

_HEADLINE = re.compile(r' training and \d+ val examples.*?(?:resuming at step (\d+))?\s*$')


_COMPILES = re.compile(r'^compiling the training step|^score val')
_TRAINS = re.compile(r'^train \d+/|^score val')


def saving(workdir: str) -> bool:
  """Whether a checkpoint is being written to a local workdir."""
  return any((epath.Path(workdir) / 'checkpoints').glob('*tmp*'))


def kill_once(start, workdir: str, begins: re.Pattern, seconds: float, within_a_save: bool) -> str:
  """Starts or resumes the run, kills it, and describes the moment.

  Args:
    start: starts it; called with the arguments of `Popen`.
    workdir: of the run.
    begins: a line of its messages.
    seconds: to wait after that line.
    within_a_save: wait for a save, which can be seen in a local workdir alone.
  """
  (process,) = start(stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
  resumed = None
  for line in process.stderr:
    if found := _HEADLINE.search(line):
      resumed = int(found[1] or 0)
    if resumed is not None and begins.search(line):
      break
    if 'error' in line:
      print(line, end='', flush=True)
  if resumed is None:
    raise SystemExit(f'the run ended with {process.wait()} before its first step')
  time.sleep(seconds)
  while within_a_save and process.poll() is None and not saving(workdir):
    time.sleep(0.0005)
  was_saving = not workdir.startswith('gs://') and saving(workdir)
  process.send_signal(signal.SIGKILL)
  process.stderr.read()
  code = process.wait()
  if code not in (0, -signal.SIGKILL):
    raise SystemExit(f'the run ended with {code}')
  how = 'killed' if code else 'finished before it was killed'
  return f'resumed at step {resumed}, {how} {seconds:.1f} s later' + (
    ', during a save' if was_saving else ''
  )


def main() -> int:
  """Returns 0 if nothing differs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', required=True, help='new; local or gs://')
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--steps', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  workdir, steps = arguments.workdir.rstrip('/'), arguments.steps
  with tempfile.TemporaryDirectory(prefix='compiled_') as cache:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = cache
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    uninterrupted, killed = f'{workdir}/uninterrupted', f'{workdir}/killed'
    begun = time.monotonic()
    (process,) = runs.start(uninterrupted, steps, arguments.data_dir, stdout=subprocess.DEVNULL)
    if process.wait():
      raise SystemExit(f'the uninterrupted run ended with {process.returncode}')
    print(f'uninterrupted: {steps} steps in {time.monotonic() - begun:.0f} s', flush=True)
    stepping = runs.stepping_seconds(uninterrupted)

    def start(**pipes):
      return runs.start(killed, steps, arguments.data_dir, **pipes)

    rng = random.Random(arguments.seed)
    for i in range(arguments.kills):
      in_save = i % 3 == 1 and not workdir.startswith('gs://')
      # Some before the first step; those after it let the run end at about the last kill.
      begins = _COMPILES if i % 4 == 3 else _TRAINS
      seconds = rng.uniform(0, 2.5 * stepping / arguments.kills)
      line = kill_once(start, killed, begins, seconds, in_save)
      print(f'{i + 1}: {line}', flush=True)
    (process,) = start(stdout=subprocess.DEVNULL)
    if process.wait():
      raise SystemExit(f'the last run ended with {process.returncode}')
  jax.config.update('jax_platforms', 'cpu')
  different = runs.compare(uninterrupted, killed, steps)
  print(f'losses of {steps} steps, last state, score files: different: {different or "none"}')
  return int(bool(different))


if __name__ == '__main__':
  sys.exit(main())
