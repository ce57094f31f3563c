"""Version 1 of the rendered faces: deterministic, well-formed, physical where figures need it."""

import collections
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from flexfas_jax.data.rendered_faces import (
  head,
  materials,
  populations,
  render,
  scenes,
  sensors,
  sheets,
)
from flexfas_jax.data.rendered_faces.rendered_faces_dataset_builder import Builder
from flexfas_jax.errors import ConfigError

_ROOT = pathlib.Path(__file__).parents[2]
_TRAINED_ON = {'print', 'cut_photo', 'replay'}
_SEVEN = {'print', 'replay', 'papermask', 'rigidmask', 'flexiblemask', 'fakehead', 'glasses'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The three data sets in the size `tiny`: {data set: {split: rows}}."""
  data_dir = tmp_path_factory.mktemp('prepared')
  rows = {}
  for dataset in populations.DATASETS:
    builder = Builder(config=f'v1_{dataset}_tiny', data_dir=data_dir, file_format='array_record')
    builder.download_and_prepare()
    assert (data_dir / 'rendered_faces' / f'v1_{dataset}_tiny' / '1.0.0').is_dir()
    # Read back as a stranger does, without the builder.
    name = f'rendered_faces/v1_{dataset}_tiny'
    rows[dataset] = {
      split: [
        {key: value.decode() if key not in ('rgb', 'depth', 'ir') and isinstance(value, bytes)
         else value for key, value in row.items()}
        for row in tfds.data_source(name, data_dir=data_dir, split=split)
      ]
      for split in builder.info.splits
    }  # fmt: skip
  return rows


def _decode(data):
  return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _videos(dataset, *species):
  """One recording each of six people."""
  found = {}
  for videos in populations.plan(dataset).values():
    for video in videos:
      if video.species in species:
        found.setdefault(video.subject, video)
  return list(found.values())[:6]


def _middle(image):
  """The inner half of a picture, which the face fills."""
  quarter = image.shape[0] // 4
  return image[quarter:-quarter, quarter:-quarter].astype(float)


def _off_plane(depth):
  """Median distance [mm] of the measured points of the middle from the plane fitted to them."""
  middle = _middle(depth)
  y, x = np.nonzero(middle)
  columns = np.stack([x, y, np.ones_like(x)], 1)
  plane = np.linalg.lstsq(columns, middle[y, x])[0]
  return np.median(np.abs(middle[y, x] - columns @ plane))


def test_rows_keep_the_contract(prepared):
  assert {name: set(splits) for name, splits in prepared.items()} == {
    'surf_like': {'train', 'val', 'test'},
    'cefa_like': {'train', 'val', 'test', 'masks'},
    'wmca_like': {'test'},
  }
  for dataset, splits in prepared.items():
    ids = [row['id'] for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)
    for row in (row for rows in splits.values() for row in rows):
      assert row['dataset'] == dataset
      assert row['id'] == f'{row["video"]}/{row["frame"]:02d}'
      assert row['video'].startswith(f'{row["subject"]}/') and row['subject'].startswith(dataset)
      assert row['attack_category'] == populations.CATEGORY.get(row['attack_type'], '')
      assert row['label'] == (row['attack_type'] == '')  # 1 is bona fide
      assert (row['ethnicity'] in populations.GROUPS) == (dataset == 'cefa_like')


def test_images_are_what_the_sensors_give(prepared):
  for dataset, splits in prepared.items():
    rig = sensors.RIGS[dataset]
    for row in splits['test'][:6]:
      rgb, depth, ir = (_decode(row[key]) for key in ('rgb', 'depth', 'ir'))
      assert rgb.shape == (rig.rgb_size, rig.rgb_size, 3) and rgb.dtype == np.uint8
      assert ir.shape == (rig.ir_size, rig.ir_size) and ir.dtype == np.uint8
      assert depth.shape == (rig.depth_size, rig.depth_size)
      assert depth.dtype == (np.uint8 if dataset == 'surf_like' else np.uint16)


def test_sixteen_bit_depth_survives(prepared):
  for dataset in ('cefa_like', 'wmca_like'):
    depth = np.stack([_decode(row['depth']) for row in prepared[dataset]['test']])
    face = _middle(depth[0])
    assert 150 < np.median(face[face > 0]) < 1000  # mm
    assert len(np.unique(depth)) > 400  # more steps than eight bits have


def test_species_by_config_and_split():
  found = collections.defaultdict(set)
  for name in ('', '_tiny'):
    for dataset in populations.DATASETS:
      for split, videos in populations.plan(dataset + name).items():
        found[dataset, split] = {video.species for video in videos}
    for split in ('train', 'val', 'test'):
      cut = {'eyes', 'eyes_nose', 'eyes_nose_mouth'}
      surf = {f'{part}_{form}' for part in cut for form in ('flat', 'curved')}
      assert found['surf_like', split] == surf | {''}
    cefa = {'', 'print_indoor', 'print_outdoor', 'replay'}
    for split in ('train', 'val', 'test'):
      assert found['cefa_like', split] == cefa
    assert found['cefa_like', 'masks'] == {'resin_mask', 'silicone_mask'}
    unseen = {populations.CATEGORY[s] for s in found['cefa_like', 'masks']}
    assert unseen == {'rigidmask', 'flexiblemask'}
    trained = found['surf_like', 'train'] | found['cefa_like', 'train']
    assert {populations.CATEGORY[s] for s in trained - {''}} == _TRAINED_ON
    seven = {populations.CATEGORY[species] for species in found['wmca_like', 'test'] - {''}}
    assert seven == _SEVEN and len(seven - _TRAINED_ON) == 5


def test_every_species_has_a_category_and_can_be_drawn():
  for species in populations.CATEGORY:
    assert _videos('surf_like', species) or _videos('cefa_like', species) or (
      _videos('wmca_like', species)
    )  # fmt: skip


def test_people_are_disjoint():
  people = [
    {(video.subject, video.identity) for video in videos}
    for dataset in populations.DATASETS
    for videos in populations.plan(dataset).values()
  ]
  for k in (0, 1):
    names = [{person[k] for person in split} for split in people]
    assert sum(map(len, names)) == len(set().union(*names))


def test_sizes():
  frames = {
    (dataset, split): sum(video.frames for video in videos)
    for dataset in populations.DATASETS
    for split, videos in populations.plan(dataset).items()
  }
  assert frames == {
    ('surf_like', 'train'): 784, ('surf_like', 'val'): 266, ('surf_like', 'test'): 518,
    ('cefa_like', 'train'): 468, ('cefa_like', 'val'): 180, ('cefa_like', 'test'): 360,
    ('cefa_like', 'masks'): 108,
    ('wmca_like', 'test'): 648,
  }  # fmt: skip
  four = populations.plan('cefa_like_x4')['test']
  assert sum(video.frames for video in four) == 4 * 360
  twelve = Builder(config='v1_surf_like_x12', data_dir='/nowhere')
  assert twelve.builder_config.name == 'v1_surf_like_x12'


@pytest.mark.parametrize(
  'name', ['surf_lik', 'surf_like_x0', 'surf_like_x', 'tiny', 'wmca_like_x2_tiny', 'padisi_like']
)
def test_a_wrong_config_lists_the_choices(name, tmp_path):
  with pytest.raises(ConfigError, match='v1_surf_like, v1_cefa_like, v1_wmca_like.*_tiny.*_xN'):
    Builder(config=f'v1_{name}', data_dir=tmp_path)


def test_same_seed_same_bytes_and_other_seed_other_bytes():
  video, other = _videos('wmca_like', 'paper_mask')[:2]
  first = render._render_video(video)
  head.mesh.cache_clear()
  scenes.photo.cache_clear()
  render._render_video(other)  # what was drawn before must not matter
  assert render._render_video(video) == first
  assert first[0][1]['rgb'] != first[1][1]['rgb']  # frames differ
  assert render._render_video(other)[0][1]['rgb'] != first[0][1]['rgb']


def test_bytes_do_not_depend_on_the_number_of_workers(monkeypatch):
  videos = populations.plan('wmca_like_tiny')['test'][:12]  # two people
  with render.Renderer(workers=1) as one:
    alone = list(one.examples(videos))
    assert one._workers._pool is None
  monkeypatch.setattr(render, '_WORTH_A_POOL', 1)
  with render.Renderer(workers=2) as two:
    assert list(two.examples(videos)) == alone
    assert two._workers._pool is not None
  assert not multiprocessing.active_children()


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/task').exists(), reason='looks for child processes in /proc'
)
def test_an_interrupt_ends_the_workers_and_leaves_nothing(tmp_path):
  code = (
    'from flexfas_jax.data.rendered_faces.rendered_faces_dataset_builder import Builder\n'
    'import signal, sys\n'
    # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
    'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    'if __name__ == "__main__":\n'
    '  Builder(config="surf_like_x4", data_dir=sys.argv[1], file_format="array_record", workers=2)'
    '.download_and_prepare()\n'
  )
  script = tmp_path / 'prepare.py'
  script.write_text(code)
  process = subprocess.Popen(
    [sys.executable, script, tmp_path / 'out'], cwd=_ROOT, text=True, start_new_session=True,
    env=os.environ | {'PYTHONPATH': str(_ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
  )  # fmt: skip
  workers = []
  try:
    deadline = time.monotonic() + 30
    while len(workers) < 3 and time.monotonic() < deadline:  # two, and multiprocessing's tracker
      time.sleep(0.2)
      children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
      workers = [int(pid) for pid in children.read_text().split()]
    assert len(workers) >= 3
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, err = process.communicate(timeout=30)
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
  assert process.returncode != 0 and 'KeyboardInterrupt' in err
  assert not list((tmp_path / 'out').rglob('*array_record*'))
  deadline = time.monotonic() + 5
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in workers):
    assert time.monotonic() < deadline, 'a worker outlived the interrupt'
    time.sleep(0.1)


def test_a_print_is_flat_and_a_head_is_not():
  off = {
    species: [_off_plane(render.take(*scenes.draw(video), 0)[1]) for video in videos]
    for species in ('', 'print_indoor', 'replay', 'resin_mask')
    for videos in [_videos('cefa_like', species)]
  }
  # A held sheet may be bent by a few millimetres; a nose is not.
  assert np.median(off['print_indoor']) < 3 and np.median(off['replay']) < 5
  assert min(off['']) > 6 and min(off['resin_mask']) > 6


def test_infrared_is_not_a_copy_of_rgb():
  for dataset, species in (('surf_like', ''), ('cefa_like', ''), ('wmca_like', 'print_matte')):
    for video in _videos(dataset, species):
      rgb, _, ir = render.take(*scenes.draw(video), 0)
      grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), ir.shape)
      assert abs(np.corrcoef(_middle(grey).ravel(), _middle(ir).ravel())[0, 1]) < 0.95


def test_ink_fades_in_infrared_unless_it_is_carbon():
  dark = np.full((3, 1, 1), 0.1, np.float32)
  white = np.ones((3, 1, 1), np.float32)
  contrast = {}
  for carbon in (0.0, 0.6):
    (rgb_dark, ir_dark), (rgb_white, ir_white) = (materials.ink(p, carbon) for p in (dark, white))
    assert rgb_white.mean() > 8 * rgb_dark.mean()
    contrast[carbon] = float(ir_white.item() / ir_dark.item())
  assert contrast[0.0] < 1.1 and contrast[0.6] > 1.5


def test_depth_and_normals_agree_and_the_pose_turns_both():
  who = head.draw_identity((0, 7))
  camera = head.Pinhole(120, 120 / 250 * 600, (59.5, 59.5))
  places = []
  for yaw in (-0.4, 0.4):
    turn = head.rotation(yaw, 0.1, 0)
    seen = head.see(head.mesh(who), np.zeros(4), turn, np.array([0, 0, 680]), camera)
    point = camera.rays()[:, *seen.window] * np.where(np.isfinite(seen.z), seen.z, np.nan)
    across, down = np.gradient(point, axis=2), np.gradient(point, axis=1)
    normal = np.cross(down, across, axis=0)
    normal /= np.linalg.norm(normal, axis=0)
    agree = (normal * seen.normal).sum(0)
    assert np.nanmedian(agree) > 0.98
    x, y = seen.canonical[:2]
    tip = np.nanargmin(np.where(np.isfinite(seen.z), np.hypot(x, y - 46), np.nan))
    places.append(tip % x.shape[1] + seen.window[1].start)
  assert places[1] - places[0] > 20  # the nose moves to the right with positive yaw


@pytest.mark.parametrize('bend', [0, 1e-9, 1 / 90])
def test_a_ray_meets_a_sheet_on_its_surface(bend):
  turn = head.rotation(0.3, -0.2, 0.1)
  sheet = sheets.Sheet(turn, np.array([5.0, -8.0, 500.0]), bend)
  rays = head.Pinhole(40, 100, (19.5, 19.5)).rays()
  z, normal, right, down = sheet.meet(rays)
  assert np.isfinite(z[20, 20])
  ok = np.isfinite(z) & (np.abs(right) < 80)
  x, y, depth = turn.T @ ((rays * np.where(ok, z, 0))[:, ok] - sheet.place[:, None])
  np.testing.assert_allclose(depth, bend / 2 * (x**2 + depth**2), atol=2e-2)  # mm
  np.testing.assert_allclose(down[ok], y, atol=2e-2)
  if bend > 1e-6:  # along the paper, not through the air
    np.testing.assert_allclose(np.sin(right[ok] * bend), x * bend, atol=1e-3)
  np.testing.assert_allclose(np.linalg.norm(normal[:, ok], axis=0), 1, atol=1e-3)


def test_the_visualisation_by_hand():
  depth = np.array([[500.0, 410.0, 590.0], [0.0, 900.0, 100.0]])
  # 0.5 - (d - 500) / 360, in 1/255..1; no measurement stays 0.
  assert sensors.visualise(depth).tolist() == [[128, 191, 64], [0, 1, 255]]


def test_no_builder_imports_jax_or_tensorflow():
  names = [
    f'flexfas_jax.data.{path.parent.name}.{path.stem}'
    for path in _ROOT.glob('data/*/*_dataset_builder.py')
  ]
  assert 'flexfas_jax.data.rendered_faces.rendered_faces_dataset_builder' in names
  code = (
    f'import importlib, sys\nfor name in {names}: importlib.import_module(name)\n'
    'print([name for name in ("jax", "flax", "tensorflow", "torch") if name in sys.modules])'
  )
  done = subprocess.run([sys.executable, '-c', code], cwd=_ROOT, capture_output=True, text=True)
  assert done.stdout.strip() == '[]', done.stdout + done.stderr
