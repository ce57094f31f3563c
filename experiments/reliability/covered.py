"""Attacks with covered sensors: acceptance by default, and where absence is allowed.

  python -m experiments.reliability.covered runs/vit_fusion/bundle --data_dir=prepared

Takes 60 attacks of a prepared set, evenly spread over the attack types and within each, and
replaces images: by a constant 0 (a covered sensor), or by noise of 0 to 3 grey levels (a dark one).
Each sample is decided with `allow_absent` empty, and with all replaced modalities in it. A quarter
of a minute on two CPU cores, which with README's model prints (bona_fide/attack/fta, by default and
allowed):

  replaced                 surf_like:test         cefa_like:test
  nothing                  1/59/0     1/59/0      2/56/2     2/56/2
  depth and ir constant    0/0/60     9/51/0      0/0/60    32/28/0
  depth and ir dark noise  0/0/60     9/51/0      0/0/60    32/28/0
  depth constant           0/0/60     0/60/0      0/0/60     3/55/2
  ir constant              0/0/60     4/56/0      0/0/60     3/57/0
  ir dark noise            0/0/60     4/56/0      0/0/60     3/57/0
  rgb constant             0/0/60     0/60/0      0/0/60     3/55/2

Earlier, a constant image counted as absent by default: 9 of 60 (surf_like) and 32 of 60 (cefa_like)
were accepted with depth and infrared constant, 4 and 3 with infrared constant, 0 and 3 with depth
or RGB constant. Dark noise counted as signal: 0 and 1 of 60 were accepted with it as infrared. The
two failures to acquire where nothing is replaced are replays, whose infrared image is dark.
"""

import argparse
import collections
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from flexfas_jax.images import geometry
from flexfas_jax.input_pipeline import sources
from flexfas_jax.prediction import Predictor
from flexfas_jax.prediction.decision import OUTCOMES
from flexfas_jax.schema import MODALITIES

N = 60
CASES = {  # name: the modalities that are replaced, and whether by noise
  'nothing': ((), False),
  'depth and ir constant': (('depth', 'ir'), False),
  'depth and ir dark noise': (('depth', 'ir'), True),
  'depth constant': (('depth',), False),
  'ir constant': (('ir',), False),
  'ir dark noise': (('ir',), True),
  'rgb constant': (('rgb',), False),
}


def choose(columns: Mapping[str, Sequence[str]]) -> list[int]:
  """Indices of `N` attacks: as many of each attack type, evenly spread over its samples."""
  by_type = collections.defaultdict(list)
  for i, (label, kind) in enumerate(zip(columns['label'], columns['attack_type'], strict=True)):
    if label == 'attack':
      by_type[kind].append(i)
  counts = np.diff(np.linspace(0, N, len(by_type) + 1).round().astype(int))  # N in all
  indices = []
  for n, (_, own) in zip(counts, sorted(by_type.items()), strict=True):
    indices += [own[k] for k in np.linspace(0, len(own) - 1, n).round().astype(int)]
  return indices


def replace(example: Mapping, which: Sequence[str], noise: bool, seed: int) -> dict:
  """{modality: bytes} of a sample; images of `which` are replaced in their size and dtype."""
  rng = np.random.default_rng(seed)
  given = {m: example[m] for m in MODALITIES if example[m]}
  for m in set(which) & set(given):
    image = np.zeros_like(geometry.decode(given[m], m, example['id']))
    if noise:
      image = rng.integers(0, 4, image.shape).astype(image.dtype)
    given[m] = cv2.imencode('.png', image)[1].tobytes()
  return given


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('bundle')
  parser.add_argument('--data', default='rendered_faces/surf_like:test')
  parser.add_argument('--data_dir', default='prepared')
  args = parser.parse_args()
  predictor = Predictor.load(args.bundle)
  source = sources.open_source(args.data, args.data_dir)
  examples = [source[i] for i in choose(source.columns)]
  print(f'{len(examples)} attacks; {"/".join(OUTCOMES)} by default, and with allow_absent')
  for name, (which, noise) in CASES.items():
    counts = []
    for allow_absent in ((), which):
      found = collections.Counter(
        predictor(**replace(one, which, noise, i), allow_absent=allow_absent).outcome
        for i, one in enumerate(examples)
      )
      counts.append('/'.join(str(found[outcome]) for outcome in OUTCOMES))
    print(f'{name:24} {counts[0]:>9}  {counts[1]:>9}')


if __name__ == '__main__':
  main()
