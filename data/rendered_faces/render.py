"""From a plan to encoded triplets, on as many processes as there are cores."""

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

import cv2
import numpy as np

from data.rendered_faces import lighting, scenes, sensors
from data.rendered_faces.populations import CATEGORY, Video

_WORTH_A_POOL = 6  # subjects; fewer are done before a process has started


class Renderer:
  """Renders on processes of its own, which end with the `with` block that it is used in.

  Args:
    workers: how many; None takes one per core. The bytes do not depend on it.
  """

  def __init__(self, workers: int | None = None):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    self._workers = workers or cores
    self._pool = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._pool:
      self._pool.shutdown(cancel_futures=True)

  def examples(self, videos: list[Video]) -> Iterator[tuple[str, dict]]:
    """Renders videos in their order.

    Args:
      videos: a split of a plan.

    Yields:
      (key, example) as `triplets.TripletBuilder` takes them.
    """
    # A task is one subject: the shape of the head and the photos of it are worked out once.
    tasks = [list(group) for _, group in itertools.groupby(videos, lambda video: video.subject)]
    if self._workers == 1 or len(tasks) < _WORTH_A_POOL:
      for task in tasks:
        yield from _render_all(task)
      return
    if self._pool is None:
      # Never fork: the parent may hold an accelerator and its threads.
      spawn = multiprocessing.get_context('spawn')
      self._pool = concurrent.futures.ProcessPoolExecutor(self._workers, spawn, _start_worker)
    # A bounded queue, so that a set larger than memory can be rendered.
    queue = collections.deque()
    for task in tasks:
      with _without_main():
        queue.append(self._pool.submit(_render_all, task))
      if len(queue) > 4 * self._workers:
        yield from queue.popleft().result()
    while queue:
      yield from queue.popleft().result()


@contextlib.contextmanager
def _without_main():
  """Processes that start meanwhile do not import the main program again.

  They need nothing of it, and it may be large (a training job imports JAX) or unguarded.
  """
  main = sys.modules['__main__']
  sys.modules['__main__'] = types.ModuleType('__main__')
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _start_worker():
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
  cv2.setNumThreads(1)

  def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()


def _render_all(videos: list[Video]) -> list[tuple[str, dict]]:
  return [pair for video in videos for pair in _render_video(video)]


def _render_video(video: Video) -> list[tuple[str, dict]]:
  scene, settings = scenes.draw(video)
  pairs = []
  for frame in range(video.frames):
    name = f'{video.name}/{frame:02d}'
    rgb, depth, ir = take(scene, settings, frame)
    images = {
      'rgb': _encode('.jpg', rgb, cv2.IMWRITE_JPEG_QUALITY, settings.jpeg),
      'depth': _encode('.png', depth, cv2.IMWRITE_PNG_COMPRESSION, 2),
      'ir': _encode('.jpg', ir, cv2.IMWRITE_JPEG_QUALITY, settings.jpeg),
    }
    facts = {
      'id': name,
      'label': 'attack' if video.species else 'bona_fide',
      'attack_type': video.species,
      'attack_category': CATEGORY.get(video.species, ''),
      'subject': video.subject,
      'video': video.name,
      'frame': frame,
      'dataset': video.dataset,
      'ethnicity': video.group,
    }
    pairs.append((name, images | facts))
  return pairs


def take(
  scene: scenes.Scene, settings: sensors.Settings, frame: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """One triplet, as the cameras give it.

  Returns:
    rgb [h, w, 3] uint8 (red first), depth [h, w] uint16 mm or uint8 visualisation (0: nothing
    measured), ir [h, w] uint8; the three have sizes of their own.
  """
  rng = np.random.default_rng(np.random.SeedSequence((scene.seed, 4, frame)))
  rig = scene.rig
  layer, rays = scene.frame(frame)
  light = lighting.visible(layer, rays, scenes.SIZE / scene.crop, scene.lights)
  # Half of the falloff with distance is taken back by the camera's own control.
  reference = float(np.sqrt(rig.distance[0] * 1.25 * scene.distance))
  heat = lighting.infrared(layer, rays, settings.lamp, scene.lights.infrared, reference)
  rgb = sensors.rgb_camera(light, rig, settings, rig.rgb_size, rng)
  ir = sensors.infrared_camera(heat, rig, settings, rng)
  depth = sensors.depth_camera(layer, rays, rig, settings, scene.lights.infrared, rng)
  if rig.black_outside:
    face = _outline(layer['face'], rng)
    rgb = rgb * (sensors.resample(face, rig.rgb_size) > 0.5)[..., None]
    ir = ir * (sensors.resample(face, rig.ir_size) > 0.5)
    depth = depth * (sensors.resample(face, rig.depth_size) > 0.5)
  depth = sensors.visualise(depth) if rig.depth_bits == 8 else depth.astype(np.uint16)
  return _eight_bit(rgb), depth, _eight_bit(ir)


def _eight_bit(image):
  return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _outline(face, rng):
  """The face as an imperfect face detector outlines it, [H, W] in 0..1."""
  size = face.shape[0]
  face = cv2.morphologyEx((face > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
  # The hull: what is cut out of a photo belongs to the face that it presents.
  parts, _ = cv2.findContours(face, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
  if parts:
    cv2.fillConvexPoly(face, cv2.convexHull(np.concatenate(parts)), 1)
  grow = cv2.GaussianBlur(face.astype(np.float32), (0, 0), size / 40)
  wave = cv2.GaussianBlur(sensors.noise(rng, size // 4, size // 4), (0, 0), 3)
  wave = cv2.resize(wave / wave.std(), (size, size))
  edge = 0.5 + 0.25 * np.tanh(wave) + rng.uniform(-0.2, 0.2)
  inside = np.zeros_like(grow)  # its border stays empty: moving it must not smear the border
  inside[1:-1, 1:-1] = (grow > edge)[1:-1, 1:-1]
  return sensors.resample(inside, size, rng.normal(0, 0.01, 2))


def _encode(suffix: str, image: np.ndarray, *options: int) -> bytes:
  if image.ndim == 3:
    image = image[..., ::-1]  # OpenCV wants blue first
  done, data = cv2.imencode(suffix, image, options)
  assert done
  return data.tobytes()
