"""Many decisions at once: what a sample was given and could not be used, by either rule."""

import numpy as np
import pytest

from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.prediction import Predictor, card, score_table
from flexfas_jax.prediction.samples import Sample
from tests.prediction import bundles


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  return bundles.write(tmp_path_factory.mktemp('bundles') / 'toy')


def covered(*modalities):
  return {
    m: np.zeros_like(image) if m in modalities else image for m, image in bundles.triplet().items()
  }


def test_as_evaluated_unusable_is_absent(bundle, tmp_path):
  """Whatever the predictor allows; what it requires is still required."""
  given = [Sample('a', covered(), 'attack'), Sample('b', covered('depth', 'ir'), 'attack')]
  rgb_only = Predictor.load(bundle)(rgb=given[0].given['rgb'])
  for allow_absent in ((), ('ir',)):
    predictor = Predictor.load(bundle, allow_absent=allow_absent)
    table = score_table.score_samples(predictor, given, as_evaluated=True)
    assert table.header['unusable']['rule'] == 'absent, as in evaluation'
    assert table.decisions[1].accepted and table.decisions[1].unusable == ('depth', 'ir')
    assert table.scores['rgb+depth+ir'][1] == pytest.approx(rgb_only.score, abs=1e-6)
    assert np.isnan(table.scores['depth+ir'][1])
    strict = score_table.score_samples(predictor, given)
    assert strict.decisions[1].outcome == 'fta' and np.isnan(strict.scores['rgb+depth+ir'][1])
    assert strict.header['unusable'] == {
      'rule': 'failure to acquire',
      'allow_absent': list(allow_absent),
    }
  required = Predictor.load(bundle, require=['depth'])
  assert score_table.score_samples(required, given, as_evaluated=True).decisions[1].outcome == 'fta'
  score_table.write(tmp_path / 'o.csv', table)
  assert score_files.read(tmp_path / 'o.csv').extra['unusable'].tolist() == ['', 'depth+ir']
  unaffected = score_table.score_samples(predictor, given[:1])
  score_table.write(tmp_path / 'p.csv', unaffected)
  assert 'unusable' not in score_files.read(tmp_path / 'p.csv').extra


def test_the_header_names_modalities_that_no_sample_has(bundle):
  predictor = Predictor.load(bundle)
  images = covered('ir')  # which is given, and unusable
  table = score_table.score_samples(predictor, [Sample('a', images, 'attack')])
  assert 'not_recorded' not in table.header
  rgb_alone = [Sample(name, {'rgb': images['rgb']}, 'attack') for name in 'ab']
  table = score_table.score_samples(predictor, rgb_alone)
  assert table.header['not_recorded'] == ['depth', 'ir']
  # Sample a has broken files of depth and infrared: it fails to be acquired, both were recorded.
  broken = Sample('a', {**images, 'depth': b'\x89PNG', 'ir': b'\x89PNG'}, 'attack')
  table = score_table.score_samples(predictor, [broken, rgb_alone[1]])
  assert len(table.faults) == 1 and 'not_recorded' not in table.header


def test_the_header_states_a_model_of_rendered_faces(bundle, tmp_path):
  sample = [Sample('a', covered(), 'attack')]
  assert 'notes' not in score_table.score_samples(Predictor.load(bundle), sample).header
  rendered = bundles.write(tmp_path / 'rendered', data={'rendered': True})
  (note,) = score_table.score_samples(Predictor.load(rendered), sample).header['notes']
  assert note.startswith('RENDERED: the model was trained')


def test_a_modality_that_the_model_does_not_have_is_reported(bundle):
  entry = {'file': 'model', 'modalities': ['rgb', 'ir'], 'present': True}

  def run(images, present):
    return np.zeros(len(present), np.float32)

  predictor = Predictor(card.read(bundle), entry, run)
  (decision,) = score_table.score_samples(predictor, [Sample('a', covered('depth'))]).decisions
  assert decision.used == ('rgb', 'ir') and decision.outcome != 'fta'
  assert decision.reasons == ('depth is not an input of this model: ignored',)


def test_a_subset_without_a_threshold_names_its_sample(tmp_path):
  folder = bundles.write(tmp_path / 'few', thresholds={})
  with pytest.raises(StateError, match=r'^the sample: .*no threshold for rgb\+depth\+ir'):
    score_table.score_samples(Predictor.load(folder), [Sample('the sample', covered(), 'attack')])
