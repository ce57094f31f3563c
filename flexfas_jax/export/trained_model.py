"""The model that a bundle exports: the best step of a run, computing in float32."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.images import geometry
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.models import flexmodal
from flexfas_jax.models.adapters import lora
from flexfas_jax.models.weights import variable_tree
from flexfas_jax.training import setup, workdir
from flexfas_jax.training.tasks import AntiSpoofing, dataset_scoring


class TrainedModel(NamedTuple):
  """A model, its weights, and the run that they come from.

  Attributes:
    fields: of `flexmodal.build`: float32, without `scan`, `remat`, `fused_attention` and LoRA,
      which is merged.
    model, variables: built from these fields; variables are NumPy arrays.
    subsets: the subsets of modalities that the fusion can serve.
    weights_hash: of the checkpoint, as in the score files.
    step: of the checkpoint.
    header: of the run's score files, see `dataset_scoring.restore_best`.
    view: the first of the run's views, see `geometry.parse_views`.
    resize: how images are resized, see `geometry.RESIZES`.
    preprocess: encoded images to arrays, with this view.
    config: of the run, with the protocol's selections filled in.
    folder: the workdir.
  """

  fields: dict[str, Any]
  model: flexmodal.Model
  variables: Any
  subsets: tuple[tuple[str, ...], ...]
  weights_hash: str
  step: int
  header: dict
  view: str
  resize: str
  preprocess: Preprocess
  config: ConfigDict
  folder: pathlib.Path


def restore(config: ConfigDict, folder: pathlib.Path) -> TrainedModel:
  """The best step of a run.

  Args:
    config: of the run; test sets and threshold rules may differ, as in evaluation.
    folder: the run's workdir.

  Raises:
    ConfigError: the model has no attack detection head.
    StateError: no such run, no checkpoint, or a damaged one.
  """
  experiment = setup.build(config, classes=2)
  if experiment.task != 'attacks':
    raise ConfigError(
      f'a model of the task {experiment.task!r} makes no decisions; export a model of presentation '
      'attack detection'
    )
  workdir.refuse_changes(
    folder, workdir.changed_fields(folder, experiment.config.to_dict(), workdir.ONLY_TESTS)
  )
  if workdir.read_config(folder) is None:
    raise StateError(f'{folder} holds no training; run with --mode=train first')
  step, variables, header = dataset_scoring.restore_best(
    experiment, folder, AntiSpoofing.metric, []
  )
  return create(
    experiment.config.model.to_dict(),
    variables,
    step=step,
    header=header,
    weights_hash=header['weights_hash'],
    view=next(iter(experiment.views)),
    resize=experiment.preprocess.resize,
    config=experiment.config,
    folder=folder,
  )


def create(fields: dict[str, Any], variables, **attributes) -> TrainedModel:
  """A model with its weights; `attributes` of `TrainedModel` that are left out are empty."""
  fields = {**fields, 'modalities': list(fields['modalities']), 'dtype': 'float32'}
  fields['backbone'] = dict(fields['backbone'])
  for option in ('scan', 'remat', 'fused_attention'):  # they serve training alone
    if option in fields['backbone']:
      fields['backbone'][option] = False
  model = flexmodal.build(**fields)
  variables = jax.tree.map(np.asarray, variables)
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  if jax.tree.structure(abstract) != jax.tree.structure(variables):
    variables = jax.tree.map(np.asarray, variable_tree.restack(variables, abstract))
  fields, model, variables = _merge_lora(fields, model, variables)
  defaults = {
    'step': 0,
    'header': {},
    'view': 'whole',
    'resize': 'area',
    'weights_hash': '',
    'config': ConfigDict(),
    'folder': pathlib.Path(),
  }
  attributes = defaults | attributes
  views = tuple(geometry.parse_views([attributes['view']]).values())
  size = fields.get('image_size', 224)
  preprocess = Preprocess(size, model.modalities, test_views=views, resize=attributes['resize'])
  return TrainedModel(fields, model, variables, model.subsets, preprocess=preprocess, **attributes)


def _merge_lora(fields: dict[str, Any], model: flexmodal.Model, variables):
  """The same function without LoRA, whose products become part of the weights."""
  adapters = fields['backbone'].get('adapters', ())
  low_rank = [dict(a) for a in adapters if a['name'] == 'lora']
  if not low_rank:
    return fields, model, variables
  params = lora.merge(variables['params'], lookup.make('adapter', **low_rank[0], parent=None))
  rest = tuple(a for a in adapters if a['name'] != 'lora')
  fields = {**fields, 'backbone': {**fields['backbone'], 'adapters': rest}}
  variables = jax.tree.map(np.asarray, {**variables, 'params': params})
  return fields, flexmodal.build(**fields), variables
