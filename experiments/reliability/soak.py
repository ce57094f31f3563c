"""Disturbs a training of two processes at random for an hour, and compares its results.

  python -m experiments.reliability.soak --folder=runs/soak --data_dir=prepared --minutes=60 \
    --log=experiments/reliability/soak.log

Trains once undisturbed. Then trains the same again and again, each time disturbed until its end:
SIGTERM, SIGKILL, SIGSTOP and SIGCONT, a full disk, jumps of the clocks, a second training in the
same workdir. The two processes are restarted by the rule of `launch/slurm.sbatch`: not after the
exit codes 0, 2, 3 and 4; after 143 and crashes. (After 4 because of the disk that this script
filled, it frees the disk and starts again, as the message asks.) In the end the losses of every
step, the whole last state and the score files must be bit-identical.

The workdir is on a disk of 64 MB of its own, which requires root; otherwise a limit on the size of
files takes the place of the full disk. Clocks jump through `clock_shift.c`, which requires `cc`;
the second process is a day behind from the start.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

import jax

from experiments.reliability import runs

ENDS = (0, 2, 3, 4)  # exit codes that launch/slurm.sbatch does not restart after
PATIENCE = 20  # seconds in which the other process may end by itself; 60 in launch/slurm.sbatch
MEGABYTES = 64


class Log:
  """Lines with the time since the start, on the terminal and in a file."""

  def __init__(self, path: pathlib.Path | None):
    self._file = path.open('w') if path else None
    self._start = time.monotonic()

  def __call__(self, line: str) -> None:
    """Writes a line."""
    line = f'{datetime.timedelta(seconds=int(time.monotonic() - self._start))}  {line}'
    print(line, flush=True)
    if self._file:
      print(line, file=self._file, flush=True)


class Disk:
  """A small disk of its own, where mounting is allowed; else a folder and a limit.

  A context manager, which unmounts it however the block ends.

  Args:
    folder: where it is mounted.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={MEGABYTES}m', 'tmpfs', str(folder)]
    self.is_mounted = not subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    self._filling = folder / 'filling'

  def fill(self, processes) -> None:
    """Leaves no space, or lets no file grow."""
    if not self.is_mounted:
      for process in processes:
        _limit(process, 0)
      return
    with contextlib.suppress(OSError), self._filling.open('wb', buffering=0) as file:
      while True:
        file.write(bytes(4096))

  def free(self, processes) -> None:
    """Undoes `fill`."""
    self._filling.unlink(missing_ok=True)
    for process in processes if not self.is_mounted else ():
      _limit(process, resource.RLIM_INFINITY)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self.is_mounted:
      unmount(self.folder)
      self.is_mounted = False


def unmount(folder: pathlib.Path) -> None:
  """Unmounts a disk; one that a process still uses vanishes when that process ends.

  Raises:
    SystemExit: it cannot be unmounted; the message has the command to do so.
  """
  for command in (['umount', str(folder)], ['umount', '--lazy', str(folder)]):
    if not subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
      return
  raise SystemExit(f'{folder} is still mounted; unmount it: sudo umount --lazy {folder}')


