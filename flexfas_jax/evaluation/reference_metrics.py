"""What the references count otherwise, under names of their own: so their figures can be redone.

None of this is how `metrics` counts, and none of it belongs in a new paper's main table.

  [FM]   Yu et al., Flexible-Modal Face Anti-Spoofing: A Benchmark (CVPRW 2023), and its code,
         github.com/ZitongYu/Flex-Modal-FAS, utils_FAS_MultiModal2.py.
  [MM]   Parkin and Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks
         (CVPRW 2019), and its code.

[FM] differs from `metrics` in four ways:
  - a score must be above the threshold (score > threshold); one that equals it is rejected;
  - the EER's threshold is the point of scikit-learn's `roc_curve` where |TPR + FPR - 1| is least,
    and `roc_curve` drops the middle of three points at equal steps;
  - TPR@FPR is taken where the FPR is nearest to the target, which may be above it, and is the
    lowest TPR of a run of equal FPRs;
  - across data sets the threshold is 0.5, whatever the scores.
APCER is pooled over all attacks, as `metrics` has it under the name `apcer`.

[MM] takes the largest TPR whose FPR is at most the target, as `metrics` does, and moves the
ensemble's scores by a line in two pieces, so that a threshold found on val comes to 0.5
(`rescaled`), and has the least ACER over all thresholds (`least_acer`), which is an ORACLE.
"""

import math

import numpy as np

from flexfas_jax.evaluation import metrics

MM_FAS_THRESHOLD = 0.932107  # of the published ensemble, which `rescaled` brings to 0.5


def tpr_at_nearest_fpr(points: metrics.Curve, fpr: float) -> float:
  """The TPR at the ROC point whose FPR is nearest to `fpr` [FM]; NaN where undefined."""
  if points.one_class:
    return math.nan
  tp, fp, _ = metrics.roc_points(points)
  k = np.argmin(np.abs(fp / points.n_attack - fpr))  # the first of a tie
  return float(tp[k]) / points.n_bona_fide


def eer_threshold(points: metrics.Curve) -> float:
  """The threshold where |TPR + FPR - 1| is least on the ROC's points [FM]; NaN where undefined.

  Infinite where that is the point that accepts nothing.
  """
  if points.one_class:
    return math.nan
  tp, fp, threshold = metrics.roc_points(points)
  return float(threshold[np.argmin(np.abs(tp / points.n_bona_fide + fp / points.n_attack - 1))])


def flex_modal_fas(label, score, threshold: float) -> dict[str, float]:
  """The figures of [FM] at a threshold: a sample is accepted when its score is above it.

  Args:
    label: [N] integer, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.
    threshold: `eer_threshold` of val under the same modalities, or 0.5 across data sets.

  Returns:
    acer, apcer (pooled), bpcer, tpr@fpr=1e-2 and 1e-3 (nearest), threshold.
  """
  rates = metrics.error_rates(label, score, np.nextafter(threshold, np.inf))
  points = metrics.curve(label, score)
  return {
    'acer': (rates.apcer + rates.bpcer) / 2,
    'apcer': rates.apcer,
    'bpcer': rates.bpcer,
    'tpr@fpr=1e-2': tpr_at_nearest_fpr(points, 1e-2),
    'tpr@fpr=1e-3': tpr_at_nearest_fpr(points, 1e-3),
    'threshold': threshold,
  }


def rescaled(score, threshold: float = MM_FAS_THRESHOLD) -> np.ndarray:
  """Scores moved by a line in two pieces: 0 stays 0, `threshold` becomes 0.5, 1 stays 1 [MM].

  Args:
    score: [N] float in [0, 1].
    threshold: in (0, 1).

  Returns:
    [N] float64, in the same order.
  """
  return np.interp(score, [0, threshold, 1], [0, 0.5, 1])


def least_acer(points: metrics.Curve) -> tuple[float, float]:
  """The least ACER over all thresholds, and the threshold: an ORACLE; NaN where undefined [MM]."""
  if points.one_class:
    return math.nan, math.nan
  k = metrics.least_acer(points)
  return float(points.apcer[k] + points.bpcer[k]) / 2, float(points.threshold[k])
