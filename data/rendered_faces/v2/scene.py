"""What stands before the camera in a recording, and how it moves from frame to frame."""

import dataclasses
import functools

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import head, lighting, materials, render, sensors, surroundings
from flexfas_jax.data.rendered_faces.head import Pinhole, Seen
from flexfas_jax.data.rendered_faces.materials import Features, Layer
from flexfas_jax.data.rendered_faces.populations import Video
from flexfas_jax.data.rendered_faces.v2 import cameras, domains, heads, sheets, substances
from flexfas_jax.data.rendered_faces.v2.heads import Subject

SIZE = 112  # pixels a side at which scenes are worked out, before the cameras see them
FACE_Y = 17.0  # middle of the face below the eyes, mm
_PHOTO_SIZE = 144
_NO_MOVES = np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Pose:
  """A head in one frame."""

  turn: np.ndarray  # [3, 3]
  place: np.ndarray  # [3] of the head's origin, mm
  yaw: float
  expression: np.ndarray  # [E]
  gaze: tuple[float, float]
  lids: float


@dataclasses.dataclass(frozen=True)
class Take:
  """One frame of a recording, as it is handed to what makes its content.

  `static` is the same generator at the start of every frame, `moving` is not.
  """

  video: Video
  subject: Subject
  rig: domains.Rig
  rays: np.ndarray
  camera: Pinhole
  angles: np.ndarray  # [3] yaw, pitch, roll, degrees
  distance: float
  number: int
  shrink: float  # size of the presented face, 1 is life size
  static: np.random.Generator
  moving: np.random.Generator

  def other(self, number: int) -> Subject:
    """Another subject of the same population: who is imitated, who holds a sheet."""
    return heads.draw_subject((*self.video.identity, number), domains.population(self.video))

  def pose(self, further: float = 0.0) -> Pose:
    """The pose of a head whose face is at the take's distance, plus `further` mm."""
    return draw_pose(self.static, self.moving, self.number, self.angles, self.distance + further)


def draw_pose(
  static: np.random.Generator, moving: np.random.Generator, number: int, angles: np.ndarray,
  distance: float,
) -> Pose:  # fmt: skip
  """A head about the camera's axis; its expression changes from one to another over a video."""
  yaw, pitch, roll = np.deg2rad(angles)
  turn = head.rotation(yaw, pitch, roll)
  place = np.array([0, 0, distance]) - turn @ [0, FACE_Y, -85]
  ends = []
  for _ in range(2):
    often = static.random(len(heads.ACTIONS)) < (0.3, 0.45, 0.3, 0.2, 0.12, 0.06)
    strength = static.beta(0.8, 2.2, len(often)) * (0.8, 1, 1, 0.8, 0.8, 0.7)
    ends.append(strength * often)
  share = 0.5 * number
  expression = (1 - share) * ends[0] + share * ends[1]
  base = float(np.clip(static.normal(0.86, 0.10), 0.55, 1.15))
  lids = 0.1 if moving.random() < 0.07 else base + float(moving.normal(0, 0.03))
  gaze = tuple(map(float, static.normal(0, (1.2, 0.6)) + moving.normal(0, (0.8, 0.4))))
  return Pose(turn, place, yaw, expression, gaze, lids)


def see(
  subject: Subject, shape: heads.Shape, pose: Pose, camera: Pinhole, forward: float = 0.0,
  expression: np.ndarray = heads.STILL, only: tuple[slice, slice] | None = None,
) -> Seen:  # fmt: skip
  """What the camera sees of a head or of a copy of it, `forward` mm before its place."""
  place = pose.place + pose.turn @ [0, 0, -forward]
  mesh = heads.moved(heads.mesh(subject, shape), expression, shape.blur)
  seen = head.see(mesh, _NO_MOVES, pose.turn, place, camera, only)
  fill(seen)
  return seen


def features(
  subject: Subject, seen: Seen, pose: Pose, expression: np.ndarray = heads.STILL
) -> Features:
  """Where on what is seen of a head the parts of its face are."""
  return materials.features(subject, seen, pose.gaze, pose.lids, float(expression[0]))


