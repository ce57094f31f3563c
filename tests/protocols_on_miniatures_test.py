"""Every protocol, from the layouts in which data sets are handed out to a training step."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_curve

from configs import vit_fusion
from flexfas_jax import lookup
from flexfas_jax.evaluation import aggregation, metrics
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.models import flexmodal
from flexfas_jax.protocols import leakage
from flexfas_jax.protocols.definitions import PROTOCOLS
from flexfas_jax.schema import METADATA, subset_name
from flexfas_jax.training import datasets, setup
from flexfas_jax.training import optimizer as optimizers
from flexfas_jax.training.step import init_state, train_step
from flexfas_jax.training.tasks import anti_spoofing
from tests import forked
from tests.miniatures import casia_cefa, casia_surf, padisi, wmca
from tests.miniatures import flexmodal as exports

SIZE, BATCH = 16, 4
# Protocols whose fields may be anything, on sets that have what they need.
FREE = {
  'splits': ['set=casia_surf/release'],
  'leave_one_attack_out': [
    'set=casia_cefa/release, attack=replay',
    'set=rendered_faces/surf_like_tiny, attack=eyes_flat',
  ],
  'mm_fas_like': [
    'set=casia_cefa/release, attack=replay',
    'set=casia_surf/release, attack=05_enm_s',
  ],
  'rendered_mm_fas': [  # of the handful of people here nobody is in part 2
    'attack=eyes_nose_curved',
    'attack=eyes_nose_mouth_flat, part=1',
    'size=_tiny',
  ],
}


def asked():
  """Each protocol with each value of its fields, one field at a time."""
  for name, protocol in PROTOCOLS.items():
    if name in FREE:
      yield from (f'{name}({fields})' for fields in FREE[name])
      continue
    yield name
    for field, values in protocol.fields.items():
      yield from (f'{name}({field}={value})' for value in list(values)[1:])


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Every set of every protocol, prepared from its layout."""
  root = tmp_path_factory.mktemp('miniatures')
  out = str(root / 'prepared')
  casia_surf.write_challenge(root / 'challenge')
  casia_surf.write_mm_fas_folds(root / 'challenge')
  casia_surf.write_release(root / 'release')
  casia_cefa.write_ethnicity(root / 'cefa')
  wmca.write_preprocessed(root / 'wmca')
  wmca.write_protocols(root / 'wmca')
  wmca.write_protocols(root / 'exports')
  padisi.write(root / 'padisi')
  exports.write(root / 'exports', faults=True)
  for dataset, source in (
    ('casia_surf/challenge', 'challenge'),
    ('casia_surf/release', 'release'),
    ('casia_cefa/release', 'cefa'),
    ('wmca/preprocessed', 'wmca'),
    ('padisi/face', 'padisi'),
    *((f'{name}/flexmodal', 'exports') for name in ('casia_surf', 'casia_cefa', 'wmca')),
    *((f'{name}/flexmodal_published', 'exports') for name in ('casia_surf', 'casia_cefa', 'wmca')),
  ):
    sources.prepare(dataset, out, source=str(root / source), workers=1)
  return out


@pytest.fixture(scope='module')
def step():
  """One training step of a toy, compiled once."""
  model = flexmodal.build(
    modalities=('rgb', 'depth', 'ir'),
    image_size=SIZE,
    backbone={'name': 'vit', 'variant': 'mu', 'patch_size': 8},
    fusion={'name': 'concat'},
    head={'name': 'binary_logit'},
  )
  tx, _ = optimizers.build({'name': 'sgd'}, {'name': 'constant', 'peak': 1e-3}, 10, None)
  key = jax.random.key(0)
  state = jax.jit(lambda k: init_state(k, model=model, optimizer=tx))(key)
  run = jax.jit(
    functools.partial(
      train_step,
      model=model,
      optimizer=tx,
      loss=lookup.make_loss('binary_cross_entropy'),
      modality_dropout={},
    )
  )
  return lambda batch: run(state, batch, key)[1]


@pytest.mark.parametrize('text', list(asked()))
def test_a_protocol_runs_on_its_sets(data_dir, prepared, step, text):
  protocol = lookup.make_protocol(text)
  rendered = 'rendered_faces' in protocol.train

  def open_(names):
    return sources.open_source(
      names.replace('surf_like:', 'surf_like_tiny:').replace('cefa_like:', 'cefa_like_tiny:')
      .replace('wmca_like:', 'wmca_like_tiny:').replace('padisi_like:', 'padisi_like_tiny:'),
      prepared if rendered else data_dir, check=False,
    )  # fmt: skip

  train, val = open_(protocol.train), open_(protocol.val)
  tests = {name: open_(names) for name, names in protocol.test.items()}
  columns = {name: source.columns for name, source in tests.items()}
  leakage.check(train.columns, val.columns, columns, protocol.leaks)
  for source in (train, val, *tests.values()):
    assert set(source.columns['label']) == {'bona_fide', 'attack'}, source
  batches = pipeline.train_batches(
    train, Preprocess(SIZE, ('rgb', 'depth', 'ir')), min(BATCH, len(train)), seed=0
  )
  batch = next(batches)
  batch = {k: np.resize(v, (BATCH, *v.shape[1:])) for k, v in batch.items()}
  assert np.isfinite(float(step(batch)['loss']))


