"""Speed of building and reading a data set, compared with decoding its images alone.

  python -m experiments.performance.build_and_read [--triplets=4000] [--size=112]

Writes trees in CASIA-SURF's challenge layout (RENDERED faces, JPEG), prepares them as a user would,
and prints triplets per second of CPU time, of all processes together: decoding all images alone,
with the same decoder; building; opening with its check; reading; reading and decoding. The start
of the processes is separated from the work by building a quarter of the triplets too.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import geometry
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


def cpu_seconds(function) -> float:
  """User and system time of a call, with the processes that it starts and waits for."""

  def used() -> float:
    times = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in times)

  start = used()
  function()
  return used() - start


def build(source: pathlib.Path, data_dir: str) -> None:
  command = [sys.executable, '-m', 'flexfas_jax.prepare', '--dataset=casia_surf/challenge']
  command += [f'--source={source}', f'--data_dir={data_dir}']
  subprocess.run(command, check=True, capture_output=True)


def measure(root: pathlib.Path, data_dir: str, n: int) -> dict[str, float]:
  """Measures everything once: triplets per CPU second, and the seconds of the start."""
  files = sorted(map(str, (root / 'source').rglob('*.jpg')))
  decoding = cpu_seconds(lambda: decode_files(files)) / n
  building = cpu_seconds(lambda: build(root / 'source', data_dir))
  of_quarter = cpu_seconds(lambda: build(root / 'quarter', f'{data_dir}_quarter'))
  each = (building - of_quarter) / (n - n // 4)
  rates = {
    'decoding alone, with its checks': 1 / decoding,
    'building: the whole command of prepare': n / building,
    'building without its start': 1 / each,
    'seconds of the start': building - n * each,
    'building, of decoding alone': decoding * n / building,
    'building without its start, of decoding alone': decoding / each,
  }

  name = 'casia_surf/challenge:train'
  rates['opening, every record checked'] = n / cpu_seconds(
    lambda: sources.open_source(name, data_dir)
  )
  source = sources.open_source(name, data_dir, check=False)
  some = range(min(n, READ))
  rates['reading'] = len(some) / cpu_seconds(lambda: [source[i] for i in some])
  examples = [source[i] for i in some]
  seconds = cpu_seconds(lambda: [decode(example) for example in examples])
  rates['decoding alone (OpenCV)'] = len(some) / seconds
  rates['reading and decoding'] = len(some) / cpu_seconds(lambda: [decode(source[i]) for i in some])
  return rates


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--triplets', type=int, default=4000)
  parser.add_argument('--size', type=int, default=112)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  n = args.triplets
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    write_tree(root / 'source', n, args.size)
    write_tree(root / 'quarter', n // 4, args.size)
    found = [measure(root, f'{root}/out{k}', n) for k in range(args.repeats)]
  print(f'{n} triplets of {args.size} x {args.size} JPEG, by CPU second; median, lowest, highest')
  for what in found[0]:
    rates = [one[what] for one in found]
    form = ',.0f' if min(rates) > 20 else '.2f'
    spread = f'{min(rates):{form}} to {max(rates):{form}}'
    print(f'{what}: {statistics.median(rates):{form}} ({spread})')


if __name__ == '__main__':
  main()
