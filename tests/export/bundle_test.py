"""A run becomes a bundle that decides alike, in every format; what is wrong leaves nothing."""

import csv
import hashlib
import importlib.util
import json
import pathlib
import shutil
import sys

import cv2
import jax
import numpy as np
import pytest

from flexfas_jax import errors, predict
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.export import bundle, bundle_thresholds, graph, trained_model, val_data
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.prediction import Predictor
from flexfas_jax.prediction.runners import stablehlo
from flexfas_jax.training import setup
from tests import small_job

EXTRAS = {'onnx': 'jax2onnx', 'tflite': 'litert_converter'}
# A set of a few subjects, which the defaults of an export refuse.
TINY = {'min_val_scores': 12, 'min_val_subjects': 2}
HERE = [f for f in bundle.FORMATS if importlib.util.find_spec(EXTRAS.get(f, 'jax'))]


@pytest.fixture(scope='module')
def config(prepared, tmp_path_factory):
  names = {}
  path = small_job.write_config(tmp_path_factory.mktemp('config') / 'small.py', prepared)
  exec(path.read_text(), names)
  return names['get_config']()


@pytest.fixture(scope='module', autouse=True)
def one_device():
  """Less to compile."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    yield


@pytest.fixture(scope='module')
def run(small_run, tmp_path_factory):
  """The workdir of a run that was evaluated, to export to."""
  return shutil.copytree(small_run, tmp_path_factory.mktemp('runs') / 'small')


@pytest.fixture(scope='module')
def exported(config, run):
  bundle.export(config, str(run), formats=','.join(HERE), **TINY)
  return run / 'bundle'


@pytest.fixture(scope='module')
def card(exported):
  return json.loads((exported / 'card.json').read_text())


def test_no_file_of_a_bundle_has_a_path_of_the_machine_that_wrote_it(exported, prepared):
  root = pathlib.Path(bundle.__file__).parents[2]
  paths = (str(root), str(exported.parent), prepared, sys.prefix)
  for file in filter(pathlib.Path.is_file, exported.rglob('*')):
    content = file.read_bytes()
    assert not [path for path in paths if path.encode() in content], file.name


def test_every_file_is_named_with_its_hash(exported, card):
  named = {e['file']: e for e in card['models']} | card['files']
  there = {p.relative_to(exported).as_posix() for p in exported.rglob('*') if p.is_file()}
  assert there == named.keys() | {'card.json'}
  for name, listed in named.items():
    data = (exported / name).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (listed['bytes'], listed['sha256']), (
      name
    )
  assert [p.name for p in exported.parent.glob('.*')] == []  # nothing half written


def test_the_card(card, run):
  header = json.loads((run / 'scores' / 'val.json').read_text())
  assert card['weights_hash'] == header['weights_hash']
  assert card['subsets'] == ['rgb', 'rgb+ir', 'ir'] == list(card['thresholds'])
  assert {t['list_hash'] for t in card['thresholds'].values()} == {header['list_hash']}
  assert card['inputs']['rgb'] == {
    'channels': 3, 'order': 'RGB', 'layout': 'NHWC', 'size': 16, 'dtype': 'float32',
    'range': [-0.99609375, 0.99609375], 'bits': [8],
  }  # fmt: skip
  results = json.loads((run / 'results.json').read_text())
  assert card['metrics']['intra']['rgb']['acer'] == results['intra']['rgb']['acer']
  assert card['data']['rendered'] and 'RENDERED' in ' '.join(card['notes'])
  assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_the_card_can_be_read(exported, card):
  text = (exported / 'CARD.md').read_text()
  for part in (*(e['file'] for e in card['models']), 'dev_eer', card['weights_hash'], 'Apache-2.0'):
    assert part in text
  for name, one in card['thresholds'].items():
    assert f'| {name} | {one["value"]:.6f} |' in text
  assert text.index('> **') < text.index('## Verdict') < text.index('## Intended use')
  assert '- `intra`: no requirement given' in text and 'PAI species of `intra`' in text


def test_each_format_is_within_the_bound(card):
  precise = [e for e in card['models'] if e['precision'] == 'float32']
  assert {e['format'] for e in precise} == set(HERE)
  for entry in precise:
    kinds = {'fixed', 'random', 'val'} | ({'masked'} if entry['present'] else set())
    assert kinds <= entry['parity']['difference'].keys(), entry['file']
    assert max(entry['parity']['difference'].values()) <= 1e-4
    assert all(
      v['changed_decisions'] == v['acer_loss'] == 0 for v in entry['parity']['val'].values()
    )
  for entry in card['models']:
    alone = '_rgb' in entry['file']
    assert entry['modalities'] == (['rgb'] if alone else ['rgb', 'ir'])
    assert entry['parity']['val'].keys() == ({'rgb'} if alone else {'rgb', 'rgb+ir', 'ir'})


def test_thresholds_decide_as_the_score_files_do(card, run):
  rows = list(csv.DictReader((run / 'scores' / 'val.csv').read_text().splitlines()))
  for name, one in card['thresholds'].items():
    score = np.array([float(row[name]) for row in rows])
    assert one['value'] < one['fitted'], 'the sample that it was fitted on is on the edge'
    np.testing.assert_array_equal(score >= one['value'], score >= one['fitted'])


def test_whoever_follows_the_samples_gets_their_scores(exported, card):
  """From the pictures, by the preprocessing and one of the files, to the scores."""
  entry = next(e for e in card['models'] if e['format'] == 'stablehlo')
  model = stablehlo.load((exported / entry['file']).read_bytes(), entry)
  preprocess = Preprocess(card['image_size'], card['modalities'])
  listed = json.loads((exported / 'samples' / 'samples.json').read_text())['samples']
  assert {one['label'] for one in listed} == {'bona_fide', 'attack'}
  for one in listed:
    pictures = {m: (exported / file).read_bytes() for m, file in one['files'].items()}
    assert cv2.imdecode(np.frombuffer(pictures['rgb'], np.uint8), -1).shape[-1] == 3
    arrays = preprocess({'id': one['id'], 'label': 0, **pictures})
    for m, about in one['arrays'].items():
      assert hashlib.sha256(arrays[m].astype('<f4').tobytes()).hexdigest() == about['sha256']
    for name, expected in one['expected'].items():
      present = np.array([[m in name.split('+') for m in card['modalities']]])
      logit = model({m: arrays[m][None] for m in card['modalities']}, present)[0]
      assert logit == pytest.approx(expected['logit'], abs=1e-4)
      assert expected['accept'] == (expected['score'] >= card['thresholds'][name]['value'])


def test_a_weight_that_is_off_ends_with_5_and_leaves_nothing(config, run, tmp_path, monkeypatch):
  def off(model, variables, subset=None, build=graph.build):
    variables = jax.tree.map(np.copy, variables)
    variables['params']['head']['logit']['bias'] += 2e-3
    return build(model, variables, subset)

  monkeypatch.setattr(graph, 'build', off)
  target = tmp_path / 'bundle'
  code = errors.exit_code_of(
    lambda: bundle.export(config, str(run), str(target), 'stablehlo', **TINY)
  )
  assert code == 5
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'options,error,said',
  [
    ({'formats': 'coreml'}, ConfigError, "unknown 'coreml'; choose from: stablehlo, onnx"),
    ({'formats': ','}, ConfigError, '--formats is empty'),
    ({'modalities': 'rgb,thermal'}, ConfigError, "no 'thermal'; it has: rgb, ir"),
    ({'modalities': ''}, ConfigError, 'choose from: rgb, rgb\\+ir, ir'),
  ],
)
def test_wrong_usage(config, run, tmp_path, options, error, said):
  with pytest.raises(error, match=said):
    bundle.export(config, str(run), str(tmp_path / 'b'), **options)
  assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken(config, run, tmp_path):
  with pytest.raises(StateError, match='exists; name another'):
    bundle.export(config, str(run), str(tmp_path), 'stablehlo')


@pytest.mark.parametrize('name,format', [('jax2onnx', 'onnx'), ('litert_converter', 'tflite')])
def test_a_missing_extra(config, run, tmp_path, monkeypatch, name, format):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ConfigError, match=rf"pip install 'flexfas_jax\[{format}\]'"):
    bundle.export(config, str(run), str(tmp_path / 'b'), format)


def test_a_jax_that_the_converter_cannot_read(config, run, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, '__version_info__', (0, 12, 0))
  with pytest.raises(ConfigError, match='jax2onnx cannot convert graphs of JAX .* JAX 0.11'):
    bundle.export(config, str(run), str(tmp_path / 'b'), 'onnx')


def test_a_subset_that_the_fusion_cannot_serve(config, run):
  source = trained_model.restore(config, run)
  source = source._replace(subsets=(('rgb',), ('rgb', 'ir')))
  source.model.requires = ('rgb',)
  with pytest.raises(ConfigError, match='ir cannot be served: the fusion requires rgb'):
    bundle.parse_subsets(source, 'ir')
  assert bundle.parse_subsets(source, 'ir+rgb,rgb') == ([('rgb',)], True)
  assert bundle.parse_subsets(source, 'rgb') == ([('rgb',)], False)


def test_a_workdir_that_is_not_ready(config, run, tmp_path):
  def export():
    bundle.export(config, str(tmp_path / 'run'), str(tmp_path / 'b'), 'stablehlo')

  with pytest.raises(StateError, match='holds no training'):
    export()
  shutil.copytree(run, tmp_path / 'run', ignore=shutil.ignore_patterns('bundle'))
  header = tmp_path / 'run' / 'scores' / 'intra.json'
  header.write_text(header.read_text().replace('"weights_hash": "', '"weights_hash": "0'))
  with pytest.raises(StateError, match='belongs to other weights than step 8'):
    export()
  (tmp_path / 'run' / 'results.json').unlink()
  with pytest.raises(StateError, match='no results.json; run --mode=evaluate first'):
    export()
  shutil.rmtree(tmp_path / 'run' / 'checkpoints')
  with pytest.raises(StateError, match='no checkpoint'):
    export()
  assert not (tmp_path / 'b').exists()


def test_val_is_scored_again_where_its_scores_are_of_others(config, run, tmp_path):
  source = trained_model.restore(config, run)
  stored, origin = bundle_thresholds.get_val_scores(source, None)
  assert origin == 'scores/val.csv'
  (tmp_path / 'scores').mkdir()
  again, origin = bundle_thresholds.get_val_scores(
    source._replace(folder=tmp_path), val_data.open_val(source)
  )
  assert origin == 'scored by the export'
  assert again.ids.tolist() == stored.ids.tolist()
  for name, score in stored.scores.items():
    np.testing.assert_allclose(again.scores[name], score, atol=1e-5)


def test_of_several_views_the_first_is_exported(config, run, tmp_path):
  """By which a device looks once; its thresholds are of that, not of the mean of the run's."""
  config = config.copy_and_resolve_references()
  config.views = ('centre=0.8', 'flip')
  bundle.export(config, str(run), str(tmp_path / 'bundle'), formats='weights', **TINY)
  card = json.loads((tmp_path / 'bundle' / 'card.json').read_text())
  assert card['view'] == 'centre=0.8' and "view 'centre=0.8'" in ' '.join(card['preprocessing'])
  assert any('mean over the views centre=0.8, flip' in note for note in card['notes'])
  assert {one['scores'] for one in card['thresholds'].values()} == {'scored by the export'}
  predictor = Predictor.load(tmp_path / 'bundle', format='weights')
  listed = json.loads((tmp_path / 'bundle' / 'samples' / 'samples.json').read_text())['samples']
  for one in listed:
    pictures = {m: tmp_path / 'bundle' / file for m, file in one['files'].items()}
    decision = predictor(**pictures)
    assert decision.score == pytest.approx(
      one['expected']['+'.join(decision.used)]['score'], abs=1e-5
    )


