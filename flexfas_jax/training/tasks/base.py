"""What a training is for: to tell attacks, people, or the values of an attribute."""

from collections.abc import Mapping
from types import ModuleType

from flexfas_jax.training import subjects
from flexfas_jax.training.tasks import (
  anti_spoofing,
  attribute_classification,
  face_verification,
)


def judging(config: Mapping) -> ModuleType:
  """The module that judges a config's training; each has the same functions.

  `make_scorer(experiment)`, `check(experiment, data)`, `val_metrics(job, scorer, variables, source,
  interrupted)`, `evaluate(job, folder, data, scorer)`, and `BEST`, the metric of val that chooses
  a checkpoint, of which less is better.

  Args:
    config: its fields 'task' and 'target' are read.

  Raises:
    ConfigError: an unknown task.
  """
  target = subjects.target_column(config)
  if not target:
    return anti_spoofing
  return face_verification if target == subjects.SUBJECT else attribute_classification
