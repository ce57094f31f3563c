"""Score files of MM-FAS's networks, from their published scores on CASIA-SURF's validation set.

  python -m experiments.evaluation.published --scores=DIR --out=DIR

`--scores` is the folder of the 21 networks' score files and val_labels.csv (from the paper's
repository, MIT licence; not shipped). The scores of a seed are the mean over two views (centre and
flipped) and three folds; those of a network the mean over its seeds; those of the ensemble the mean
over the networks.
"""

import argparse
import csv
import pathlib

import numpy as np

NETS = {  # network of the paper: its seeds
  'exp1_2stage': ('seed1',),
  'exp2': ('seed1', 'seed2'),
  'exp3b': ('seed1', 'seed2'),
  'exp3c': ('seed1', 'seed2'),
}


def networks(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """{'exp2_seed1': [N], ..., 'exp2': [N], ..., 'ensemble': [N]}."""

  def fold_mean(name: str) -> np.ndarray:
    folds = [
      np.loadtxt(path, delimiter=',', skiprows=1)
      for path in sorted(folder.glob(f'{name}_fold?.csv'))
    ]
    assert len(folds) == 3, f'{name}: {len(folds)} folds of 3'
    return np.mean([fold.mean(1) for fold in folds], 0)  # [N]

  scores = {
    f'{net}_{seed}': fold_mean(f'{net}_{seed}') for net, seeds in NETS.items() for seed in seeds
  }
  for net, seeds in NETS.items():
    scores[net] = np.mean([scores[f'{net}_{seed}'] for seed in seeds], 0)
  scores['ensemble'] = np.mean([scores[net] for net in NETS], 0)
  return scores


def write(folder: pathlib.Path, out: pathlib.Path) -> None:
  """Writes a score file for each of `networks`."""
  with (folder / 'val_labels.csv').open(newline='') as file:
    samples = [(row['rgb'], row['label']) for row in csv.DictReader(file)]  # label 1 = live
  out.mkdir(parents=True, exist_ok=True)
  for name, scores in networks(folder).items():
    rows = ((*sample, score) for sample, score in zip(samples, scores.tolist(), strict=True))
    with (out / f'{name}.csv').open('w', newline='') as file:
      csv.writer(file, lineterminator='\n').writerows([('id', 'label', 'score'), *rows])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--scores', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  write(args.scores, args.out)


if __name__ == '__main__':
  main()
