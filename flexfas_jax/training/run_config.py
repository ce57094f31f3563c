"""A config file that reads the config of a workdir's run, for commands without --config.

It has the form of the files in `configs/`, so that flags can override fields.
"""

from typing import Any

from ml_collections import ConfigDict

from flexfas_jax.errors import StateError
from flexfas_jax.training import workdir as workdir_files


def get_config(workdir: str) -> ConfigDict:
  """The contents of a run's `config.json`, with tuples for lists as in a config file.

  Raises:
    StateError: the file is missing or damaged.
  """
  fields = workdir_files.read_config(workdir)
  if fields is None:
    raise StateError(f'{workdir} holds no run (it has no config.json)')
  if fields.get('task', 'attacks') == 'attacks':
    # Of a run of an earlier version, to be set by a flag.
    fields = {'pass_if': '', 'test_toml': '', **fields}
  return ConfigDict(_tuples(fields))


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(inner) for inner in value)
  return value
