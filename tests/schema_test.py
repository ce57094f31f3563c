"""The vocabulary, and that a further sensor is one row of it."""

import csv
import json
import os
import pathlib
import shutil

import cv2
import pytest

from flexfas_jax import schema
from tests import forked
from tests.miniatures import faces

ROOT = pathlib.Path(__file__).parents[1]
ROW = "  Modality('thermal', 1, 'intensity', ('lwir',)),\n"
LAST = "  Modality('ir', 1, 'intensity', ('infrared', 'nir')),\n"
CONFIG = """
from ml_collections import ConfigDict
from configs import vit_fusion


def get_config():
  c = vit_fusion.get_config()
  c.train = 'manifest/own:train'
  c.val = 'manifest/own:val'
  c.test = ConfigDict({'own': 'manifest/own:test'})
  c.threshold = ConfigDict({'own': 'dev_eer'})
  c.model = ConfigDict({'modalities': ('rgb', 'thermal'), 'image_size': 16})
  c.model.backbone = ConfigDict({'name': 'vit', 'variant': 'mu', 'patch_size': 8})
  c.model.fusion = ConfigDict({'name': 'concat'})
  c.model.head = ConfigDict({'name': 'binary_logit'})
  c.modality_dropout = ConfigDict({'thermal': 0.5})
  c.photometric = ConfigDict({'thermal': {'add': 0.05}})
  c.schedule.warmup = 1
  c.report = False
  c.batch_size, c.eval_batch_size, c.steps = 8, 24, 2
  c.eval_every, c.checkpoint_every, c.log_every = 2, 2, 1
  return c
"""


def test_channels_and_values_of_modalities():
  assert schema.MODALITIES == ('rgb', 'depth', 'ir')
  assert [schema.channels(m) for m in schema.MODALITIES] == [3, 1, 1]
  assert [schema.is_color(m) for m in schema.MODALITIES] == [True, False, False]
  assert [schema.is_distance(m) for m in schema.MODALITIES] == [False, True, False]
  assert [schema.is_intensity(m) for m in schema.MODALITIES] == [False, False, True]
  assert schema.ALIASES['colour'] == 'rgb' and schema.ALIASES['nir'] == 'ir'


def _write_images(folder):
  """A manifest whose thermal images have an alias for a header; 60 samples of 10 subjects."""
  folder.mkdir()
  rows = []
  for person, split in enumerate(['train'] * 4 + ['val'] * 3 + ['test'] * 3):
    for category in ('', 'print'):
      for frame in range(3):
        images = faces.triplet(category, person, frame, 32)
        name = f'{person}_{category or "live"}_{frame}'
        cv2.imwrite(str(folder / f'{name}_rgb.png'), images['rgb'][..., ::-1])
        cv2.imwrite(str(folder / f'{name}_lwir.png'), 255 - images['ir'])
        rows.append(
          {
            'rgb': f'{name}_rgb.png',
            'lwir': f'{name}_lwir.png',
            'label': 'attack' if category else 'bona_fide',
            'attack_category': category,
            'subject': f's{person}',
            'video': f'{person}_{category}',
            'frame': frame,
            'split': split,
          }
        )
  with open(folder / 'manifest.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


@pytest.fixture
def package(tmp_path):
  """A copy of the package whose table has one more row."""
  copy = tmp_path / 'package'
  for name in ('flexfas_jax', 'data', 'configs'):
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
  path = copy / 'flexfas_jax' / 'schema.py'
  text = path.read_text()
  assert text.count(LAST) == 1
  path.write_text(text.replace(LAST, LAST + ROW))
  return copy


def test_a_further_modality_is_one_row(tmp_path, package):
  _write_images(tmp_path / 'images')
  (tmp_path / 'own.py').write_text(CONFIG)

  def run(*command):
    environment = {**os.environ, 'PYTHONPATH': str(package)}
    done = forked.run(*command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  run('flexfas_jax.lint', 'images/manifest.csv', '--root=images')
  run('flexfas_jax.prepare', '--dataset=manifest/own', '--source=images', '--data_dir=prepared')
  run('flexfas_jax.main', '--config=own.py', '--config.data_dir=prepared', '--workdir=run')
  printed = run('flexfas_jax.score', '--dev=run/scores/val.csv', 'run/scores/own.csv')
  card = json.loads(next(pathlib.Path(tmp_path, 'prepared').rglob('card.json')).read_text())
  assert card['images']['thermal']['present'] == 60
  assert card['images']['depth'] == {'present': 0, 'absent': 60}
  header = (tmp_path / 'run' / 'scores' / 'own.csv').read_text().splitlines()[0].split(',')
  assert header[-3:] == ['rgb', 'rgb+thermal', 'thermal']
  assert 'rgb+thermal' in printed
