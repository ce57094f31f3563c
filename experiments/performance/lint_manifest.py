"""Time and memory of lint for a manifest of a million rows.

  python -m experiments.performance.lint_manifest --rows=1000000

Prints rows, seconds and peak MB of the real command, for a manifest without findings, and for two
of half the length with the same rows, named train and val, where every row is a leak.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from flexfas_jax import schema

FRAMES, VIDEOS = 10, 10  # per video, per subject


def write(path: pathlib.Path, rows: int, split: str, first: int = 0) -> None:
  """Writes a typical manifest: subjects, videos, three paths, a few more columns."""
  with path.open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(
      (*schema.MODALITIES, 'id', 'label', 'subject', 'video', 'frame', 'split', 'device')
    )
    for row in range(first, first + rows):
      video, frame = divmod(row, FRAMES)
      subject, clip = divmod(video, VIDEOS)
      folder = f'faces/client_{subject:06}/session_1/clip_{clip:02}'
      label = 'bona_fide' if clip % 3 == 0 else 'attack'
      paths = (f'{folder}/{m}/{frame:05}.png' for m in ('color', 'depth', 'ir'))
      name = f'{subject:06}/{clip:02}/{frame:05}'
      cells = f'client_{subject:06}', f'clip_{clip:02}', f'{frame:05}', split, 'camera_1'
      writer.writerow((*paths, name, label, *cells))


def measure(paths: list[pathlib.Path]) -> tuple[int, float, float, float]:
  """Runs the command; returns exit code, seconds, CPU seconds and peak MB."""
  command = [sys.executable, '-m', 'flexfas_jax.lint', *map(str, paths)]
  start = time.perf_counter()
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(process.pid, 0)  # the peak of this process alone
  seconds = time.perf_counter() - start
  process.returncode = os.waitstatus_to_exitcode(status)
  return process.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=1_000_000)
  rows = parser.parse_args().rows
  with tempfile.TemporaryDirectory() as folder:
    sound = pathlib.Path(folder, 'sound.csv')
    write(sound, rows, 'train')
    train, val = pathlib.Path(folder, 'half_train.csv'), pathlib.Path(folder, 'half_val.csv')
    write(train, rows // 2, 'train')
    write(val, rows // 2, 'val')
    for text, paths in (('nothing wrong', [sound]), ('every row leaks', [train, val])):
      size = sum(path.stat().st_size for path in paths) / 2**20
      code, seconds, busy, peak = measure(paths)
      print(
        f'{text}: {rows:,} rows, {size:.0f} MB of text, exit {code}, '
        f'{seconds:.1f} s ({busy:.1f} s of one core), peak {peak:.0f} MB'
      )


if __name__ == '__main__':
  main()
