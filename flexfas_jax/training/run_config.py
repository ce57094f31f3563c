"""The config of a run, read from its workdir: what --config is where only --workdir is given.

A config file like those of `configs/`, so that its fields are overridden in the same way.
"""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from flexfas_jax.errors import StateError


def get_config(workdir: str) -> ConfigDict:
  """What `config.json` of a run has, sequences being tuples as in a config file.

  Args:
    workdir: of the run.

  Raises:
    StateError: there is none, or it is damaged.
  """
  file = pathlib.Path(workdir) / 'config.json'
  try:
    return ConfigDict(_tuples(json.loads(file.read_text(encoding='utf-8'))))
  except FileNotFoundError as error:
    raise StateError(f'{workdir} holds no run (there is no config.json)') from error
  except (OSError, ValueError, TypeError) as error:
    raise StateError(f'{file} cannot be read ({error})') from error


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(inner) for inner in value)
  return value
