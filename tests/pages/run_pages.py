"""Runs the blocks of README and docs as they are printed: `.ci/pages [-k WORD]`.

Not part of the tests that `pytest` collects: training the first model alone takes minutes. Each
page has its folder, like a clone, with what the page takes for granted (`GIVEN`).
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import time

import numpy as np
import pytest

from tests.miniatures import casia_surf, faces, padisi, wmca
from tests.miniatures import flexmodal as exports
from tests.pages import blocks, workplace

SECONDS = 1800  # of a page; a loaded machine takes several times as long
FIRST = 'docs/tutorials/first-model.md'
CAMERA = 'docs/tutorials/own-data.md'
# The tutorials in the order in which they build on each other, then everything else.
ORDER = (FIRST, CAMERA, 'docs/tutorials/ship-to-devices.md')


def runnable() -> list[str]:
  found = [page for page in blocks.pages() if any(not b.not_run for b in blocks.read(page))]
  return [*ORDER, *(page for page in found if page not in ORDER)]


@pytest.fixture(scope='session')
def places(tmp_path_factory):
  """{page: its folder}, of the pages that ran; '' is the folder of what they share.

  With FLEXFAS_PAGES=FOLDER it is kept, and a page that passed is not run again by other pages.
  """
  if kept := os.environ.get('FLEXFAS_PAGES'):
    base = pathlib.Path(kept)
    base.mkdir(exist_ok=True)
    return {'': base} | {f.read_text(): f.parent for f in base.glob('*/passed')}
  return {'': tmp_path_factory.mktemp('pages')}


def go(page, places):
  """Runs a page once; its folder."""
  if page in places:
    return places[page]
  shared = places['']
  folder = shared / page.replace('/', '_').removesuffix('.md')
  shutil.rmtree(folder, ignore_errors=True)
  found = blocks.read(page)
  edits = any(block.edit for block in found)
  workplace.make(folder, prepared(places), copied=edits)
  blocks.edit(found, folder)
  places[page] = folder  # also if it fails: it is not tried again
  for give in GIVEN.get(page, ()):
    give(folder, places)
  start = time.monotonic()
  environment = workplace.environment(shared / 'bin', folder if edits else blocks.ROOT)
  text = workplace.run(blocks.script(found), folder, environment, SECONDS)
  print(f'{page}: {time.monotonic() - start:.0f} s\n{text}')
  (folder / 'passed').write_text(page)
  return folder


def prepared(places):
  """Rendered sets for all pages: those that the first page renders, or of FLEXFAS_PREPARED."""
  given = os.environ.get('FLEXFAS_PREPARED')
  place = places[''] / 'prepared'
  if given and not place.exists():
    place.mkdir()
    (place / 'rendered_faces').mkdir()
    for one in pathlib.Path(given, 'rendered_faces').iterdir():
      (place / 'rendered_faces' / one.name).symlink_to(one)
  place.mkdir(exist_ok=True)
  return place


# --- what pages take for granted ---


def first_run(folder, places):
  """runs/vit_fusion, with its bundle."""
  source = go(FIRST, places) / 'runs' / 'vit_fusion'
  shutil.copytree(source, folder / 'runs' / 'vit_fusion')
  shutil.copytree(source / 'bundle', folder / 'bundle')


def own_run(folder, places):
  """runs/ours, images/ and three files of a face."""
  source = go(CAMERA, places)
  shutil.copytree(source / 'runs', folder / 'runs', dirs_exist_ok=True)
  shutil.copytree(source / 'images', folder / 'images')


def face(folder, places):
  """Files of one face: face.jpg, face_depth.png, face_ir.png; me/rgb.jpg, ..."""
  import cv2

  samples = go(FIRST, places) / 'runs' / 'vit_fusion' / 'bundle' / 'samples'
  cv2.imwrite(str(folder / 'face.jpg'), cv2.imread(str(samples / '0_rgb.png')))
  for sensor in ('depth', 'ir'):
    shutil.copy(samples / f'0_{sensor}.png', folder / f'face_{sensor}.png')


def licensed(folder, places):
  """The licensed sets in miniature, as they are handed out."""
  root = folder / 'licensed'
  exports.write(root, faults=True)
  wmca.write_protocols(root / 'Protocols')
  padisi.write(root / 'padisi')
  casia_surf.write_challenge(root / 'challenge')
  casia_surf.write_mm_fas_folds(root / 'challenge')
  # Prepared sets of miniatures are not those of the other pages.
  (folder / 'prepared').unlink()


def recordings(folder, places):
  """recordings/: a data set of its own layout, RGB and 16-bit depth."""
  import cv2

  for number, split in enumerate(['train'] * 2 + ['val'] * 2 + ['test'] * 2):
    for kind in ('live', 'print', 'replay'):
      for frame in range(2):
        images = faces.triplet('' if kind == 'live' else kind, number, frame, 64, depth_bits=16)
        for sensor in ('rgb', 'depth'):
          path = folder / 'recordings' / split / f's{number}' / kind / sensor / f'{frame}.png'
          path.parent.mkdir(parents=True, exist_ok=True)
          image = images[sensor]
          cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def score_csv(path, seed, subjects=('a', 12)):
  """A score file of any framework: two images of each label for each subject."""
  rng, rows = np.random.default_rng(seed), ['id,label,subject,score']
  name, n = subjects
  for i in range(2 * n):
    for label in (1, 0):
      score = 1 / (1 + np.exp(-rng.normal(2 * label - 1)))
      rows.append(f'{name}{i}_{label},{label},{name}{i // 2},{score:.4f}')
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(rows) + '\n')


def score_files(folder, places):
  """test.csv and val.csv; a1.csv, a1_val.csv, ... b3_val.csv, runs of two methods."""
  for seed, stem in enumerate(['test', *(f'{method}{i}' for method in 'ab' for i in (1, 2, 3))]):
    score_csv(folder / f'{stem}.csv', seed)
    score_csv(folder / ('val.csv' if stem == 'test' else f'{stem}_val.csv'), 10 + seed, ('v', 9))


def members(folder, places):
  """runs/net_seed0/scores/, ... of two members."""
  for seed in (0, 1):
    scores = folder / 'runs' / f'net_seed{seed}' / 'scores'
    score_csv(scores / 'intra.csv', seed)
    score_csv(scores / 'val.csv', 10 + seed, ('v', 9))


GIVEN = {
  'docs/how-to/choose-a-threshold.md': [first_run],
  'docs/how-to/ensembles.md': [members],
  'docs/how-to/evaluate-scores.md': [score_files],
  'docs/how-to/missing-sensors.md': [first_run, face],
  'docs/how-to/predict.md': [first_run, face],
  'docs/how-to/sensors-and-formats.md': [first_run, face],
  'docs/reference/python-api.md': [score_files],
  'README.md': [first_run, face],
  'docs/how-to/add-a-data-set.md': [recordings],
  'docs/tutorials/ship-to-devices.md': [own_run],
  'docs/tutorials/reproduce-papers.md': [licensed],
}


def trainings():
  """The `flexfas train` commands of blocks that do not run: (page, arguments)."""
  found = []
  for page in blocks.pages():
    for block in blocks.read(page):
      text = block.text.replace('\\\n', ' ') if block.not_run and block.language == 'sh' else ''
      for line in re.findall(r'^ *flexfas train (.*)$', text, re.MULTILINE):
        found.append((page, shlex.split(re.sub(r'\$\{?\w+\}?', '0', line), comments=True)))
  return found


BUILD = """
import ast, importlib, json, sys
from ml_collections import ConfigDict
from flexfas_jax.training import setup

