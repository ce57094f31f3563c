"""The same set on Apache Beam: the same examples, the same findings, and nothing half done."""

import csv
import json

import numpy as np
import pytest

from flexfas_jax import prepare
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources
from tests.miniatures import casia_surf, faces, manifest, padisi, wmca

pytest.importorskip(
  'apache_beam', reason="apache_beam is not installed: pip install 'flexfas_jax[beam]'"
)

# Beam holds protobuf at a version that TFDS, which asks it for what it has renamed, is warned by.
pytestmark = [
  pytest.mark.filterwarnings(r'ignore:label\(\) is deprecated:DeprecationWarning'),
  pytest.mark.process,  # Beam's runner may start workers
]

DIRECT = ('DirectRunner', '')
THREADS = ('DirectRunner', '--direct_num_workers=2 --direct_running_mode=multi_threading')


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
  """Three sources, which no test changes."""
  root = tmp_path_factory.mktemp('sources')
  padisi.write(root / 'padisi', padisi.SAMPLES[:6])
  wmca.write_preprocessed(root / 'wmca', wmca.VIDEOS[:4])
  return root


def both(dataset, source, tmp_path, runner=DIRECT, **settings):
  """What a build without Beam and one with it come to: folders, or errors."""
  done = []
  for name, beam in (('here', None), ('beam', runner)):
    try:
      done.append(
        sources.prepare(
          dataset, tmp_path / name, source=str(source), workers=1, beam=beam, **settings
        )
      )
    except DataError as error:
      done.append(error)
  return done


def examples(folder, split):
  dataset = '/'.join(folder.parts[-3:-1])
  source = sources.open_source(f'{dataset}:{split}', str(folder.parents[2]))
  return {source[i]['id']: source[i] for i in range(len(source))}


def findings(folder):
  with open(folder / 'bad_files.csv', encoding='utf-8', newline='') as file:
    return list(csv.reader(file))


