"""Trivial cues as classifiers: what a data set gives away without a face model.

  python -m experiments.probes --data_dir=prepared
  python -m experiments.probes --data_dir=prepared --dataset=manifest/ours
  python -m experiments.probes --data_dir=prepared --protocol='cefa_1(ethnicity=CA)'

A model whose error rate is not below that of these probes has shown nothing. Probes are trained on
the protocol's train, tuned on its val (settings and thresholds), and evaluated on its tests with
intervals over subjects, for each sensor and for the protocol's subsets. Every probe that was
trained is in results.csv, in this folder or --out. Rendered sets are rendered if they are missing.
"""

import argparse
import csv
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.probes import evaluation, features
from experiments.probes.samples import Reader, Samples
from flexfas_jax import errors, lookup
from flexfas_jax.errors import ConfigError, exit_code_of
from flexfas_jax.evaluation import results
from flexfas_jax.evaluation.report import tables
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.protocols import selection
from flexfas_jax.protocols.definitions import FLEXMODAL_SUBSETS
from flexfas_jax.schema import MODALITIES

with errors.required_imports(__name__):  # scikit-learn, of the extra `test`
  from experiments.probes import classifiers

HERE = pathlib.Path(__file__).parent
DEFAULT = 'rendered_flexmodal'  # the sets of configs/vit_fusion.py
TEXTURE = ('statistics', 'colours', 'patterns', 'gradients', 'spectrum')
PROBES = {  # name: (kind of `classifiers.GRIDS`, groups of features)
  'thumbnail_logistic': ('logistic', ('thumbnail',)),
  'thumbnail_trees': ('trees', ('thumbnail',)),
  'statistics_trees': ('trees', ('thumbnail', 'statistics')),
  'patterns_logistic': ('logistic', ('patterns',)),
  'patterns_svm': ('svm', ('patterns',)),
  'spectrum_logistic': ('logistic', ('spectrum',)),
  'gradients_logistic': ('logistic', ('gradients',)),
  'texture_logistic': ('logistic', TEXTURE),
  'texture_trees': ('trees', TEXTURE),
  'texture_svm': ('svm', TEXTURE),
  'file_size_trees': ('trees', ('file_size',)),
}
SINGLE, CNN = 'single', 'cnn'  # each statistic alone; the small network
NAMES = (*PROBES, SINGLE, CNN)


def train(
  name: str, sets: Mapping[str, Samples], subsets: Sequence[str], seed: int
) -> dict[str, dict[str, classifiers.Fit]]:
  """Trains and tunes a probe for every subset of the modalities: {row's name: {subset: fit}}.

  Args:
    name: of `NAMES`; `single` gives a row for each statistic.
    sets: {'train', 'val' or a test: its samples}.
    subsets: names of subsets of the modalities.
    seed: of all that is random.
  """
  labels = {key: of.label for key, of in sets.items()}
  if name == SINGLE:
    fits: dict[str, dict] = {}
    for modality in (s for s in subsets if s in MODALITIES):
      for k, statistic in enumerate(features.statistic_names(modality)):
        inputs = {key: of.vectors['statistics', modality][:, [k]] for key, of in sets.items()}
        fit = classifiers.single(inputs, labels)
        fits.setdefault(f'{SINGLE}: {statistic}', {})[modality] = fit
    return fits
  fits = {}
  for subset in subsets:
    parts = subset.split('+')
    if name == CNN:
      from experiments.probes import cnn  # JAX, for this probe alone

      images = {key: np.concatenate([of.pixels[m] for m in parts], -1) for key, of in sets.items()}
      fits[subset] = cnn.fit(images, labels, seed)
    else:
      kind, groups = PROBES[name]
      inputs = {key: classifiers.stack(of.vectors, groups, parts) for key, of in sets.items()}
      fits[subset] = classifiers.tune(kind, inputs, labels, seed)
  return {name: fits}


