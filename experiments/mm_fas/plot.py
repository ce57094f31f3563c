"""Plots a sweep: ACER of every member, and of the ensembles with their intervals."""

import pathlib
from collections.abc import Sequence

from experiments.mm_fas.evaluation import ENSEMBLE

_TITLES = {
  'seen': 'seen attacks',
  'unseen': 'left-out attacks',
  'cross': 'another camera, new attacks',
}


def plot(rows: Sequence[dict], title: str, file: pathlib.Path) -> None:
  """Writes the figure.

  Args:
    rows: with `evaluation.COLUMNS`.
    title: of the figure.
    file: PNG.
  """
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  tests = list(dict.fromkeys(row['test'] for row in rows))
  networks = list(dict.fromkeys(row['network'] for row in rows if row['network']))
  palette = plt.get_cmap('tab10')
  colours = {name: palette(i % 10) for i, name in enumerate(networks)} | {ENSEMBLE: 'black'}
  figure, axes = plt.subplots(1, len(tests), figsize=(4 * len(tests), 4.4), squeeze=False)
  for axis, test in zip(axes[0], tests, strict=True):
    of_test = [row for row in rows if row['test'] == test]
    subsets = list(dict.fromkeys(row['subset'] for row in of_test))
    step = 0.8 / (len(networks) + 1)
    for row in of_test:
      name = row['network'] or ENSEMBLE
      index = (*networks, ENSEMBLE).index(name)
      x = subsets.index(row['subset']) + (index - len(networks) / 2) * step
      acer, colour = 100 * row['acer'], colours[name]
      if row['fold']:
        axis.plot(x - step / 4, acer, 'o', color=colour, alpha=0.45, markersize=4)
      elif not row['seed']:
        ends = [[acer - 100 * row['acer_low']], [100 * row['acer_high'] - acer]]
        ends = [[max(0, e) for e in side] for side in ends]
        axis.errorbar(x + step / 4, acer, ends, fmt='D', color=colour, markersize=6, capsize=3)
    axis.set_xticks(range(len(subsets)), [s.replace('+', '\n+') for s in subsets])
    axis.set_title(_TITLES.get(test, test))
    axis.set_ylim(bottom=-1)
    axis.grid(axis='y', alpha=0.3)
  axes[0][0].set_ylabel('ACER, %; lower is better')
  marks = [
    plt.Line2D([], [], color=c, marker='D', linestyle='', label=n) for n, c in colours.items()
  ]
  marks.append(plt.Line2D([], [], color='grey', marker='o', linestyle='', label='one member'))
  figure.legend(handles=marks, loc='lower center', ncol=len(marks), frameon=False)
  figure.suptitle(title)
  figure.tight_layout(rect=(0, 0.06, 1, 1))
  figure.savefig(file, dpi=110)
  plt.close(figure)