def value_of(text):
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text

for page, arguments in json.load(sys.stdin):
  given = dict(one.removeprefix('--').split('=', 1) for one in arguments if '=' in one)
  name, _, recipe = given.pop('config').partition(':')
  config = importlib.import_module(f'configs.{name}').get_config(*[recipe] * bool(recipe))
  config = ConfigDict(config.to_dict(), type_safe=False)
  for field, text in given.items():
    if field.startswith('config.'):
      *groups, last = field.split('.')[1:]
      group = config
      for key in groups:
        group = group[key]
      group[last] = value_of(text)
  print(page, arguments, flush=True)
  setup.build(config, classes=2)
"""


def test_experiments_of_trainings_that_do_not_run_are_built(places):
  """All fields fit together; no data is read. Values of the shell's variables are 0."""
  found = trainings()
  assert len(found) > 10
  # A protocol has a name there.
  text = json.dumps(found).replace('protocol=0', 'protocol=mmdg_1_cps_w')
  script = f'python -c {shlex.quote(BUILD)} << {chr(39)}END{chr(39)}\n{text}\nEND\n'
  print(workplace.run(script, blocks.ROOT, workplace.environment(places[''] / 'bin'), SECONDS))


@pytest.mark.parametrize('page', runnable())
def test_page(page, places):
  places.pop(page, None)  # run now, also if it was run before and kept
  go(page, places)
