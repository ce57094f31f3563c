"""What the cameras make of the light: RGB, infrared, and depth by three principles."""

import dataclasses

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import sensors
from flexfas_jax.data.rendered_faces.materials import Layer
from flexfas_jax.data.rendered_faces.sensors import noise, resample
from flexfas_jax.data.rendered_faces.v2.domains import Rig


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the cameras of a rig are set in one recording."""

  exposure: float  # mean of the face after exposure, linear
  white: np.ndarray  # [3] white balance
  ir_target: float
  shift: np.ndarray  # [2] parallax left after registration, as a share of the image
  lamp: np.ndarray  # [3] place of the infrared lamp, mm
  jpeg: int
  focus: float  # blur added to the lens', pixels
  motion: np.ndarray  # [2] blur of motion, pixels
  bias: float  # of all depths of this recording: calibration, temperature; share
  phase: float  # of the time-of-flight camera's periodic error, rad


def settle(rig: Rig, rng: np.random.Generator) -> Settings:
  """Draws the settings of a recording."""
  return Settings(
    exposure=float(np.exp(rng.normal(np.log(0.22), 0.35))),
    white=np.exp(rng.normal(0, 0.08, 3) * [1, 0.3, 1]).astype(np.float32),
    ir_target=rig.ir_target * float(np.exp(rng.normal(0, 0.18))),
    shift=rng.normal(0, 0.008, 2),
    lamp=np.array([rig.baseline * rng.uniform(0.5, 1.2), rng.uniform(-8, 8), 0], np.float32),
    jpeg=int(np.clip(rig.jpeg + rng.integers(-10, 5), 60, 97)),
    focus=float(rng.choice([0, rng.uniform(0.3, 1.2)], p=[0.6, 0.4])),
    motion=rng.normal(0, 0.5, 2),
    bias=float(rng.normal(0, 0.006)),
    phase=float(rng.uniform(0, 2 * np.pi)),
  )


def rgb_camera(
  radiance: np.ndarray, rig: Rig, settings: Settings, size: int, rng: np.random.Generator
) -> np.ndarray:
  """A photograph, [size, size, 3] in 0..1 as encoded in a file.

  Args:
    radiance: [3, H, W] linear.
    rig: noise and lens.
    settings: exposure, white balance, focus, motion.
    size: pixels a side.
    rng: of the noise.
  """
  n = radiance.shape[1]
  middle = radiance[:, n // 5 : -n // 5 : 2, n // 5 : -n // 5 : 2].mean(0)
  # Exposure by the middle of the image, whatever is there; bright spots count little.
  gain = settings.exposure / max(float(np.minimum(middle, 4 * np.median(middle)).mean()), 1e-4)
  image = np.ascontiguousarray((radiance * gain * settings.white[:, None, None]).transpose(1, 2, 0))
  blur = np.hypot(rig.blur, settings.focus) * n / size
  wide = np.hypot(blur, np.abs(settings.motion) * n / size)
  image = cv2.GaussianBlur(image, (0, 0), sigmaX=float(wide[0]), sigmaY=float(wide[1]))
  image = resample(image, size)
  image = image / (1 + np.maximum(image - 0.7, 0))  # highlights roll off
  image = image + noise(rng, *image.shape) * np.sqrt(
    np.maximum(image, 0) * rig.shot * 2 + rig.read**2
  )
  image = sensors.srgb(image)
  return image + rig.sharpen * (image - cv2.GaussianBlur(image, (0, 0), 1.0))


def infrared_camera(
  radiance: np.ndarray, rig: Rig, settings: Settings, rng: np.random.Generator
) -> np.ndarray:
  """An infrared image [size, size] in 0..1 from radiance [H, W]."""
  n, size = radiance.shape[0], rig.ir_size
  middle = radiance[n // 4 : -n // 4 : 2, n // 4 : -n // 4 : 2]
  level = max(float(np.minimum(middle, 3 * np.median(middle) + 0.02).mean()), 0.01)
  # The level of 0.45 is skin at the reference distance; the control removes a share of the rest.
  gain = settings.ir_target / 0.45 * (0.45 / level) ** rig.ir_control
  image = cv2.GaussianBlur(radiance * np.float32(min(gain, 6)), (0, 0), 0.7 * n / size)
  image = resample(image, size, settings.shift)
  at = np.linspace(-1, 1, size, dtype=np.float32)
  image = image * (1 - 0.14 * (at[None] ** 2 + at[:, None] ** 2))  # the lamp's beam and the lens
  grain = rig.ir_noise * max(gain, 0.5)
  image = image + grain * noise(rng, *image.shape) * (0.4 + np.sqrt(np.maximum(image, 0)))
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
    rig: the principle, noise, quantisation, range, baseline.
    settings: registration, calibration.
    daylight: infrared light of the surroundings.
    rng: of noise and holes.
  """
  size = rig.depth_size

  def at_sensor(plane):
    return resample(np.ascontiguousarray(plane), size, settings.shift, cv2.INTER_NEAREST)

  z = at_sensor(np.minimum(layer['z'], 1e5))
  unit = rays / np.sqrt(np.square(rays).sum(0))
  facing = at_sensor(np.clip(-(unit * layer['normal']).sum(0), 0, 1))
  ir, lost, scatter = (at_sensor(layer[name]) for name in ('ir', 'lost', 'scatter'))
  signal = ir * facing * np.square(500 / z)
  rough = noise(rng, 3, size, size)
  near, far = cv2.erode(z, np.ones((3, 3))), cv2.dilate(z, np.ones((3, 3)))
  edge = far - near > 18
  measure = {'structured': _structured, 'stereo': _stereo, 'tof': _time_of_flight}[rig.depth_kind]
  out, lost = measure(
    z=z, near=near, far=far, edge=edge, facing=facing, signal=signal, lost=lost, scatter=scatter,
    daylight=daylight, rough=rough, rig=rig, settings=settings,
  )  # fmt: skip
  out = out * (1 + settings.bias)
  step = rig.depth_step * np.square(z / 500)
  out = np.rint(out / step) * step
  chance = cv2.GaussianBlur(rough[2], (0, 0), 1.6)
  chance = 0.5 + 0.5 * np.tanh(chance / chance.std() * 0.8)  # about uniform, in patches
  hole = chance < lost
  # Shadow: hidden from the projector, or from the second camera, by something nearer, beside.
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


