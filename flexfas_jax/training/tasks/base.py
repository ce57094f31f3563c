"""The interface of a task: how validation selects a checkpoint, and what an evaluation writes."""

import pathlib
from collections.abc import Callable
from typing import Any, Protocol

from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, setup


class Task(Protocol):
  """What a model is trained for.

  Attributes:
    metric: validation metric that selects the checkpoint to evaluate; lower is better.
  """

  metric: str

  def make_scorer(self, experiment: setup.Experiment) -> Callable:
    """A function that runs the model on data sets: `scorer(variables, batches, progress=...)`.

    It is compiled once and serves both validation and evaluation.
    """

  def check(self, experiment: setup.Experiment, data: datasets.Data) -> None:
    """Checks the data before the first step.

    Raises:
      DataError: validation or a test set cannot be evaluated.
    """

  def val_metrics(
    self,
    experiment: setup.Experiment,
    scorer: Callable,
    variables: Any,
    source: sources.Source,
    interrupted: Callable[[], bool],
  ) -> dict[str, float] | None:
    """Metrics of the validation set, named 'val/...'; among them `val/{metric}`.

    Args:
      experiment: of the run.
      scorer: from `make_scorer`.
      variables: of the model.
      source: the validation set.
      interrupted: called after every batch; scoring ends when it returns True.

    Returns:
      None if scoring was interrupted.
    """

  def evaluate(
    self,
    experiment: setup.Experiment,
    folder: pathlib.Path,
    data: datasets.Data,
    scorer: Callable,
  ) -> None:
    """Scores validation and test sets with the best checkpoint, and writes the results.

    Args:
      experiment: of the run.
      folder: the workdir.
      data: of the run.
      scorer: from `make_scorer`.
    """