def test_the_resizing_of_a_run_is_in_its_bundle(config, run, card, tmp_path):
  """A device resizes as the training did, and the card says how."""
  config, workdir = config.copy_and_resolve_references(), tmp_path / 'run'
  config.resize = 'bilinear'
  with pytest.raises(StateError, match='resize: area in the workdir, bilinear now'):
    bundle.export(config, str(run), str(tmp_path / 'other'), formats='weights', **TINY)
  shutil.copytree(run, workdir)
  fields = json.loads((workdir / 'config.json').read_text())
  (workdir / 'config.json').write_text(json.dumps(fields | {'resize': 'bilinear'}))
  bundle.export(config, str(workdir), str(tmp_path / 'bundle'), formats='weights', **TINY)
  written = json.loads((tmp_path / 'bundle' / 'card.json').read_text())
  assert (card['resize'], written['resize']) == ('area', 'bilinear')
  text = ' '.join(card['preprocessing']), ' '.join(written['preprocessing'])
  assert 'INTER_AREA' in text[0] and 'INTER_AREA' not in text[1]
  assert 'also where the image shrinks' in text[1]
  predictor = Predictor.load(tmp_path / 'bundle', format='weights')
  by_area = Predictor.load(run / 'bundle', format='weights')
  listed = json.loads((tmp_path / 'bundle' / 'samples' / 'samples.json').read_text())['samples']
  for one in listed:
    pictures = {m: tmp_path / 'bundle' / file for m, file in one['files'].items()}
    decision = predictor(**pictures)
    expected = one['expected']['+'.join(decision.used)]['score']
    assert decision.score == pytest.approx(expected, abs=1e-5)
    assert by_area(**pictures).score != pytest.approx(expected, abs=1e-5)


