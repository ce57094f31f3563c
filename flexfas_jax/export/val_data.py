"""The val set of a run, and an evenly spread subset of it."""

import numpy as np

from flexfas_jax.input_pipeline import sources


def open_val(trained) -> sources.Source:
  """The val set of the run of a `TrainedModel`.

  Raises:
    DataError: the data set is not prepared.
  """
  return sources.open_source(trained.config.val, trained.config.data_dir)


class EvenSubset:
  """At most `max_examples` of a source, evenly spread over it; has a source's interface."""

  def __init__(self, source: sources.Source, max_examples: int):
    n = min(len(source), max_examples)
    last = len(source) - 1
    self.indices = np.linspace(0, last, n).round().astype(int) if n else np.arange(0)
    self.columns = {k: [v[i] for i in self.indices] for k, v in source.columns.items()}
    self.is_remote = source.is_remote
    self._source = source

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> dict:
    return self._source[int(self.indices[index])]
