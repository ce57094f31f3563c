"""From a plan to encoded triplets, on as many processes as there are cores."""

import functools
import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import lighting, scenes, sensors
from flexfas_jax.data.rendered_faces.populations import CATEGORY, Video
from flexfas_jax.images.worker_pool import Workers

_WORTH_A_POOL = 6  # subjects; fewer are done before a process has started


class Renderer:
  """Renders on processes of its own, which end with the `with` block that it is used in.

  Args:
    workers: how many; None takes one per core. The bytes do not depend on it.
  """

  def __init__(self, workers: int | None = None):
    self._workers = Workers(workers)

  def __enter__(self):
    return self

  def __exit__(self, *raised):
    self._workers.__exit__(*raised)

  def examples(
    self, videos: list[Video], render: Callable[[Video], list] | None = None
  ) -> Iterator[tuple[str, dict]]:
    """Renders videos in their order.

    Args:
      videos: a split of a plan.
      render: makes the examples of one video; None is that of version 1.

    Yields:
      (key, example) as `triplets.TripletBuilder` takes them.
    """
    # A task is one subject: the shape of the head and the photos of it are worked out once.
    tasks = [list(group) for _, group in itertools.groupby(videos, lambda video: video.subject)]
    task = functools.partial(_render_all, render=render or _render_video)
    for pairs in self._workers.map(task, tasks, _WORTH_A_POOL):
      yield from pairs


def _render_all(videos: list[Video], render) -> list[tuple[str, dict]]:
  return [pair for video in videos for pair in render(video)]


def _render_video(video: Video) -> list[tuple[str, dict]]:
  scene, settings = scenes.draw(video)
  category = CATEGORY.get(video.species, '')
  return [
    example(video, category, frame, take(scene, settings, frame), settings.jpeg)
    for frame in range(video.frames)
  ]


def example(
  video: Video, category: str, frame: int, images: tuple[np.ndarray, np.ndarray, np.ndarray],
  quality: int,
) -> tuple[str, dict]:  # fmt: skip
  """(key, example) of one frame.

  Args:
    video: whose frame it is.
    category: of its species, '' for bona fide.
    frame: its number.
    images: rgb, depth, ir as the cameras give them.
    quality: of JPEG.
  """
  rgb, depth, ir = images
  name = f'{video.name}/{frame:02d}'
  return name, {
    'rgb': _encode('.jpg', rgb, cv2.IMWRITE_JPEG_QUALITY, quality),
    'depth': _encode('.png', depth, cv2.IMWRITE_PNG_COMPRESSION, 2),
    'ir': _encode('.jpg', ir, cv2.IMWRITE_JPEG_QUALITY, quality),
    'id': name,
    'label': 'attack' if video.species else 'bona_fide',
    'attack_type': video.species,
    'attack_category': category,
    'subject': video.subject,
    'video': video.name,
    'frame': frame,
    'dataset': video.dataset,
    'ethnicity': video.group,
  }


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
    face = outline(layer['face'], rng)
    rgb = rgb * (sensors.resample(face, rig.rgb_size) > 0.5)[..., None]
    ir = ir * (sensors.resample(face, rig.ir_size) > 0.5)
    depth = depth * (sensors.resample(face, rig.depth_size) > 0.5)
  depth = sensors.visualise(depth) if rig.depth_bits == 8 else depth.astype(np.uint16)
  return eight_bit(rgb), depth, eight_bit(ir)


def eight_bit(image: np.ndarray) -> np.ndarray:
  """uint8 of 0..1."""
  return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def outline(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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
