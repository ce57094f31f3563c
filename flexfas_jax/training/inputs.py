"""What a job reads: training, val and test sets, opened and proven apart."""

from typing import NamedTuple

from ml_collections import ConfigDict

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import overlaps
from flexfas_jax.input_pipeline import sources


class Data(NamedTuple):
  """What a job reads; None is what it does not need and is not here."""

  train: sources.Source | None
  val: sources.Source
  test: dict[str, sources.Source | None]
  remarks: list[str]  # what every figure is told with


def open_all(config: ConfigDict, train: bool = True, test: bool = True) -> Data:
  """Opens what is trained on, chosen by and tested on, and proves that it is apart.

  Args:
    config: names the data; its protocol's selections are in place.
    train, test: whether the job needs them. What it does not need may be missing, as on a machine
      that only evaluates; then nothing is proven about it, and that is said.

  Raises:
    DataError: what is needed is missing or damaged, or somebody is on two sides.
  """
  remarks = []
  nobody = {'id': (), 'video': (), 'subject': ()}

  def open_(name: str, names: str, needed: bool) -> sources.Source | None:
    try:
      return sources.open_source(names, config.data_dir, check=needed)
    except DataError:
      if needed:
        raise
      remarks.append(f'not proven to share nobody: {name}, {names}, which is not here')
      return None

  val = open_('val', config.val, True)
  _check_val(val)
  train_source = open_('train', config.train, train)
  tests = {name: open_(name, names, test) for name, names in tests_of(config)}
  leaks = overlaps.check(
    train_source.columns if train_source else nobody,
    val.columns,
    {name: source.columns for name, source in tests.items() if source},
    config.get('accept_known_leaks', ()),
  )
  return Data(train_source, val, tests, remarks + overlaps.told(leaks))


def tests_of(config: ConfigDict) -> list[tuple[str, str]]:
  """The test sets, what is like the training first; a ConfigDict forgets its order."""
  return sorted(config.test.items(), key=lambda test: test[0] != 'intra')


def _check_val(val: sources.Source) -> None:
  """Without both classes no error rate is defined, and no checkpoint the best."""
  if len(seen := set(val.columns['label'])) < 2:
    raise DataError(
      f'config.val, {", ".join(val.names)}: every sample is {seen.pop()}; add the other class'
    )