def left(folder):
  return sorted(path.name for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize(
  'dataset, runner', [('padisi/face', DIRECT), ('wmca/preprocessed', THREADS)]
)
def test_the_same_examples(dataset, runner, trees, tmp_path):
  here, beam = both(dataset, trees / dataset.partition('/')[0], tmp_path, runner)
  assert examples(beam, 'whole') == examples(here, 'whole') != {}
  # In the same order, with the same digests, and the same said of them.
  assert (beam / 'manifest.csv').read_bytes() == (here / 'manifest.csv').read_bytes()
  cards = [json.loads((folder / 'card.json').read_text()) for folder in (here, beam)]
  assert cards[0] == cards[1]
  assert left(beam) == left(here)  # the workers' files are gone


def test_images_that_are_converted(tmp_path):
  source = tmp_path / 'source'
  source.mkdir()
  rows = []
  for i in range(4):
    row = {'label': 'bona_fide', 'subject': f's{i}', 'video': 'v', 'frame': '1'}
    for modality, image in faces.triplet('', i, size=48, depth_bits=16).items():
      row[modality] = f'{i}_{modality}.npy'
      np.save(source / row[modality], image / np.float32(1000) if modality == 'depth' else image)
    rows.append(row)
  manifest.write_csv(source / 'manifest.csv', rows)
  here, beam = both('manifest/ours', source, tmp_path, options={'depth_unit': 'm'})
  assert examples(beam, 'whole') == examples(here, 'whole') != {}
  assert (beam / 'manifest.csv').read_bytes() == (here / 'manifest.csv').read_bytes()
  assert b'NPY 48x48 32' in (here / 'manifest.csv').read_bytes()
  cards = [json.loads((folder / 'card.json').read_text()) for folder in (here, beam)]
  assert cards[0] == cards[1] and '12 NPY' in ' '.join(cards[0]['notes'])


def test_the_same_findings(tmp_path):
  source = tmp_path / 'source'
  padisi.write(source, padisi.SAMPLES[:6])
  bad = sorted(source.rglob('*.npz'))[::2]
  for number, path in enumerate(bad):
    path.write_bytes((b'', '<html>Straße\n</html>'.encode(), path.read_bytes()[:400])[number % 3])
  here, beam = both('padisi/face', source, tmp_path)
  assert '3 errors' in str(here)
  assert str(beam).replace('/beam/', '/here/') == str(here)
  reports = [tmp_path / name / 'padisi-face.bad_files.csv' for name in ('here', 'beam')]
  assert reports[0].read_bytes() == reports[1].read_bytes()
  assert left(tmp_path / 'beam') == ['metadata.json', 'padisi-face.bad_files.csv']
  here, beam = both('padisi/face', source, tmp_path, on_bad='skip')
  assert findings(beam) == findings(here) and len(findings(here)) == 4
  assert examples(beam, 'whole') == examples(here, 'whole') and len(examples(beam, 'whole')) == 3


def test_both_rows_of_one_id_are_read(tmp_path):
  source = tmp_path / 'source'
  rows = [row | {'id': f'id{i}'} for i, row in enumerate(manifest.write(source))]
  bad = source / rows[3]['rgb']
  bad.write_bytes(bad.read_bytes()[:400])
  rows[3]['id'] = rows[0]['id']
  manifest.write_csv(source / 'manifest.csv', rows)
  here, beam = both('manifest/own', source, tmp_path)
  assert 'duplicate' in str(here) and 'unreadable' in str(here)
  assert str(beam).replace('/beam/', '/here/') == str(here)
  reports = [tmp_path / name / 'manifest-own.bad_files.csv' for name in ('here', 'beam')]
  assert reports[0].read_bytes() == reports[1].read_bytes()


def test_several_splits_and_one_of_nothing_but_bad_files(tmp_path):
  source = tmp_path / 'source'
  casia_surf.write_challenge(source)
  for path in (source / 'Val').rglob('*.jpg'):
    path.write_bytes(b'')
  for path in sorted((source / 'Training').rglob('*.jpg'))[::10]:
    path.write_bytes(path.read_bytes()[:400])
  here, beam = both('casia_surf/challenge', source, tmp_path, on_bad='skip')
  assert 'is empty' in str(here) and 'unreadable' in str(here)
  # Of three splits, which end in any order.
  assert str(beam).replace('/beam/', '/here/') == str(here)
  reports = [tmp_path / name / 'casia_surf-challenge.bad_files.csv' for name in ('here', 'beam')]
  assert reports[0].read_bytes() == reports[1].read_bytes()
  assert left(tmp_path / 'beam') == ['casia_surf-challenge.bad_files.csv', 'metadata.json']


def test_a_defect_in_a_worker_leaves_nothing(trees, tmp_path, monkeypatch):
  def defect(*_):
    raise RuntimeError('a defect')

  monkeypatch.setattr('flexfas_jax.data.padisi.samples.SampleReader.read_images', defect)
  with pytest.raises(RuntimeError, match='a defect'):
    sources.prepare('padisi/face', tmp_path, source=str(trees / 'padisi'), workers=1, beam=DIRECT)
  assert left(tmp_path) == ['metadata.json']


def test_the_command_fetches_nothing(trees, tmp_path, monkeypatch, capsys):
  begun = []
  monkeypatch.setattr(
    'apache_beam.runners.portability.prism_runner.PrismRunner.run_pipeline',
    lambda self, *_: begun.append(self) or 1 / 0,
  )
  arguments = ['--dataset=padisi/face', f'--source={trees / "padisi"}', f'--data_dir={tmp_path}']
  assert prepare.main([*arguments, '--beam_runner=DirectRunner']) == 0
  assert capsys.readouterr().out.strip() == str(tmp_path / 'padisi/face/1.0.0')
  assert not begun


@pytest.mark.parametrize(
  'beam, words',
  [
    (('NoRunner', ''), '--beam_runner=NoRunner: Unexpected pipeline runner'),
    (('apache_beam.NoRunner', ''), '--beam_runner=apache_beam.NoRunner: '),
    (('no.such.Runner', ''), '--beam_runner=no.such.Runner: '),
    (('DirectRunner', '--x="'), '--beam_options='),
  ],
)
def test_wrong_flags(beam, words, trees, tmp_path):
  with pytest.raises(ConfigError) as caught:
    sources.prepare('padisi/face', tmp_path, source=str(trees / 'padisi'), beam=beam)
  assert words in str(caught.value)


def test_a_set_that_is_made_from_nothing_takes_no_runner(tmp_path):
  with pytest.raises(ConfigError, match='takes no --beam_runner'):
    sources.prepare('rendered_faces/wmca_like_tiny', tmp_path, beam=DIRECT)
