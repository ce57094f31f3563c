"""One pass for all subsets, every id once, nothing scored that cannot be served."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import schema
from flexfas_jax.models import flexmodal
from flexfas_jax.training import scoring
from tests.toy import make, make_batch


@pytest.mark.parametrize('absent', flexmodal.ABSENT)
def test_all_subsets_from_one_pass_equal_separate_passes(absent):
  """Each separate pass is the whole model under that subset's `present`, as training runs it; some
  samples lack sensors of the subset."""
  model, variables = make(fusion='cross_attention', absent=absent)
  there = jnp.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]], bool)
  batch = {**make_batch(model), 'present': there}
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=model.subsets))
  together, _ = step(variables, model.absent_maps(variables), batch)  # [S, B]
  alone = jax.jit(functools.partial(model.module.apply, train=False))
  for logits, subset in zip(together, model.subsets, strict=True):
    present = there & jnp.array([m in subset for m in model.modalities])[None]
    one = alone(variables, {**batch, 'present': present})['logit']
    np.testing.assert_allclose(logits, one, atol=1e-5, err_msg=str(subset))
  assert len({float(logits[0]) for logits in together}) == len(model.subsets)


def test_each_stream_is_encoded_once():
  """Counted where encoders run: as many passes as modalities, for seven subsets."""
  model, variables = make()
  calls = []

  class Counting:
    modalities, requires, cross_modal = model.modalities, model.requires, False
    decide = staticmethod(model.decide)

    @staticmethod
    def encode(variables, image, modality):
      calls.append(modality)
      return model.encode(variables, image, modality)

  step = functools.partial(scoring.score_step, model=Counting, subsets=model.subsets)
  jax.eval_shape(step, variables, model.absent_maps(variables), make_batch(model))
  assert sorted(calls) == ['depth', 'ir', 'rgb']


def test_what_subsets_share_is_computed_once():
  """Counted where a softmax over channels runs: depth, infrared, and the one picture that stands
  for either attend to RGB, in four sub-protocols with two each. The compiler finds what is equal
  only where the program says it of the same arrays."""
  model, variables = make(fusion='cross_attention', absent='blank')
  subsets = [s for s in model.subsets if 'rgb' in s]
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=subsets))
  absent = jax.jit(model.absent_maps)(variables)
  program = step.lower(variables, absent, make_batch(model)).compile().as_text()
  D = absent['rgb'][-1].shape[-1]
  assert len(subsets) == 4
  assert len(re.findall(rf'= f32\[4,{D},{D}\]\S* exponential', program)) == 3


def test_what_a_fusion_needs_and_lacks_is_not_scored():
  model, variables = make(fusion='cross_attention')
  batch = make_batch(model)
  batch['present'] = jnp.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=(('rgb', 'depth'),)))
  _, servable = step(variables, model.absent_maps(variables), batch)
  assert servable[0].tolist() == [True, False, True, False]

  model, variables = make(fusion='concat')  # needs nothing in particular, but something
  batch['present'] = jnp.array([[0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]], bool)
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=(('rgb', 'depth'),)))
  _, servable = step(variables, model.absent_maps(variables), batch)
  assert servable[0].tolist() == [True, False, True, False]


class Echo:
  """Stands in for a model: the logit is the first pixel."""

  modalities, requires, cross_modal = ('rgb', 'ir'), (), False

  @staticmethod
  def absent_maps(variables):
    return {}

  @staticmethod
  def encode(variables, image, modality):
    return image

  @staticmethod
  def decide(variables, maps, absent, present):
    return {'logit': next(iter(maps.values()))[:, 0, 0, 0]}


def make_batches(pixels, present, size):
  """As `pipeline.eval_batches`: padded arrays, what is known of the real samples."""
  for start in range(0, len(pixels), size):
    rows = np.arange(start, min(start + size, len(pixels)))
    padded = np.resize(rows, size)
    image = np.float32(pixels)[padded][:, None, None, None]
    arrays = {'rgb': image, 'ir': image, 'present': np.array(present)[padded]}
    arrays['label'] = np.zeros(size, np.int32)
    meta = dict.fromkeys(('dataset', 'subject', 'video', 'attack_type', 'attack_category'), '')
    yield arrays, [{**meta, 'id': f'id{i}', 'label': int(i) % 2} for i in rows]


@pytest.mark.parametrize('N,size', [(8, 8), (11, 8), (3, 8)])
def test_every_id_once_whatever_the_batch_size(N, size):
  """Padding leaves no score; the scores are those of the samples, in order."""
  score = scoring.make_scorer(Echo, [('rgb',)], place=lambda batch: batch)
  pixels = 20.0 + np.arange(N)
  scores = score({}, make_batches(pixels, [[True, True]] * N, size))
  assert scores.ids.tolist() == [f'id{i}' for i in range(N)]
  np.testing.assert_allclose(scores.scores['rgb'], 1 / (1 + np.exp(-pixels)), rtol=1e-6)
  assert len(set(scores.scores['rgb'])) == N  # in float32 all would be 1: ties


def test_a_fault_of_the_model_is_no_failure_to_acquire():
  present = [[True, True], [False, True], [True, True]]
  score = scoring.make_scorer(Echo, [('rgb',)], place=lambda batch: batch)
  scores = score({}, make_batches([0.0, np.nan, np.nan, np.inf], [*present, [True, True]], 4))
  assert np.isnan(scores.scores['rgb']).tolist() == [False, True, True, True]
  assert scores.nan_samples['rgb'].tolist() == [2, 3]  # of the second there was nothing to score


def test_views_are_scored_as_each_alone():
  """Of a batch with padding: [B, V, H, W, C] in, one column for each subset and view out."""
  model, variables = make()
  pictures = [
    {**make_batch(model, 5, seed), 'present': np.array([[1, 1, 1]] * 4 + [[0, 1, 1]], bool)}
    for seed in (0, 1)
  ]
  names = ('whole', 'flip')

  def batches(of):
    images = {m: np.stack([np.asarray(p[m]) for p in of], 1) for m in model.modalities}
    images = images if len(of) > 1 else {m: x[:, 0] for m, x in images.items()}
    for rows in ([0, 1, 2], [3, 4, 3]):
      arrays = {m: x[rows] for m, x in images.items()} | {'present': pictures[0]['present'][rows]}
      yield arrays, [{'id': f'id{i}', 'label': 1} for i in dict.fromkeys(rows)]

  score = scoring.make_scorer(model, model.subsets, lambda batch: batch, views=names)
  together = score(variables, batches(pictures))
  assert list(together.scores) == [
    f'{schema.subset_name(s)}@{view}' for s in model.subsets for view in names
  ]
  assert np.isnan(together.scores['rgb@flip']).tolist() == [False] * 4 + [True]
  for view, picture in zip(names, pictures, strict=True):
    alone = score(variables, batches([picture]))
    for subset in map(schema.subset_name, model.subsets):
      np.testing.assert_allclose(
        together.scores[f'{subset}@{view}'], alone.scores[subset], rtol=1e-5
      )


@pytest.mark.parametrize('map_members', [jax.lax.map, lambda f, stacked: jax.vmap(f)(stacked)])
def test_stacked_members_are_scored_as_each_alone(map_members, monkeypatch):
  """Both ways, that of a CPU and that of an accelerator."""
  monkeypatch.setattr(scoring, '_map_members', map_members)
  model, variables = make(fusion='concat', absent='blank')
  other = jax.tree.map(lambda x: x * 1.1, variables)
  batch = {**make_batch(model), 'present': np.array([[1, 1, 1]] * 3 + [[0, 1, 1]], bool)}
  batches = [(batch, [{'id': f'id{i}', 'label': 1} for i in range(4)])]
  args = model, (('rgb',), ('rgb', 'ir')), lambda x: x
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), variables, other)
  headers = {'step': 1}, {'step': 2}
  found = scoring.make_stacked_scorer(*args)(stacked, batches, headers)
  score = scoring.make_scorer(*args)
  assert [of.header for of in found] == list(headers)
  for of, own in zip(found, (variables, other), strict=True):
    alone = score(own, batches)
    assert of.ids.tolist() == alone.ids.tolist()
    for subset in alone.scores:
      np.testing.assert_allclose(of.scores[subset], alone.scores[subset], rtol=1e-5)
  assert (found[0].scores['rgb'] != found[1].scores['rgb'])[:3].all()
