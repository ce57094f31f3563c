"""Threads that share one predictor: does each get the decision of its own sample?

  python -m experiments.reliability.threads runs/vit_fusion/bundle --data_dir=prepared

Makes decisions for the samples of a prepared set one by one, then again in four threads that share
the predictor, 2,000 decisions for each model of the bundle whose library is installed. A decision
is wrong if its outcome differs, or its score by more than `TOLERANCE`, which is less than the
difference between two samples. It takes one to five minutes on two CPU cores, and prints

  model.stablehlo | 0 wrong of 2000, of these 0 accepted; 0 raised

for every model. Before the TFLite runner had a lock, 1,721 of 2,000 were wrong for
model_float32.tflite (27 samples accepted in place of another), 1,698 for float16, 1,566 for int8,
and 996 to 1,149 for those of RGB alone; ONNX, StableHLO and weights never had one.

The lock costs throughput where the model is most of the work: 4 threads on 2 idle cores run
model_float32.tflite 580 times a second with it, and 1,000 times with an interpreter per thread.
Each interpreter has its own copy of the weights (6 to 13 MB here, for a file of 1 to 3 MB) and
takes 20 to 30 ms to start, in every thread that a server starts for a request.
"""

import argparse
import concurrent.futures
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexfas_jax.input_pipeline import sources
from flexfas_jax.prediction import Decision, Predictor, card, model_loader, samples

THREADS, DECISIONS, SAMPLES = 4, 2000, 200
TOLERANCE = 1e-6  # a runtime may sum in another order when its cores are busy


class Outcome(NamedTuple):
  """Counts for one model."""

  wrong: int  # decisions that are not those of their samples
  accepted: int  # of the wrong ones, bona fide where one thread alone decides otherwise
  failed: int  # calls that raised


def share(
  predictor: Predictor,
  given: Sequence[Mapping[str, bytes]],
  decisions: int = DECISIONS,
  threads: int = THREADS,
) -> Outcome:
  """Compares decisions of threads that share a predictor with those of one thread.

  Args:
    predictor: shared by the threads.
    given: {modality: bytes of an image} of samples whose scores differ by more than `TOLERANCE`.
    decisions: number of calls in all.
    threads: number of threads.
  """
  expected = [predictor(**images) for images in given]
  order = [i % len(given) for i in range(decisions)]
  random.Random(0).shuffle(order)

  def decide(i: int) -> Decision | None:
    try:
      return predictor(**given[i])
    except Exception:  # counted: whatever a runtime raises
      return None

  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    results = list(pool.map(decide, order))
  wrong = accepted = 0
  for i, decision in zip(order, results, strict=True):
    if decision is None:
      continue
    difference = abs(decision.score - expected[i].score) if decision.outcome != 'fta' else 0.0
    if decision.outcome != expected[i].outcome or not difference <= TOLERANCE:
      wrong += 1
      accepted += decision.accepted and not expected[i].accepted
  return Outcome(wrong, accepted, results.count(None))


def load(bundle: Path, entry: Mapping) -> Predictor:
  """The predictor of one of the models that a card lists."""
  only = () if entry['present'] else tuple(entry['modalities'])
  return Predictor.load(bundle, entry['format'], precision=entry['precision'], modalities=only)


def main() -> int:
  """Prints a row for each model; the exit code is 1 if a decision is wrong."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('bundle', type=Path)
  parser.add_argument('--data', default='rendered_faces/surf_like:test')
  parser.add_argument('--data_dir', default='prepared')
  arguments = parser.parse_args()
  source = sources.open_source(arguments.data, arguments.data_dir)
  n = min(SAMPLES, len(source))
  examples = [source[int(i)] for i in np.linspace(0, len(source) - 1, n)]
  bad = 0
  for entry in card.read(arguments.bundle).contents['models']:
    if not model_loader.is_installed(entry['format']):
      continue
    predictor = load(arguments.bundle, entry)
    given = [one.given for one in samples.from_examples(examples, predictor.modalities)]
    found = share(predictor, given)
    bad += found.wrong + found.failed
    print(
      f'{entry["file"]} | {found.wrong} wrong of {DECISIONS}, of these {found.accepted} accepted; '
      f'{found.failed} raised',
      flush=True,
    )
  return int(bad > 0)


if __name__ == '__main__':
  sys.exit(main())
