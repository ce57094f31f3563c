"""What a config's loss needs from the training step besides a gradient of it."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.training import hyperplanes, subset_sampling
from flexfas_jax.training.prototypes import Prototypes
from flexfas_jax.training.step import Modulation
from flexfas_jax.training.subset_sampling import ByLoss


class Objective(NamedTuple):
  """Arguments of `train_step`, and what the state holds for them.

  Attributes:
    prototypes, modulation, project, sampling: see `train_step`.
    memory: of the initial state; None: there is none.
  """

  prototypes: Prototypes | None = None
  modulation: Modulation | None = None
  project: Callable[[Any], Any] | None = None
  sampling: ByLoss | None = None
  memory: Mapping[str, Any] | None = None

  def step_arguments(self) -> dict[str, Any]:
    """The arguments of `train_step`."""
    names = ('prototypes', 'modulation', 'project', 'sampling')
    return {name: getattr(self, name) for name in names}


def build(
  loss: str | Mapping[str, Mapping],
  modulation: Mapping | None,
  model,
  dropout: Mapping = MappingProxyType({}),
) -> Objective:
  """The objective of a config.

  Args:
    loss: `config.loss`, a valid one.
    modulation: `config.gradient_modulation`; None or {}: none.
    model: a `flexmodal.Model`.
    dropout: `config.modality_dropout`.

  Raises:
    ConfigError: fields that are unknown, or do not fit each other.
  """
  terms = lookup.loss_terms(loss)
  prototypes = project = None
  memory = {}
  if term := terms.get('single_side_prototypes'):
    fields = _fields(term)
    prototypes = _prototypes(**fields)
    feature = model.output_shapes().get('modality_feature')
    # Without features, checking the loss names the field that adds them.
    memory |= prototypes.initial(len(model.modalities), feature.shape[-1] if feature else 1)
  if term := terms.get('domain_hyperplanes'):
    rate = _fields(term)['rate']
    if not 0 <= rate < 1:
      raise ConfigError(f'config.loss.domain_hyperplanes.rate is {rate}; give a rate from 0 to 1')
    project = functools.partial(hyperplanes.update, rate=rate)
  modulation = _modulation(loss, modulation, model)
  if modulation and modulation.running:
    memory['modality_loss'] = np.zeros(len(model.modalities), np.float32)
  if sampling := subset_sampling.build(dropout, model.modalities):
    memory |= sampling.initial()
  return Objective(
    prototypes=prototypes,
    modulation=modulation,
    project=project,
    sampling=sampling,
    memory=memory or None,
  )


def _fields(term: tuple[float, functools.partial]) -> dict[str, Any]:
  """The fields of a loss, with its defaults."""
  parameters = list(inspect.signature(term[1].func).parameters.values())[2:]
  return {p.name: p.default for p in parameters} | term[1].keywords


def _prototypes(domains: int, period: int, momentum: float) -> Prototypes:
  for name, value in (('domains', domains), ('period', period)):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ConfigError(
        f'config.loss.single_side_prototypes.{name} is {value!r}; give a whole number from 1 on'
      )
  if not 0 < momentum < 1:
    raise ConfigError(
      f'config.loss.single_side_prototypes.momentum is {momentum}; give a number between 0 and 1'
    )
  return Prototypes(classes=1 + domains, decay=momentum ** (1 / period))


def _modulation(loss, fields: Mapping | None, model) -> Modulation | None:
  if not fields:
    return None
  if not isinstance(fields, Mapping):
    raise ConfigError(
      f"config.gradient_modulation is {fields!r}; give None or a group: {{'name': 'regrad'}}"
    )
  fields = dict(fields)
  name = fields.pop('name', None)
  combine = lookup.find('gradient_modulation', name)
  accepted = [*list(inspect.signature(combine).parameters)[5:], 'running']
  if unknown := sorted(set(fields) - set(accepted)):
    raise ConfigError(
      f'gradient_modulation {name!r} has no field {unknown[0]!r}; it has: {", ".join(accepted)}'
    )
  where = 'config.gradient_modulation'
  lookup.check_values(where, inspect.signature(combine).parameters, fields)
  running = fields.pop('running', 0.0)
  if isinstance(running, bool) or not isinstance(running, int | float) or not 0 <= running < 1:
    raise ConfigError(f'{where}.running is {running!r}; give a number from 0 to 1')
  if len(model.modalities) < 2:
    raise ConfigError(f'gradient_modulation {name!r} needs several modalities')
  shared, own = lookup.make_loss_parts(loss)
  return Modulation(shared, own, functools.partial(combine, **fields), float(running))


def check_domains(fields: Mapping[str, Any], names: Sequence[str]) -> None:
  """Checks the numbers of domains in a config.

  Args:
    fields: of the config.
    names: the domains of the training data.

  Raises:
    ConfigError: a loss or the head has another number.
  """
  given = {'config.model.head': fields['model'].get('head', {}).get('domains')}
  for name, term in lookup.loss_terms(fields['loss']).items():
    given[f'config.loss.{name}'] = _fields(term).get('domains')
  for where, number in given.items():
    if number is not None and number != len(names):
      raise ConfigError(
        f'{where}.domains = {number}, but config.train has {len(names)}: {", ".join(names)} '
        '(config.domain)'
      )
