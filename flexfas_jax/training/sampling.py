"""Config fields that define the domains of the training data and how batches are drawn from it.

`config.domain` is a column: its sorted values are the domains, and 'domain' in a training batch is
a position among them. `config.sampler = {'balance': ('domain', 'label')}` gives each batch every
combination equally often (`pipeline.BalancedOrder`); without it an epoch has every example once.
"""

import json
import pathlib

from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.training import subjects

FILE = 'domains.json'


def domain_column(config: ConfigDict) -> str:
  """The column whose values are the domains of the training data.

  Raises:
    ConfigError: it is no name.
  """
  column = config.get('domain', 'dataset')
  if not column or not isinstance(column, str):
    raise ConfigError(f"config.domain is {column!r}; give a column of config.train: 'dataset'")
  return column


def balanced_fields(config: ConfigDict) -> tuple[str, ...]:
  """What training batches are balanced over, some of `pipeline.BALANCED`; (): nothing.

  Raises:
    ConfigError: another field of `config.sampler`, or another name.
  """
  sampler = dict(config.get('sampler') or {})
  fields = sampler.pop('balance', ())
  fields = tuple(fields) if isinstance(fields, list | tuple) else (fields,)
  if sampler:
    raise ConfigError(f'config.sampler has no field {sorted(sampler)[0]!r}; it has: balance')
  if len(set(fields)) < len(fields) or not set(fields) <= set(pipeline.BALANCED):
    raise ConfigError(
      f'config.sampler.balance is {fields}; give some of {", ".join(pipeline.BALANCED)}, once each'
    )
  return fields


def more_columns(config: ConfigDict) -> tuple[str, ...]:
  """The columns of the training data besides `sources.FIELDS`: of classes and domains."""
  columns = dict.fromkeys((subjects.target_column(config), domain_column(config)))
  return tuple(column for column in columns if column and column not in sources.FIELDS)


def write_domains(folder: pathlib.Path, config: ConfigDict, names: tuple[str, ...]) -> None:
  """Writes `domains.json` into a workdir: the column, and its values by their number."""
  contents = {'column': domain_column(config), 'names': names}
  write_text(folder / FILE, json.dumps(contents, indent=1) + '\n')
