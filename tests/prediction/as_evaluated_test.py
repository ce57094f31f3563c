"""A bundle scores a test set as the checkpoint's evaluation does, and is evaluated alike."""

import json

import cv2
import jax
import numpy as np
import pytest

from flexfas_jax import predict, schema
from flexfas_jax.evaluation import results, score_files
from flexfas_jax.export import graph
from flexfas_jax.export.formats import stablehlo
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.training import scoring
from tests import toy
from tests.prediction import bundles

BLACK = cv2.imencode('.png', np.zeros((64, 64, 1), np.uint8))[1].tobytes()
SETS = {
  'val': 'rendered_faces/surf_like_tiny:val',
  'test': 'rendered_faces/surf_like_tiny:test, rendered_faces/cefa_like_tiny:test'
  '[modalities=rgb,ir]',
}


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  """A toy model, exported."""
  model, variables = toy.make()
  folder = tmp_path_factory.mktemp('bundles') / 'toy'
  folder.mkdir()
  (entry,) = stablehlo.write(graph.build(model, variables), None, folder)
  content = (folder / entry['file']).read_bytes()
  entry |= bundles.about(content) | {'weights_hash': bundles.WEIGHTS}
  return bundles.write(folder, models=[entry], image_size=model.image_size)


class Covered:
  """A source whose infrared sensor is covered in every fifth sample."""

  is_remote = False

  def __init__(self, source):
    self._source, self.columns = source, source.columns

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    example = self._source[index]
    return {**example, 'ir': BLACK} if index % 5 == 0 else example


@pytest.mark.parametrize('covered', [False, True])
def test_it_is_as_evaluated(bundle, prepared, tmp_path, monkeypatch, capsys, covered):
  """Also where sensors are covered: both count them as absent."""
  if covered:
    plain = sources.open_source
    monkeypatch.setattr(sources, 'open_source', lambda *args: Covered(plain(*args)))
  monkeypatch.chdir(tmp_path)
  model, variables = toy.make()
  subsets = [tuple(name.split('+')) for name in bundles.SUBSETS]
  score = scoring.make_scorer(model, subsets, jax.device_put)
  evaluated, predicted = {}, {}
  for name, selections in SETS.items():
    source = sources.open_source(selections, prepared)
    batches = pipeline.eval_batches(source, Preprocess(model.image_size, model.modalities), 16)
    evaluated[name] = score(variables, batches)
    args = [bundle, f'--data={selections}', f'--data_dir={prepared}', f'--out={name}.csv']
    assert predict.main([str(arg) for arg in args]) == 0, capsys.readouterr().err
    predicted[name] = score_files.read(f'{name}.csv')
    assert predicted[name].ids.tolist() == evaluated[name].ids.tolist()
    for field in ('label', *schema.METADATA):
      np.testing.assert_array_equal(
        getattr(predicted[name], field), getattr(evaluated[name], field)
      )
    for subset, column in evaluated[name].scores.items():
      np.testing.assert_allclose(predicted[name].scores[subset], column, atol=1e-5)
  # The tiny pictures of one set lack depth: there is no score by depth alone, and none is made up.
  assert np.isnan(predicted['test'].scores['depth']).any()
  used = {'rgb+depth+ir', 'rgb+ir'} | ({'rgb+depth', 'rgb'} if covered else set())
  assert set(predicted['test'].extra['used'].tolist()) == used
  for of in predicted.values():
    assert of.header['unusable']['rule'] == 'absent, as in evaluation' and of.header['rendered']
    n = sum(i % 5 == 0 for i in range(of.ids.size)) if covered else 0
    assert (of.extra.get('unusable', np.array([])) == 'ir').sum() == n
  by = [results.compute(s['test'], 'dev_eer', s['val']) for s in (evaluated, predicted)]
  for subset, values in by[0].items():
    for metric, value in values.items():
      np.testing.assert_allclose(by[1][subset][metric], value, atol=1e-5, err_msg=metric)
  assert json.loads((tmp_path / 'test.json').read_text())['model'] == 'model.stablehlo'
