"""A config file that reads the config of a workdir's run, for commands without --config.

It has the form of the files in `configs/`, so that flags can override fields.
"""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from flexfas_jax import bucket
from flexfas_jax.errors import StateError


def get_config(workdir: str) -> ConfigDict:
  """The contents of a run's `config.json`, with tuples for lists as in a config file.

  Raises:
    StateError: the file is missing or damaged.
  """
  file = f'{workdir}/config.json'
  try:
    text = bucket.read(file) if bucket.is_remote(file) else pathlib.Path(file).read_bytes()
    if text is None:
      raise FileNotFoundError(file)
    return ConfigDict(_tuples(json.loads(text)))
  except FileNotFoundError as error:
    raise StateError(f'{workdir} holds no run (it has no config.json)') from error
  except (OSError, ValueError, TypeError) as error:
    raise StateError(f'{file} cannot be read ({error})') from error


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(inner) for inner in value)
  return value
