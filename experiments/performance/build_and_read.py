"""Speed of building and reading a data set, compared with decoding its images alone.

  python -m experiments.performance.build_and_read [--triplets=6000] [--size=112]

Writes a tree in CASIA-SURF's challenge layout (RENDERED faces, JPEG), prepares it as a user would,
and prints triplets per second: decoding all images alone, with as many processes and the same
decoder; building; opening with its check; reading; reading and decoding.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import geometry
from flexfas_jax.images.worker_pool import Workers, count_cores
from flexfas_jax.input_pipeline import sources

DISTINCT = 60  # triplets; the tree repeats them under other names
FRAMES = 10  # per video
READ = 2000  # triplets, by one thread


def write_tree(root: pathlib.Path, triplets: int, size: int) -> None:
  """Writes bona fide videos and videos of one attack, 10 frames each."""
  from tests.miniatures import faces

  encoded = [
    {m: faces.encode(i) for m, i in faces.triplet('cut_photo' if k % 2 else '', k, k, size).items()}
    for k in range(DISTINCT)
  ]
  for number in range(triplets):
    video, frame = divmod(number, FRAMES)
    subject, attack = divmod(video, 2)
    part, clip = ('fake_part', '04_en_b') if attack else ('real_part', 'real')
    folder = root / 'Training' / part / f'CLKJ_AS{subject:04d}' / f'{clip}.rssdk'
    for modality, kind in (('rgb', 'color'), ('depth', 'depth'), ('ir', 'ir')):
      path = folder / kind / f'{frame + 1}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded[(2 * subject + attack) % DISTINCT][modality])


def decode_files(paths: list[str]) -> int:
  """Only reads and decodes images, as the checks do."""
  for path in paths:
    image_checks.decode(pathlib.Path(path).read_bytes())
  return len(paths)


def decode(example: dict) -> list:
  """The images of a triplet, decoded with OpenCV as in training."""
  return [geometry.decode(example[m], m, example['id']) for m in ('rgb', 'depth', 'ir')]


def timed(function) -> float:
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def measure(root: pathlib.Path, data_dir: str, n: int) -> dict[str, float]:
  """Measures everything once: triplets per second."""
  # Worker processes cannot import from __main__.
  from experiments.performance.build_and_read import decode_files as decode_alone

  files = sorted(map(str, (root / 'source').rglob('*.jpg')))
  tasks = [files[i : i + 48] for i in range(0, len(files), 48)]
  rates = {}
  with Workers() as workers:
    list(workers.map(len, [[1]] * 8))  # processes have started
    seconds = timed(lambda: list(workers.map(decode_alone, tasks)))
  rates[f'decoding alone (with its checks, {count_cores()} processes)'] = n / seconds

  command = [sys.executable, '-m', 'flexfas_jax.prepare', '--dataset=casia_surf/challenge']
  command += [f'--source={root}/source', f'--data_dir={data_dir}']
  seconds = timed(lambda: subprocess.run(command, check=True, capture_output=True))
  rates['building: the whole command of prepare'] = n / seconds

  name = 'casia_surf/challenge:train'
  seconds = timed(lambda: sources.open_source(name, data_dir))
  rates['opening, every record checked'] = n / seconds
  source = sources.open_source(name, data_dir, check=False)
  some = range(min(n, READ))
  rates['reading, one thread'] = len(some) / timed(lambda: [source[i] for i in some])
  examples = [source[i] for i in some]
  seconds = timed(lambda: [decode(example) for example in examples])
  rates['decoding alone (OpenCV, one thread)'] = len(some) / seconds
  seconds = timed(lambda: [decode(source[i]) for i in some])
  rates['reading and decoding, one thread'] = len(some) / seconds
  return rates


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--triplets', type=int, default=6000)
  parser.add_argument('--size', type=int, default=112)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  n = args.triplets
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    write_tree(root / 'source', n, args.size)
    found = [measure(root, f'{root}/out{k}', n) for k in range(args.repeats)]
  print(
    f'{n} triplets of {args.size} x {args.size} JPEG; median of {args.repeats}, lowest, highest'
  )
  for what in found[0]:
    rates = [one[what] for one in found]
    spread = f'{min(rates):,.0f} to {max(rates):,.0f}'
    print(f'{what}: {statistics.median(rates):,.0f} triplets/s ({spread})')


if __name__ == '__main__':
  main()
