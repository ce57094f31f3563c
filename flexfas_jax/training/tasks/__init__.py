"""What a model is trained for: attacks, identities or attributes, or hidden patches of images."""

from collections.abc import Mapping

from flexfas_jax.training import subjects
from flexfas_jax.training.tasks.anti_spoofing import AntiSpoofing
from flexfas_jax.training.tasks.attribute_classification import AttributeClassification
from flexfas_jax.training.tasks.base import Task
from flexfas_jax.training.tasks.face_verification import FaceVerification
from flexfas_jax.training.tasks.masked_reconstruction import MaskedReconstruction


def get_task(config: Mapping) -> Task:
  """The task of a config.

  Args:
    config: its fields 'task' and 'target' are read.

  Raises:
    ConfigError: an unknown task.
  """
  if subjects.task_name(config) == 'reconstruction':
    return MaskedReconstruction()
  target = subjects.target_column(config)
  if not target:
    return AntiSpoofing()
  return FaceVerification() if target == subjects.SUBJECT else AttributeClassification()