def _limit(process: subprocess.Popen, size: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Soak:
  """A training that is disturbed and restarted.

  Args:
    workdir, steps, data_dir: of the training.
    disk: that holds the workdir.
    folder: for output and clocks.
    gap: mean seconds between two disturbances.
    library: that shifts clocks; '' leaves them alone.
    rng: of all that happens.
    log: called with a line.
  """

  def __init__(self, workdir, steps, data_dir, disk, folder, gap, library, rng, log):
    self._workdir, self._steps, self._data_dir = workdir, steps, data_dir
    self._disk, self._folder, self._rng, self._log = disk, folder, rng, log
    self._gap = gap
    self._clocks = [folder / f'clock{i}' for i in range(2)]
    self._environments = ({}, {})
    if library:
      self._environments = tuple(
        {'LD_PRELOAD': library, 'CLOCK_SHIFT': str(clock)} for clock in self._clocks
      )
      for clock, seconds in zip(self._clocks, (0, -86400), strict=True):
        clock.write_bytes(_shift(seconds))
    self._kinds = ['SIGTERM', 'SIGTERM', 'SIGKILL', 'SIGSTOP', 'SIGSTOP', 'full disk', 'second']
    self._kinds += ['clock', 'clock'] if library else []
    self.counts = dict.fromkeys(['starts', *self._kinds], 0)

  def run(self) -> None:
    """Trains to the end, disturbed.

    Raises:
      SystemExit: the training ended with an error that the disturbances do not explain.
    """
    while True:
      self.counts['starts'] += 1
      begun = time.monotonic()
      filled = threading.Event()
      code = self._run_once(filled)
      self._log(f'ended with {code} after {time.monotonic() - begun:.0f} s')
      if code == 0:
        return
      if code in ENDS and not (code == 4 and filled.is_set()):
        raise SystemExit(f'exit code {code} without a reason; see {self._folder}/output.log')

  def _run_once(self, filled: threading.Event) -> int:
    """Starts both processes, disturbs them, and returns the highest exit code, as srun does."""
    with (self._folder / 'output.log').open('a') as output:
      pair = runs.start(
        self._workdir,
        self._steps,
        self._data_dir,
        processes=2,
        environments=self._environments,
        stdout=output,
        stderr=output,
      )
      try:
        self._wait(pair, self._rng.uniform(0, 2 * self._gap))  # also while it starts
        while all(process.poll() is None for process in pair):
          self._disturb(pair, self._rng.choice(self._kinds), filled, output)
          self._wait(pair, self._rng.expovariate(1 / self._gap))
      except BaseException:
        for process in pair:
          process.kill()
          process.wait()
        raise
      end = time.monotonic() + PATIENCE
      while any(process.poll() is None for process in pair) and time.monotonic() < end:
        time.sleep(0.1)
      for process in pair:
        if process.poll() is None:
          self._log('the other process was killed: it had not ended')
          process.kill()
    codes = [process.wait() for process in pair]
    return max(128 - code if code < 0 else code for code in codes)

  def _wait(self, pair, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(process.poll() is None for process in pair):
      time.sleep(0.05)

  def _disturb(self, pair, kind: str, filled: threading.Event, output) -> None:
    """Does what `kind` names to one process, or to both."""
    which, rng = self._rng.randrange(2), self._rng
    process = pair[which]
    self.counts[kind] += 1
    if kind in ('SIGTERM', 'SIGKILL'):
      self._log(f'{kind} to process {which}, {self._progress()}')
      process.send_signal(signal.Signals[kind])
      self._wait(pair, 30)
    elif kind == 'SIGSTOP':
      seconds = rng.uniform(0.2, 15)
      self._log(f'process {which} stopped for {seconds:.1f} s, {self._progress()}')
      process.send_signal(signal.SIGSTOP)
      time.sleep(seconds)
      process.send_signal(signal.SIGCONT)
    elif kind == 'full disk':
      seconds = rng.uniform(0.5, 8)
      self._log(f'disk full for {seconds:.1f} s, {self._progress()}')
      filled.set()
      self._disk.fill(pair)
      self._wait(pair, seconds)
      self._disk.free(pair)
    elif kind == 'clock':
      seconds = rng.choice([-1, 1]) * 10 ** rng.uniform(0, 8)
      self._log(f'clock of process {which} set to {seconds:+.0f} s, {self._progress()}')
      self._set_clock(which, seconds)
    else:
      self._start_second(pair, output)

  def _start_second(self, pair, output) -> None:
    """A second training in a workdir whose lock is held must end with 4."""
    if not (pathlib.Path(self._workdir) / 'training.lock').exists():
      return
    self._log(f'a second training is started, {self._progress()}')
    (second,) = runs.start(self._workdir, self._steps, self._data_dir, stdout=output, stderr=output)
    try:
      while second.poll() is None and all(process.poll() is None for process in pair):
        time.sleep(0.01)
    finally:
      ended = second.poll() is not None
      if not ended:  # it would get the lock now, and train alone, or keep the disk in use
        second.kill()
        second.wait()
    if ended and second.returncode != 4:
      raise SystemExit(f'the second training ended with {second.returncode}, not 4')

  def _set_clock(self, which: int, seconds: float) -> None:
    with self._clocks[which].open('r+b') as file:  # in place: the process has it mapped
      file.write(_shift(seconds))

  def _progress(self) -> str:
    with contextlib.suppress(OSError, ValueError):
      return f'step {max(runs.losses(self._workdir), default=0)}'
    return 'step unknown'


def _shift(seconds: float) -> bytes:
  return struct.pack('=q', int(seconds * 1e9))


def _build_clock_shift(folder: pathlib.Path) -> str:
  """The path of the library that shifts clocks; '' without a compiler."""
  library, source = folder / 'clock_shift.so', pathlib.Path(__file__).with_name('clock_shift.c')
  if not shutil.which('cc'):
    return ''
  subprocess.run(['cc', '-shared', '-fPIC', '-O2', '-o', library, source, '-ldl'], check=True)
  return str(library)


def main() -> int:
  """Returns 0 if nothing differs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', type=pathlib.Path, required=True, help='is deleted first')
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--minutes', type=float, default=60.0, help='after which no training begins')
  parser.add_argument('--steps', type=int, default=2000, help='of each training')
  parser.add_argument('--log', type=pathlib.Path)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  for number in (signal.SIGTERM, signal.SIGHUP):  # an exit that unmounts the disk
    signal.signal(number, lambda number, _: sys.exit(128 + number))
  folder, steps = arguments.folder.absolute(), arguments.steps
  if os.path.ismount(folder / 'disk'):  # left by a run that was killed
    unmount(folder / 'disk')
  if folder.exists():
    shutil.rmtree(folder)
  folder.mkdir(parents=True)
  data_dir = os.path.abspath(arguments.data_dir)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'compiled')
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  jax.config.update('jax_platforms', 'cpu')
  log, rng = Log(arguments.log), random.Random(arguments.seed)
  undisturbed = str(folder / 'undisturbed')
  begun = time.monotonic()
  with (folder / 'output.log').open('w') as output:
    pair = runs.start(undisturbed, steps, data_dir, processes=2, stdout=output, stderr=output)
    if any(process.wait() for process in pair):
      raise SystemExit(f'the undisturbed training failed; see {folder}/output.log')
  whole = time.monotonic() - begun
  log(f'undisturbed: {steps} steps in {whole:.0f} s')
  library = _build_clock_shift(folder)
  if not library:
    log('no compiler: the clocks do not jump')
  begun, totals, failed = time.monotonic(), {}, 0
  trainings = 0
  with Disk(folder / 'disk') as disk:
    log('the disk has 64 MB' if disk.is_mounted else 'no own disk: files cannot grow instead')
    while not trainings or time.monotonic() - begun < 60 * arguments.minutes:
      trainings += 1
      workdir = str(disk.folder / f'training{trainings}')
      log(f'training {trainings}')
      soak = Soak(workdir, steps, data_dir, disk, folder, max(whole / 12, 5), library, rng, log)
      soak.run()
      different = runs.compare(undisturbed, workdir, steps)
      failed += bool(different)
      log(f'training {trainings}: losses, last state, scores: different: {different or "none"}')
      totals = {kind: totals.get(kind, 0) + n for kind, n in soak.counts.items()}
      shutil.rmtree(workdir)
  log(f'{trainings} trainings, {failed} with a difference; ' + str(totals).strip('{}'))
  return int(bool(failed))


if __name__ == '__main__':
  sys.exit(main())
