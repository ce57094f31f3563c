"""What is said of one sample."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

BONA_FIDE, ATTACK, FTA = OUTCOMES = ('bona_fide', 'attack', 'fta')


@dataclasses.dataclass(frozen=True)
class Decision:
  """A decision; true where the sample is accepted, so that `if decision:` cannot let another pass.

  Attributes:
    outcome: `bona_fide`, `attack`, or `fta`: failure to acquire, nothing that could be judged. Only
      the first is accepted.
    score: probability of bona fide; NaN: there is none.
    threshold: that the score had to reach; NaN: none was asked.
    used: the modalities that were looked at; their threshold is the one that counts.
    reasons: why modalities, or all, were left out, and what else a user should know.
    unusable: the modalities that were given and could not be used (no signal, stale, no face), in
      the model's order. The outcome is `fta` unless each of them was allowed to be absent.
    seconds: from the files to this.
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
      raise ValueError(f'{self.outcome!r} is no outcome; there are {OUTCOMES}')

  def __bool__(self) -> bool:
    return self.accepted

  @property
  def accepted(self) -> bool:
    return self.outcome == BONA_FIDE

  @property
  def subset(self) -> str:
    """The modalities in one word, as score files have it: 'rgb+depth'."""
    return '+'.join(self.used)

  def as_json(self) -> dict[str, Any]:
    """What JSON can hold; None where there is no number."""
    known = lambda x: None if math.isnan(x) else x  # noqa: E731
    return {
      'decision': self.outcome,
      'accepted': self.accepted,
      'score': known(self.score),
      'threshold': known(self.threshold),
      'used': list(self.used),
      'reasons': list(self.reasons),
      'unusable': list(self.unusable),
      'seconds': self.seconds,
    }


def of_score(
  score: float,
  threshold: float,
  used: Sequence[str],
  reasons: Sequence[str] = (),
  unusable: Sequence[str] = (),
) -> Decision:
  """The decision that a score leads to: accepted from the threshold on; NaN never is."""
  if math.isnan(score):
    reasons = (*reasons, 'the model computed no number (nan)')
    return Decision(FTA, score, threshold, tuple(used), tuple(reasons), tuple(unusable))
  outcome = BONA_FIDE if score >= threshold else ATTACK
  return Decision(outcome, score, threshold, tuple(used), tuple(reasons), tuple(unusable))