def _mixed(z, near, far, edge, rough, share):
  """Flying points: at an edge, some pixels report something between both surfaces."""
  between = np.clip(0.5 + 0.6 * rough[1], 0, 1)
  flies = edge & (rough[2] > share)
  return np.where(flies, near + (np.minimum(far, near + 120) - near) * between, z)


def _structured(z, near, far, edge, facing, signal, lost, scatter, daylight, rough, rig, settings):
  """Coded stripes: fine, but the stripes blur in skin and drown in daylight."""
  patch = cv2.GaussianBlur(rough[0], (0, 0), 1.1) * 3.4
  sigma = rig.depth_noise * np.square(z / 500) * (0.6 + 0.12 / (signal + 0.06) + 1.5 * daylight)
  sigma = sigma * (1 + 0.3 * scatter)
  out = _mixed(z, near, far, edge, rough, 0.9) + 0.5 * scatter
  out = out + sigma * (0.75 * patch + 0.5 * rough[1])
  lost = lost + 2.7 * np.clip(0.32 - facing, 0, 1)
  return out, lost + np.clip(0.05 - signal, 0, 1) * 6 + 0.12 * daylight + 0.45 * edge


def _stereo(z, near, far, edge, facing, signal, lost, scatter, daylight, rough, rig, settings):
  """Matching windows: relief is smoothed, errors come in patches, what is in front grows."""
  fat = np.where(edge, near, z)  # the foreground takes the window with it
  seen = np.minimum(fat, np.median(fat) + 400)
  out = np.where(edge | (fat > seen), fat, cv2.GaussianBlur(seen, (0, 0), 1.5))
  patch = cv2.GaussianBlur(rough[0], (0, 0), 2.4) * 8
  sigma = rig.depth_noise * np.square(z / 500) * (0.85 + 0.06 / (signal + 0.06))
  out = out + sigma * (0.9 * patch + 0.15 * rough[1])
  # What shows on a screen is seen and matched by the two cameras, on the plane of the screen.
  lost = 0.4 * lost + 1.5 * np.clip(0.25 - facing, 0, 1) + 0.25 * edge
  return out, lost + np.clip(0.02 - signal, 0, 1) * 6


def _time_of_flight(
  z, near, far, edge, facing, signal, lost, scatter, daylight, rough, rig, settings
):
  """Phase of modulated light: no windows; light that took a longer way adds to the distance."""
  blurred = cv2.GaussianBlur(np.minimum(z, np.median(z) + 300), (0, 0), 0.7)
  out = np.where(edge, blurred, z)  # a pixel at an edge mixes both sides
  wide = cv2.GaussianBlur(np.minimum(z, np.median(z) + 150), (0, 0), 7)
  hollow = np.clip(z - wide, 0, 25)
  out = out + 0.12 * hollow  # several reflections in sockets and beside the nose
  out = out + 2.5 * scatter  # light that came out of skin or silicone was on its way for longer
  out = out + 8 * np.clip(0.2 - signal, 0, 1)  # weak signals read too far
  out = out + 1.5 * np.sin(z * (2 * np.pi / 75) + settings.phase)  # harmonics of the modulation
  sigma = rig.depth_noise * (0.35 + 0.33 / np.sqrt(signal + 0.02)) * (1 + 2 * daylight)
  out = out + sigma * rough[0]
  lost = 0.5 * lost + np.clip(0.03 - signal, 0, 1) * 10 + 0.15 * edge + 0.1 * daylight
  return out, lost + 1.5 * np.clip(0.15 - facing, 0, 1)