def fill(seen: Seen) -> None:
  """Closes holes inside the outline of a head (in place): there is no way through it.

  Between the points of the grid, an open mouth or hair that stands out by a step can be wider than
  pixels are. Pixels that no point fell on take what the nearest ones show.
  """
  present = np.isfinite(seen.z).astype(np.uint8)
  outside = cv2.copyMakeBorder(present, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
  cv2.floodFill(outside, None, (0, 0), 1)
  hole = outside[1:-1, 1:-1] == 0
  if not hole.any():
    return
  _, label = cv2.distanceTransformWithLabels(
    1 - present, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
  )
  place = np.zeros(label.max() + 1, np.intp)  # of the pixel with each label
  place[label[present == 1]] = np.flatnonzero(present)
  nearest = place[label[hole]]
  for plane in (seen.z, *seen.normal, *seen.canonical, *seen.texture):
    plane[hole] = plane.ravel()[nearest]


def living(take: Take, subject: Subject, pose: Pose, only=None) -> list[Layer]:
  """A subject: head and, where visible, neck, shoulders and long hair."""
  seen = see(subject, heads.LIVING, pose, take.camera, 0, pose.expression, only)
  on = features(subject, seen, pose, pose.expression)
  layers = [substances.living(subject, seen, on, float(pose.expression[0]))]
  if not take.rig.black_outside:
    layers += surroundings.body(subject, take.rays, pose.place, pose.yaw)
  if subject.headwear == 'cap':
    layers.append(_brim(take, subject, pose))
  return layers


def _brim(take, subject, pose):
  cloth = materials.Material(subject.cloth_rgb, subject.cloth_ir, 0.01, 6, 0, 0.02)
  at = pose.place + pose.turn @ [0, -64, -118]
  brim, _ = surroundings.ellipsoid(cloth, take.rays, at, (66, 5, 48), pose.turn)
  return brim


@functools.lru_cache(maxsize=6)
def photo(subject: Subject, number: int, worn: bool = False) -> sheets.Photo:
  """Photos of a subject, visible and infrared, taken by an attacker at another place and time.

  Args:
    subject: of whom.
    number: which photo.
    worn: for a mask or a worn sheet: from the front, in even light.
  """
  rng = np.random.default_rng(np.random.SeedSequence((205, *subject.seed, number, worn)))
  width, distance = 285.0, rng.uniform(700, 1300)
  middle = (_PHOTO_SIZE - 1) / 2
  camera = Pinhole(_PHOTO_SIZE, _PHOTO_SIZE / width * distance, (middle, middle))
  angles = rng.normal(0, (6, 4, 2)) * (not worn)
  pose = draw_pose(rng, rng, 0, angles, distance)
  pose = dataclasses.replace(pose, lids=max(pose.lids, 0.75))
  rays = camera.rays()
  expression = pose.expression * (0.0 if worn else 0.7)
  seen = see(subject, heads.LIVING, pose, camera, 0, expression)
  on = features(subject, seen, pose, expression)
  front = substances.living(subject, seen, on, float(expression[0]))
  where = np.full((3, _PHOTO_SIZE, _PHOTO_SIZE), 999, np.float32)
  where[:2, *seen.window] = np.where(np.isfinite(seen.z), seen.canonical[:2], 999)
  where[2] = 0
  where[2, *seen.window] = front['face']
  behind = surroundings.body(subject, rays, pose.place, pose.yaw)
  behind.append(surroundings.room(rng, _PHOTO_SIZE, 3000))
  scene = materials.nearest([front, *behind], _PHOTO_SIZE)
  lights = draw_lights(rng, rng.random() < 0.3, False)
  if worn:
    lights = dataclasses.replace(lights, key_rgb=0.3 * lights.key_rgb, above=lights.above + 0.3)
  light = lighting.visible(scene, rays, _PHOTO_SIZE / width, lights)
  rig = dataclasses.replace(domains.RIGS['cefa_like'], shot=5e-5, read=0.001, blur=0.55)
  settings = dataclasses.replace(cameras.settle(rig, rng), motion=np.zeros(2), focus=0.0)
  image = cameras.rgb_camera(light, rig, settings, _PHOTO_SIZE, rng)
  infra = lighting.infrared(scene, rays, np.zeros(3, np.float32), 0.02, distance)
  infra = cv2.GaussianBlur(np.float32(infra), (0, 0), 0.8)
  where = np.ascontiguousarray(where.transpose(1, 2, 0), np.float32)
  return sheets.Photo(np.clip(image, 0, 1).astype(np.float32), infra, where, width / _PHOTO_SIZE)


def draw_lights(rng: np.random.Generator, outdoor: bool, hard: bool) -> lighting.Lights:
  """The light of one recording; `hard`: one strong lamp or the sun from a side, little else."""
  lights = lighting.draw(rng, outdoor)
  if not hard:
    return lights
  weak = rng.uniform(0.25, 0.6)
  return dataclasses.replace(
    lights,
    key_rgb=lights.key_rgb * np.float32(rng.uniform(1.5, 2.8)),
    fill_rgb=lights.fill_rgb * np.float32(weak),
    above=lights.above * np.float32(weak),
    below=lights.below * np.float32(weak),
    infrared=lights.infrared + rng.uniform(0, 0.15),  # halogen lamps are bright there
  )


@dataclasses.dataclass(frozen=True)
class Scene:
  """What is drawn once for a recording; `frame` gives the content of its images."""

  video: Video
  subject: Subject
  rig: domains.Rig
  lights: lighting.Lights
  settings: cameras.Settings
  distance: float
  crop: float  # mm
  angles: np.ndarray  # [3] mean yaw, pitch, roll, degrees
  sway: np.ndarray  # [2, 3] amplitude [degrees] and phase of the turning during the video
  centre: np.ndarray  # [2] of the face relative to the middle of the image, as a share of its side
  drift: np.ndarray  # [3] of the face per frame: right, down, distance, as shares
  shrink: float  # size of the presented face: below 1 on a phone, which is held nearer
  seed: int

  def frame(self, number: int, make) -> tuple[Layer, np.ndarray]:
    """One frame: what is seen, and the camera's rays [3, H, W] with z = 1.

    Args:
      number: of the frame.
      make: makes layers from a `Take`.
    """
    static = np.random.default_rng(np.random.SeedSequence((self.seed, 1)))
    moving = np.random.default_rng(np.random.SeedSequence((self.seed, 2, number)))
    distance = self.distance * (1 if self.shrink == 1 else max(self.shrink, 0.55))
    distance *= (1 + self.drift[2] * number) * (1 + moving.normal(0, 0.004))
    crop = self.crop * self.shrink
    angles = self.angles + self.sway[0] * np.sin(self.sway[1] + 1.3 * number)
    angles = angles + moving.normal(0, (0.8, 0.6, 0.4))
    off = self.centre + self.drift[:2] * number + moving.normal(0, 0.006, 2)
    camera = Pinhole(SIZE, SIZE / crop * distance, tuple((SIZE - 1) / 2 + SIZE * off))
    rays = camera.rays()
    take = Take(
      self.video, self.subject, self.rig, rays, camera, angles, distance, number, self.shrink,
      static, moving,
    )  # fmt: skip
    layers = make(take)
    if not self.rig.black_outside:
      layers.append(_wall(self.seed, self.distance))
    return materials.nearest(layers, SIZE), rays


@functools.lru_cache(maxsize=2)
def _wall(seed, distance):
  rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
  return surroundings.room(rng, SIZE, distance + 400 + rng.uniform(0, 1) * distance)


def draw(video: Video) -> Scene:
  """Draws what stays the same during a recording."""
  rng = np.random.default_rng(np.random.SeedSequence((206, *video.seed)))
  rig = domains.RIGS[video.dataset]
  population = domains.population(video)
  subject = heads.draw_subject(video.identity, population)
  headwear = rng.random() < population.headwear
  makeup = not subject.male and rng.random() < population.daily_makeup
  subject = dataclasses.replace(
    subject,
    headwear=str(rng.choice(['beanie', 'scarf', 'cap'])) if headwear else '',
    makeup=float(rng.uniform(0.3, 1)) if makeup else 0.0,
    cloth_rgb=tuple((rng.uniform(0.02, 0.6) * rng.uniform(0.4, 1, 3)).tolist()),
    cloth_ir=float(rng.uniform(0.15, 0.7)),
  )
  outdoor = bool(rng.random() < rig.outdoor)
  phone = rng.random() < 0.4 and video.species == 'replay'
  return Scene(
    video=video,
    subject=subject,
    rig=rig,
    lights=draw_lights(rng, outdoor, bool(rng.random() < rig.hard)),
    settings=cameras.settle(rig, rng),
    distance=rng.uniform(*rig.distance),
    crop=rng.uniform(*rig.crop),
    angles=np.clip(rng.normal(0, (rig.yaw, rig.pitch, rig.roll)), -30, 30),
    sway=np.stack([rng.gamma(1.5, (2.0, 1.3, 0.8)), rng.uniform(0, 6, 3)]),
    centre=rng.normal(0, 0.014, 2),
    drift=rng.normal(0, (0.006, 0.005, 0.006)),
    shrink=float(rng.uniform(0.38, 0.48)) if phone else 1.0,
    seed=int(rng.integers(1 << 31)),
  )


def take(scene: Scene, number: int, make) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """One triplet, as the cameras give it.

  Returns:
    rgb [h, w, 3] uint8 (red first), depth [h, w] uint16 mm or uint8 visualisation (0: nothing
    measured), ir [h, w] uint8; the three have sizes of their own.
  """
  rng = np.random.default_rng(np.random.SeedSequence((scene.seed, 4, number)))
  rig, settings = scene.rig, scene.settings
  layer, rays = scene.frame(number, make)
  light = lighting.visible(layer, rays, SIZE / scene.crop, scene.lights)
  reference = float(np.sqrt(rig.distance[0] * 1.25 * scene.distance))
  heat = lighting.infrared(layer, rays, settings.lamp, scene.lights.infrared, reference)
  rgb = cameras.rgb_camera(light, rig, settings, rig.rgb_size, rng)
  ir = cameras.infrared_camera(heat, rig, settings, rng)
  depth = cameras.depth_camera(layer, rays, rig, settings, scene.lights.infrared, rng)
  if rig.black_outside:
    face = render.outline(layer['face'], rng)
    rgb = rgb * (sensors.resample(face, rig.rgb_size) > 0.5)[..., None]
    ir = ir * (sensors.resample(face, rig.ir_size) > 0.5)
    depth = depth * (sensors.resample(face, rig.depth_size) > 0.5)
  depth = sensors.visualise(depth) if rig.depth_bits == 8 else depth.astype(np.uint16)
  return render.eight_bit(rgb), depth, render.eight_bit(ir)