def test_a_small_val_is_refused_by_default(config, run, tmp_path, capsys):
  """36 samples of 2 subjects: a threshold that is fitted on them says nothing of others."""
  target = tmp_path / 'bundle'
  code = errors.exit_code_of(lambda: bundle.export(config, str(run), str(target), 'weights'))
  said = capsys.readouterr().err
  assert code == 4 and 'Required: 30 scores of 10 subjects of each class' in said
  assert 'lower --min_val_scores and --min_val_subjects' in said
  assert list(tmp_path.iterdir()) == []


def test_lower_minimums_are_said(card, exported):
  assert card['evidence'] == {'min_scores': 12, 'min_subjects': 2}
  for text in (' '.join(card['notes']), (exported / 'CARD.md').read_text()):
    assert 'accepted from 12 scores of 2 subjects of each class on val; the default is 30' in text
  for one in card['thresholds'].values():
    assert one['counts'] == {
      'attack': {'scores': 24, 'subjects': 2},
      'bona_fide': {'scores': 12, 'subjects': 2},
    }


def test_prediction_with_a_subset_without_evidence_is_refused(
  config, run, prepared, tmp_path, monkeypatch, capsys
):
  """No bona fide val sample has infrared: no threshold for it, and no decision by it."""
  read_presence = bundle_thresholds.read_presence

  def without_ir(source, val):
    labels = dict(zip(val.columns['id'], val.columns['label'], strict=True))
    return {
      id_: row & np.array([True, labels[id_] == 'attack'])
      for id_, row in read_presence(source, val).items()
    }

  monkeypatch.setattr(bundle_thresholds, 'read_presence', without_ir)
  target = tmp_path / 'bundle'
  bundle.export(config, str(run), str(target), 'weights', **TINY)
  warned = capsys.readouterr().err
  for name in ('rgb+ir', 'ir'):
    assert f'warning: No threshold for {name} (0 bona_fide scores of 0 subjects)' in warned
  card = json.loads((target / 'card.json').read_text())
  assert list(card['thresholds']) == ['rgb'] and card['subsets'] == ['rgb', 'rgb+ir', 'ir']
  assert any('No threshold for ir' in note for note in card['notes'])
  text = (target / 'CARD.md').read_text()
  assert '| ir | none: refused |' in text and 'No threshold for ir' in text
  files = {m: target / f'samples/0_{m}.png' for m in ('rgb', 'ir')}
  predictor = Predictor.load(target, format='weights')
  assert predictor(rgb=files['rgb']).threshold == card['thresholds']['rgb']['value']
  for given in (files, {'ir': files['ir']}):
    with pytest.raises(
      StateError, match='has no threshold for (rgb.)?ir .it has: rgb.*validation scores'
    ):
      predictor(**given)
  args = [str(target), '--format=weights', f'--data={config.val}', f'--data_dir={prepared}']
  assert predict.main([*args, f'--out={tmp_path}/o.csv']) == 4
  out, err = capsys.readouterr()
  assert 'no threshold for rgb+ir' in err and 'bona_fide' not in out