def run(
  protocol,
  data_dir: str,
  probes: Sequence[str] = NAMES,
  seed: int = 0,
  draws: int | None = None,
  workers: int | None = None,
  side: int | None = None,
  log: Callable[[str], None] = print,
) -> list[dict]:
  """Trains and evaluates probes on a protocol; rows with `evaluation.COLUMNS`.

  Args:
    protocol: from `lookup.make_protocol`.
    data_dir: of the prepared sets.
    probes: of `NAMES`.
    seed: of the probes.
    draws: of the bootstrap; None: as `evaluate.evaluate`; 0: no intervals.
    workers: processes that decode and describe images; None: one per core.
    side: pixels to which images are resized before their features; None: their stored size.
    log: called with a line for every step.
  """
  start = time.perf_counter()
  names = {'train': protocol.train, 'val': protocol.val, **protocol.test}
  with Workers(workers) as pool:
    read = Reader(data_dir, pool, side)
    sets = {key: read(selections) for key, selections in names.items()}
  log(f'features of {", ".join(names)}: {time.perf_counter() - start:.0f} s')
  subsets = subsets_of(protocol, sets['train'])
  rows = []
  for probe in probes:
    start = time.perf_counter()
    for name, fits in train(probe, sets, subsets, seed).items():
      rows += evaluation.evaluate_probe(name, fits, sets, protocol.threshold, draws)
    log(f'{probe}: {time.perf_counter() - start:.0f} s')
  return rows


def subsets_of(protocol, train: Samples) -> list[str]:
  """Each sensor alone, then the subsets that the protocol reports, of sensors that train has."""
  names = [*MODALITIES, *(protocol.subsets or FLEXMODAL_SUBSETS)]
  available = {m for m in MODALITIES if train.acquired[m].any()}
  return [name for name in dict.fromkeys(names) if set(name.split('+')) <= available]


def write(rows: Sequence[Mapping], file: pathlib.Path) -> None:
  """Writes rows as CSV, rates with five digits."""
  with file.open('w', newline='') as out:
    writer = csv.DictWriter(out, evaluation.COLUMNS, lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow({k: f'{v:.5f}' if isinstance(v, float) else v for k, v in row.items()})


def report(protocol, rows: Sequence[Mapping]) -> str:
  """Markdown: the tables of a protocol's probes, which state whether images are rendered."""
  text = evaluation.tables(rows, protocol.subsets or FLEXMODAL_SUBSETS, protocol.threshold)
  if selection.is_rendered([protocol.train, protocol.val, *protocol.test.values()]):
    text = f'{tables.MARKS[results.RENDERED]}\n\n{text}'
  return text


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the probes; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.probes',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--data_dir', default='prepared')
  data = parser.add_mutually_exclusive_group()
  data.add_argument('--dataset', help='SET/CONFIG, with its own splits')
  data.add_argument('--protocol', default=DEFAULT, help=f'as config.protocol ({DEFAULT})')
  parser.add_argument('--probes', default=','.join(NAMES), help='comma-separated (all)')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--side', type=int, help='pixels that features see of an image (as many as are stored)'
  )
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='folder of results.csv')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args(argv)

  def command():
    probes = [name.strip() for name in args.probes.split(',')]
    if unknown := [name for name in probes if name not in NAMES]:
      raise ConfigError(f'--probes={unknown[0]}: unknown; choose from {", ".join(NAMES)}')
    protocol = lookup.make_protocol(
      f'splits(set={args.dataset})' if args.dataset else args.protocol
    )
    log = functools.partial(print, file=sys.stderr, flush=True)
    rows = run(protocol, args.data_dir, probes, args.seed, side=args.side, log=log)
    args.out.mkdir(parents=True, exist_ok=True)
    write(rows, args.out / 'results.csv')
    print(report(protocol, rows))

  return exit_code_of(command, args.debug)


if __name__ == '__main__':
  sys.exit(main())
