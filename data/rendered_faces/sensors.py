"""What the cameras make of the light: RGB, depth and infrared, each with its own faults."""

import dataclasses
import functools
import math

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces.materials import Layer

WINDOW = 360.0  # mm from black to white in the 8-bit visualisation of depth


@dataclasses.dataclass(frozen=True)
class Rig:
  """The sensors of one data set, and the distances of subjects from them."""

  rgb_size: int
  depth_size: int
  ir_size: int
  crop: tuple[float, float]  # height of the image at the face, mm
  distance: tuple[float, float]  # of the face, mm
  yaw: float  # standard deviations, degrees
  pitch: float
  roll: float
  outdoor: float  # share of bona fide recordings in daylight
  black_outside: bool  # everything but the face is set to 0
  blur: float  # of the lens, pixels
  shot: float  # noise variance per unit of light
  read: float  # noise of the dark, linear
  jpeg: int
  depth_bits: int  # 16: millimetres; 8: a visualisation
  depth_noise: float  # mm at 500 mm
  depth_step: float  # quantisation, mm at 500 mm
  depth_range: float  # mm; nothing is measured beyond
  baseline: float  # projector to camera, mm
  ir_gain: float
  ir_gamma: float
  ir_noise: float


RIGS = {
  'surf_like': Rig(
    rgb_size=112, depth_size=96, ir_size=96, crop=(208, 230), distance=(380, 700),
    yaw=11, pitch=7, roll=4, outdoor=0.0, black_outside=True,
    blur=0.65, shot=3.0e-4, read=0.004, jpeg=92,
    depth_bits=8, depth_noise=0.9, depth_step=0.5, depth_range=1500, baseline=26,
    ir_gain=0.95, ir_gamma=0.75, ir_noise=0.010,
  ),
  'cefa_like': Rig(
    rgb_size=112, depth_size=112, ir_size=112, crop=(228, 268), distance=(450, 850),
    yaw=8, pitch=6, roll=4, outdoor=0.3, black_outside=False,
    blur=0.6, shot=2.0e-4, read=0.003, jpeg=90,
    depth_bits=16, depth_noise=1.4, depth_step=0.7, depth_range=4000, baseline=50,
    ir_gain=0.80, ir_gamma=0.85, ir_noise=0.014,
  ),
  'wmca_like': Rig(
    rgb_size=104, depth_size=100, ir_size=100, crop=(222, 262), distance=(420, 680),
    yaw=7, pitch=6, roll=3, outdoor=0.0, black_outside=False,
    blur=0.8, shot=4.5e-4, read=0.006, jpeg=85,
    depth_bits=16, depth_noise=2.0, depth_step=1.0, depth_range=1600, baseline=26,
    ir_gain=1.25, ir_gamma=0.65, ir_noise=0.020,
  ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the sensors of a rig are set in one recording."""

  exposure: float  # mean of the face after exposure, linear
  white: np.ndarray  # [3] white balance
  ir_gain: float
  shift: np.ndarray  # [2] parallax left after registration, as a share of the image
  lamp: np.ndarray  # [3] place of the infrared lamp, mm
  jpeg: int


def settle(rig: Rig, rng: np.random.Generator) -> Settings:
  """Draws the settings of a recording."""
  return Settings(
    exposure=float(np.exp(rng.normal(np.log(0.24), 0.28))),
    white=np.exp(rng.normal(0, 0.06, 3) * [1, 0.3, 1]).astype(np.float32),
    ir_gain=rig.ir_gain * float(np.exp(rng.normal(0, 0.12))),
    shift=rng.normal(0, 0.006, 2),
    lamp=np.array([rig.baseline * rng.uniform(0.5, 1.2), rng.uniform(-8, 8), 0], np.float32),
    jpeg=int(np.clip(rig.jpeg + rng.integers(-6, 5), 60, 97)),
  )


def resample(image: np.ndarray, size: int, shift: np.ndarray = (0, 0), how=cv2.INTER_LINEAR):
  """An image [h, h] or [h, h, C] as another camera of `size` pixels sees it."""
  scale = size / image.shape[0]
  middle = (scale - 1) / 2
  move = np.float32([[scale, 0, middle + shift[0] * size], [0, scale, middle + shift[1] * size]])
  return cv2.warpAffine(image, move, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)


@functools.cache
def _bank():
  return np.random.default_rng(105).standard_normal(1 << 20, dtype=np.float32)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
  """Standard normal numbers, float32: a stretch of a long fixed row, which is quick to draw."""
  count = math.prod(shape)
  start = int(rng.integers((1 << 20) - count))
  return _bank()[start : start + count].reshape(shape)


def srgb(linear: np.ndarray) -> np.ndarray:
  """Encodes linear light in 0..1 (IEC 61966-2-1), by a table of 16,384 steps."""
  return _srgb_table()[(np.clip(linear, 0, 1) * 16383).astype(np.int32)]


@functools.cache
def _srgb_table():
  x = np.linspace(0, 1, 16384, dtype=np.float32)
  return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.power(x, 1 / 2.4) - 0.055)


def rgb_camera(
  radiance: np.ndarray, rig: Rig, settings: Settings, size: int, rng: np.random.Generator
) -> np.ndarray:
  """A photograph, [size, size, 3] in 0..1 as encoded in a file.

  Args:
    radiance: [3, H, W] linear.
    rig: noise and lens.
    settings: exposure, white balance.
    size: pixels a side.
    rng: of the noise.
  """
  n = radiance.shape[1]
  middle = radiance[:, n // 5 : -n // 5 : 2, n // 5 : -n // 5 : 2].mean(0)
  # Exposure by the middle of the image, whatever is there; bright spots count little.
  gain = settings.exposure / max(float(np.minimum(middle, 4 * np.median(middle)).mean()), 1e-4)
  image = np.ascontiguousarray((radiance * gain * settings.white[:, None, None]).transpose(1, 2, 0))
  image = cv2.GaussianBlur(image, (0, 0), rig.blur * n / size)
  image = resample(image, size)
  image = image / (1 + np.maximum(image - 0.7, 0))  # highlights roll off
  image = image + noise(rng, *image.shape) * np.sqrt(
    np.maximum(image, 0) * rig.shot * 2 + rig.read**2
  )
  return srgb(image)


def infrared_camera(
  radiance: np.ndarray, rig: Rig, settings: Settings, rng: np.random.Generator
) -> np.ndarray:
  """An infrared image [size, size] in 0..1 from radiance [H, W]."""
  n, size = radiance.shape[0], rig.ir_size
  image = cv2.GaussianBlur(radiance * settings.ir_gain, (0, 0), 0.7 * n / size)
  image = resample(image, size, settings.shift)
  at = np.linspace(-1, 1, size, dtype=np.float32)
  image = image * (1 - 0.14 * (at[None] ** 2 + at[:, None] ** 2))  # the lamp's beam and the lens
  image = image + rig.ir_noise * noise(rng, *image.shape) * (0.4 + np.sqrt(np.maximum(image, 0)))
  image = image / (1 + np.maximum(image - 0.75, 0) * 0.8)
  return np.power(np.clip(image, 0, 1), rig.ir_gamma)


def depth_camera(
  layer: Layer, rays: np.ndarray, rig: Rig, settings: Settings, daylight: float,
  rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
  """Measured distance [size, size], mm; 0 where nothing was measured.

  Args:
    layer: what is seen; z may be inf.
    rays: [3, H, W], z = 1.
    rig: noise (it grows with the square of distance), quantisation, range, baseline.
    settings: registration.
    daylight: infrared light of the surroundings, in which the projected pattern drowns.
    rng: of noise and holes.
  """
  size = rig.depth_size

  def at_sensor(plane):
    return resample(np.ascontiguousarray(plane), size, settings.shift, cv2.INTER_NEAREST)

  z = at_sensor(np.minimum(layer['z'], 1e5))
  unit = rays / np.sqrt(np.square(rays).sum(0))
  facing = at_sensor(np.clip(-(unit * layer['normal']).sum(0), 0, 1))
  signal = at_sensor(layer['ir']) * facing * np.square(500 / z)
  rough = noise(rng, 3, size, size)
  patch = cv2.GaussianBlur(rough[0], (0, 0), 1.1) * 3.4  # matching windows: errors come in patches
  sigma = rig.depth_noise * np.square(z / 500) * (0.6 + 0.12 / (signal + 0.06) + 1.5 * daylight)
  out = z + sigma * (0.75 * patch + 0.5 * rough[1])
  # Edges: a window that sees two surfaces reports something between.
  near, far = cv2.erode(z, np.ones((3, 3))), cv2.dilate(z, np.ones((3, 3)))
  edge = far - near > 18
  share = np.clip(0.5 + 0.6 * rough[1], 0, 1)
  flies = edge & (rough[2] > 0.9)
  out = np.where(flies, near + (np.minimum(far, near + 120) - near) * share, out)
  step = rig.depth_step * np.square(z / 500)
  out = np.rint(out / step) * step

  lost = at_sensor(layer['lost']) + 0.9 * np.clip(0.32 - facing, 0, 1) * 3
  lost = lost + np.clip(0.05 - signal, 0, 1) * 6 + 0.12 * daylight + 0.45 * edge
  chance = cv2.GaussianBlur(rough[2], (0, 0), 1.6)
  chance = 0.5 + 0.5 * np.tanh(chance / chance.std() * 0.8)  # about uniform, in patches
  hole = chance < lost
  # Shadow of the projector: hidden from it by something nearer, beside.
  scale = size / float(rays[0, 0, -1] - rays[0, 0, 0])  # focal length in pixels
  scale /= max(float(np.median(z[::4, ::4])), 200.0)  # pixels per mm
  for reach in (6, 14, 26, 44, 70):  # mm
    pixels = reach * scale
    other = cv2.warpAffine(
      z, np.float32([[1, 0, -pixels], [0, 1, 0]]), (size, size), flags=cv2.INTER_NEAREST,
      borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    hole |= other < z - reach * z / rig.baseline - 4
  return np.where(hole | (out > rig.depth_range) | (z > 9e4), 0, out)


def visualise(depth: np.ndarray) -> np.ndarray:
  """8-bit image of a depth map [H, W] in mm: near is bright, the median 0.5, holes are 0.

  value = 0.5 - (depth - median) / WINDOW, clipped to [1/255, 1]; the median is that of all
  measured points.
  """
  seen = depth > 0
  median = np.median(depth[seen]) if seen.any() else 0.0
  value = np.clip(0.5 - (depth - median) / WINDOW, 1 / 255, 1)
  return np.where(seen, np.rint(255 * value), 0).astype(np.uint8)