def test_a_signed_bundle_by_the_command(run, prepared, tmp_path):
  """The flags of the export reach the card, and the keys those of prediction."""
  pytest.importorskip('cryptography')
  from tests.prediction.signature_test import write_keys

  private, public = write_keys(tmp_path, 'own')
  path = small_job.write_config(tmp_path / 'small.py', prepared)
  flags = ['--mode=export', '--formats=weights', f'--export_dir={tmp_path}/bundle', '--sequence=5']
  flags += [f'--sign_key={private}', '--min_val_scores=12', '--min_val_subjects=2']
  ((code, _, stderr),) = small_job.finish(small_job.start(path, run, 1, 1, *flags))
  assert code == 0, stderr
  card = json.loads((tmp_path / 'bundle/card.json').read_text())
  assert card['sequence'] == 5
  args = [str(tmp_path / 'bundle'), f'--rgb={tmp_path}/bundle/samples/0_rgb.png']
  args += ['--format=weights', f'--public_key={public}']
  assert predict.main([*args, '--min_sequence=5']) == 0
  assert predict.main([*args, '--min_sequence=6']) == 4
  (tmp_path / 'bundle/card.json').write_text(json.dumps(card))
  assert predict.main(args) == 4


def test_a_key_that_signs_nothing_is_found_at_once(config, run, tmp_path):
  (tmp_path / 'key.pem').write_text('no key')
  with pytest.raises(ConfigError, match='is not the PEM file of a private Ed25519 key'):
    bundle.export(config, str(run), str(tmp_path / 'b'), 'weights', sign_key=tmp_path / 'key.pem')
  with pytest.raises(ConfigError, match='--sequence=-1'):
    bundle.export(config, str(run), str(tmp_path / 'b'), 'weights', sequence=-1)


def test_flags_of_another_mode_are_refused():
  import subprocess

  command = [sys.executable, '-m', 'flexfas_jax.main', '--config=configs/vit_fusion.py']
  command += ['--workdir=/nowhere', '--formats=onnx']
  found = subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], capture_output=True)
  assert (found.returncode, b'--formats requires --mode=export' in found.stderr) == (2, True)
