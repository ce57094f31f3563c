"""What a bundle is made of: the best step of a workdir, computing in float32, and its val set."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.images import geometry
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import sources
from flexfas_jax.models import flexmodal
from flexfas_jax.models.weights import variable_tree
from flexfas_jax.training import setup, workdir
from flexfas_jax.training.tasks import AntiSpoofing, dataset_scoring


class Source(NamedTuple):
  """What is exported.

  Attributes:
    fields: of `flexmodal.build`; float32, its blocks unrolled and not computed again.
    model, variables: of these fields; NumPy arrays.
    subsets: of its modalities, those that are served.
    weights_hash: of the checkpoint, as the score files have it.
    step: of the checkpoint.
    header: of what is written of it, see `dataset_scoring.restore_best`.
    view: that pictures are looked at by: the first of the run's, see `geometry.named_views`.
    resize: how they are resized, see `geometry.RESIZES`.
    preprocess: pictures to arrays, by that view.
    config: of the run, the protocol's selections in place.
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


def of_workdir(config: ConfigDict, folder: pathlib.Path) -> Source:
  """The best step of a run.

  Args:
    config: the run's; tests and rules may be others, as for evaluation.
    folder: its workdir.

  Raises:
    ConfigError: a model that decides nothing.
    StateError: no such run, no checkpoint, or a damaged one.
  """
  experiment = setup.build(config, classes=2)
  if experiment.target:
    raise ConfigError('a model of identities decides nothing: export one that tells attacks')
  workdir.refuse_changes(
    folder, workdir.changed_fields(folder, experiment.config.to_dict(), workdir.ONLY_TESTS)
  )
  if not (folder / 'config.json').exists():
    raise StateError(f'{folder} holds no training; run with --mode=train first')
  step, variables, header = dataset_scoring.restore_best(
    experiment, folder, AntiSpoofing.metric, []
  )
  return make(
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


def make(fields: dict[str, Any], variables, **about) -> Source:
  """A model with its weights; `about` are further attributes, those left out are empty."""
  fields = {**fields, 'modalities': list(fields['modalities']), 'dtype': 'float32'}
  fields['backbone'] = dict(fields['backbone'])
  for loop in ('scan', 'remat'):  # of training alone; a graph of an unrolled model is plainer
    if loop in fields['backbone']:
      fields['backbone'][loop] = False
  model = flexmodal.build(**fields)
  variables = jax.tree.map(np.asarray, variables)
  like = jax.eval_shape(model.init, jax.random.key(0))
  if jax.tree.structure(like) != jax.tree.structure(variables):
    variables = jax.tree.map(np.asarray, variable_tree.restack(variables, like))
  default = {
    'step': 0,
    'header': {},
    'view': 'whole',
    'resize': 'area',
    'weights_hash': '',
    'config': ConfigDict(),
    'folder': pathlib.Path(),
  }
  about = default | about
  looks = tuple(geometry.named_views([about['view']]).values())
  size = fields.get('image_size', 224)
  preprocess = Preprocess(size, model.modalities, test_views=looks, resize=about['resize'])
  return Source(fields, model, variables, model.subsets, preprocess=preprocess, **about)


class Some:
  """Examples of a set, evenly spread over it: what `pipeline.eval_batches` takes for a set."""

  def __init__(self, source: sources.Source, most: int):
    n = min(len(source), most)
    self.places = np.linspace(0, len(source) - 1, n).round().astype(int) if n else np.arange(0)
    self.columns = {k: [v[i] for i in self.places] for k, v in source.columns.items()}
    self._source = source

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> dict:
    return self._source[int(self.places[index])]


def open_val(source: Source) -> sources.Source:
  """The val set of the run.

  Raises:
    DataError: it is not here.
  """
  return sources.open_source(source.config.val, source.config.data_dir)
