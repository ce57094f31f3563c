"""The decision about one sample."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

BONA_FIDE, ATTACK, FTA = OUTCOMES = ('bona_fide', 'attack', 'fta')


@dataclasses.dataclass(frozen=True)
class Decision:
  """A decision about one sample. It is true only if the sample is accepted.

  Attributes:
    outcome: 'bona_fide', 'attack', or 'fta' (failure to acquire: no image could be used). Only
      'bona_fide' is accepted.
    score: probability of bona fide; NaN if it was not computed.
    threshold: lowest accepted score; NaN if none applies.
    used: modalities that the score was computed from, in the model's order; each subset has its own
      threshold.
    reasons: why modalities were not used, and further notes for the user.
    unusable: modalities that were given but could not be used (no signal, stale, no face), in the
      model's order. The outcome is 'fta' unless each of them was allowed to be absent.
    seconds: from reading the files to the decision.
  """

  outcome: str
  score: float = math.nan
  threshold: float = math.nan
  used: tuple[str, ...] = ()
  reasons: tuple[str, ...] = ()
  unusable: tuple[str, ...] = ()
  seconds: float = 0.0

  def __post_init__(self):
    if self.outcome not in OUTCOMES:
      raise ValueError(f'unknown outcome {self.outcome!r}; expected one of {OUTCOMES}')

  def __bool__(self) -> bool:
    return self.accepted

  @property
  def accepted(self) -> bool:
    return self.outcome == BONA_FIDE

  @property
  def subset(self) -> str:
    """Name of the used subset, as in score files: 'rgb+depth'."""
    return '+'.join(self.used)

  def as_json(self) -> dict[str, Any]:
    """The fields for JSON; NaN becomes None."""
    return {
      'decision': self.outcome,
      'accepted': self.accepted,
      'score': None if math.isnan(self.score) else self.score,
      'threshold': None if math.isnan(self.threshold) else self.threshold,
      'used': list(self.used),
      'reasons': list(self.reasons),
      'unusable': list(self.unusable),
      'seconds': self.seconds,
    }


def decide(
  score: float,
  threshold: float,
  used: Sequence[str],
  reasons: Sequence[str] = (),
  unusable: Sequence[str] = (),
) -> Decision:
  """Compares a score with its threshold; the other arguments are those of `Decision`.

  A score is accepted if it is at least the threshold. A NaN score is a failure to acquire.
  """
  if math.isnan(score):
    reasons = (*reasons, 'the score is nan')
    return Decision(FTA, score, threshold, tuple(used), tuple(reasons), tuple(unusable))
  outcome = BONA_FIDE if score >= threshold else ATTACK
  return Decision(outcome, score, threshold, tuple(used), tuple(reasons), tuple(unusable))