def test_flexmodals_recipe_runs_from_its_exports(data_dir, tmp_path):
  """Trains on SURF and CeFA, is tested there and on WMCA, by the published lists' format."""
  settings = {
    'data_dir': data_dir,
    'pretrained.weights': '',
    'model.backbone.variant': 'mu',
    'model.image_size': SIZE,
    'batch_size': 8,
    'steps': 2,
    'eval_every': 2,
  }
  flags = ['--config=configs/vit_fusion.py:flexmodal', f'--workdir={tmp_path}/run']
  flags += [f'--config.{k}={v}' for k, v in settings.items()]
  found = forked.run('flexfas_jax.main', *flags)
  assert found.returncode == 0, found.stderr
  results = json.loads((tmp_path / 'run/results.json').read_text())
  assert sorted(results) == ['cross', 'intra']
  assert list(results['cross']) == ['rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir']
  assert {f'apcer/{c}' for c in ('fakehead', 'papermask', 'print')} <= set(results['cross']['rgb'])


def test_the_published_leak_is_accepted_and_reported(data_dir):
  config = vit_fusion.get_config('flexmodal')
  config.data_dir, config.pretrained.weights = data_dir, ''
  config.model.backbone.variant, config.model.image_size = 'mu', SIZE
  config.protocol = 'flexmodal_published'
  notes = datasets.open_all(setup.build(config).config).notes
  assert [note for note in notes if not note.startswith('note (same-bytes)')] == [
    'accepted leak flexmodal_v1: 1 subject in val and intra'
  ]


@pytest.mark.parametrize('rows', ['cleaned', 'published'])
@pytest.mark.parametrize('name', [name for name in PROTOCOLS if name.startswith('mmdg_')])
def test_mmdgs_figures_of_every_target_and_case(data_dir, tmp_path, capsys, name, rows):
  """HTER at the threshold of the sources' val, and the literature's, of frames and videos."""
  config = vit_fusion.get_config('flexmodal')
  config.data_dir, config.pretrained.weights, config.report = data_dir, '', False
  config.model.backbone.variant, config.model.image_size = 'mu', SIZE
  config.protocol = f'{name}(rows={rows})'
  experiment = setup.build(config)
  data = datasets.open_all(experiment.config)
  targets = name.rpartition('_')[2]
  sets = [one.partition('/')[0] for one in data.test['test'].names]
  assert sets == [{'c': 'casia_cefa', 'p': 'padisi', 's': 'casia_surf', 'w': 'wmca'}[t]
                  for t in targets]  # fmt: skip
  again = sum(id_.endswith(('#2', '#3')) for id_ in data.test['test'].columns['id'])
  assert again == (2 * sum(t in 'cs' for t in targets) if rows == 'published' else 0)
  rng = np.random.default_rng(0)
  scored = {}
  for side, source in {'val': data.val, **data.test}.items():
    label = np.array([int(value == 'bona_fide') for value in source.columns['label']])
    subsets = {
      subset_name(subset): 1 / (1 + np.exp(-label - rng.normal(size=len(label))))
      for subset in experiment.subsets
    }
    columns = {field: source.columns[field] for field in METADATA}
    scored[side] = Scores(ids=source.columns['id'], label=label, scores=subsets, **columns)
  anti_spoofing.write_evaluation(experiment, tmp_path, data, 1, scored)
  found = json.loads((tmp_path / 'results.json').read_text())
  assert list(found) == ['test', 'test, by video']
  cases = ['rgb', 'rgb+depth', 'rgb+ir'] if name[5] == '2' else ['rgb+depth+ir']
  headings = 'subset *HTER *AUC *HTER at test EER \\(ORACLE\\) *EER *threshold'
  assert len(re.findall(headings, capsys.readouterr().out)) == 2
  videos = aggregation.aggregate_by_video(scored['test'])
  assert len(videos.ids) < len(scored['test'].ids) or targets == 'p'
  for unit, scores in (('test', scored['test']), ('test, by video', videos)):
    assert list(found[unit]) == cases
    for case, values in found[unit].items():
      assert values['n_bona_fide'] + values['n_attack'] == len(scores.ids)
      fpr, tpr, _ = roc_curve(scores.label, scores.scores[case])
      k = np.argmin(np.abs(tpr + fpr - 1))
      assert values['hter_at_test_eer'] == pytest.approx((fpr[k] + 1 - tpr[k]) / 2)
      assert values['hter'] == values['acer'] and 'ORACLE' not in values
  val = scored['val']
  threshold = metrics.eer(metrics.curve(val.label, val.scores[cases[0]]))[1]
  assert found['test'][cases[0]]['threshold'] == threshold
