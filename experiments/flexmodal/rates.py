"""Rates of runs from their score files: by frame and by video, at two thresholds.

FlexModal fixes the threshold of 0.5 across data sets. Such a threshold measures calibration as much
as detection, so that the EER threshold of val is reported with it, and AUC, which needs none.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping

from flexfas_jax.evaluation import aggregation, evaluate, results, score_files

UNITS = ('frame', 'video')
OF_VAL = 'dev_eer'


def read(
  folder: pathlib.Path, part: str, unit: str, subsets: Collection[str] = ()
) -> score_files.Scores:
  """The scores of a run.

  Args:
    folder: of the run.
    part: val or a test.
    unit: of `UNITS`; a video's score is the mean of its frames.
    subsets: those that are kept; (): all.
  """
  scores = score_files.read(folder / 'scores' / f'{part}.csv')
  if subsets:
    kept = {subset: scores.scores[subset] for subset in subsets if subset in scores.scores}
    scores = dataclasses.replace(scores, scores=kept)
  return aggregation.aggregate_by_video(scores) if unit == 'video' else scores


def rules(scores: score_files.Scores, test: str) -> list[str]:
  """The rule of a test's threshold, then that of val's EER if it is another."""
  return list(dict.fromkeys((scores.header['config']['threshold'][test], OF_VAL)))


def of_run(folder: pathlib.Path, test: str) -> list[tuple[dict[str, str], dict[str, float]]]:
  """[({'subset', 'unit', 'threshold'}, metrics of `results.compute`)] of a run's test."""
  found = []
  for unit in UNITS:
    scores, dev = (read(folder, part, unit) for part in (test, 'val'))
    for rule in rules(scores, test):
      for subset, metrics in results.compute(scores, rule, dev).items():
        found.append(({'subset': subset, 'unit': unit, 'threshold': rule}, metrics))
  return found


def means(
  folders: Mapping[str, pathlib.Path], test: str, subsets: Collection[str]
) -> list[tuple[dict[str, str], evaluate.RunMean, evaluate.RunMean]]:
  """[({'subset', 'unit', 'threshold'}, ACER, AUC)] of a method's runs; [] of a single one.

  Args:
    folders: of the runs, by any names.
    test: that is evaluated.
    subsets: of modalities.
  """
  found = []
  for unit in UNITS if len(folders) > 1 else ():
    scores, dev = (
      evaluate.merge_systems({name: read(f, part, unit, subsets) for name, f in folders.items()})
      for part in (test, 'val')
    )
    for rule in rules(scores, test):
      evaluation = evaluate.evaluate(test, scores, rule, dev, runs={'method': list(folders)})
      for method, of in evaluation.run_means.items():
        key = {'subset': method.partition(': ')[2], 'unit': unit, 'threshold': rule}
        found.append((key, of['acer'], of['auc']))
  return found
