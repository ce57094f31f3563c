"""Light in the scene: what a surface sends to the camera, visible and infrared."""

import dataclasses

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces.materials import Layer


@dataclasses.dataclass(frozen=True)
class Lights:
  """Visible light: two lamps and the light of the surroundings from above and below."""

  key: np.ndarray  # [3] towards the lamp, unit
  key_rgb: np.ndarray  # [3]
  fill: np.ndarray
  fill_rgb: np.ndarray
  above: np.ndarray  # [3] RGB from above
  below: np.ndarray  # [3] RGB from below
  infrared: float  # what the surroundings send at 850 nm; sunlight has much, lamps have little


def draw(rng: np.random.Generator, outdoor: bool) -> Lights:
  """Draws the light of one recording."""
  tint = np.exp(rng.normal(0, 0.10) * np.array([1, 0.1, -1]))  # warm to cold
  side = rng.uniform(-1.1, 1.1)
  key = np.array([np.sin(side), rng.uniform(-0.9, -0.1), -rng.uniform(0.5, 1.2)])
  fill = np.array([-np.sin(side) + rng.normal(0, 0.3), rng.uniform(-0.5, 0.2), -1.0])
  strength = rng.uniform(0.5, 1.5) if outdoor else rng.uniform(0.35, 1.0)
  ambient = rng.uniform(0.25, 0.55)
  return Lights(
    key=(key / np.linalg.norm(key)).astype(np.float32),
    key_rgb=(strength * tint).astype(np.float32),
    fill=(fill / np.linalg.norm(fill)).astype(np.float32),
    fill_rgb=(rng.uniform(0.05, 0.4) * np.exp(rng.normal(0, 0.06, 3))).astype(np.float32),
    above=(ambient * tint * (np.array([0.92, 1.0, 1.12]) if outdoor else 1)).astype(np.float32),
    below=(ambient * rng.uniform(0.4, 0.9) * np.exp(rng.normal(0, 0.08, 3))).astype(np.float32),
    infrared=rng.uniform(0.15, 0.45) if outdoor else rng.uniform(0, 0.03),
  )


def shadow(z: np.ndarray, towards: np.ndarray, scale: float) -> np.ndarray:
  """Share of a lamp's light that reaches each pixel, [H, W] in 0..1.

  Walks from the surface towards the lamp through the depth map; what is in the way and is not
  far in front of the path throws a shadow.

  Args:
    z: [H, W] mm, inf where there is nothing.
    towards: [3] to the lamp, unit.
    scale: pixels per mm at the distance of the face.
  """
  z = np.minimum(z, np.float32(1e5))
  lit = np.ones_like(z)
  for step in (6, 12, 22, 36, 56, 85):  # mm
    dx, dy = towards[0] * step * scale, towards[1] * step * scale
    shift = np.float32([[1, 0, dx], [0, 1, dy]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP  # nothing between near and far
    other = cv2.warpAffine(z, shift, z.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    gap = z + towards[2] * step - other  # how far the obstacle is in front of the path
    open_ = np.clip(1.6 - gap / (1.5 + 0.08 * step), 0, 1)
    np.minimum(lit, open_, out=lit, where=gap < 110)
  return cv2.GaussianBlur(lit, (0, 0), 0.9)


def visible(layer: Layer, rays: np.ndarray, scale: float, lights: Lights) -> np.ndarray:
  """Radiance [3, H, W], linear; a white sheet in full key light is about 1.

  Args:
    layer: what is seen.
    rays: [3, H, W] with z = 1.
    scale: pixels per mm at the distance of the face.
    lights: what falls on it.
  """
  normal = layer['normal']
  view = rays / -np.sqrt(np.square(rays).sum(0))  # [3, H, W]
  up = 0.5 - 0.5 * normal[1]  # y is down
  light = lights.above[:, None, None] * up + lights.below[:, None, None] * (1 - up)
  lit = shadow(layer['z'], lights.key, scale)
  # Light that enters skin comes out beside: the terminator is soft, most of all in red.
  wrap = layer['scatter'] * np.float32([0.30, 0.12, 0.08])[:, None, None]
  for towards, rgb, reach in (
    (lights.key, lights.key_rgb, lit),
    (lights.fill, lights.fill_rgb, 1.0),
  ):
    facing = np.einsum('k,khw->hw', towards, normal)  # [H, W]
    light += rgb[:, None, None] * (np.maximum(facing + wrap, 0) * (reach / (1 + wrap)))
  # Highlights of the key light; the other is broad and weak.
  half = view + lights.key[:, None, None]
  half /= np.sqrt(np.square(half).sum(0)) + 1e-6
  lobe = np.power(np.clip((half * normal).sum(0), 0, 1), layer['sharpness'])
  specular = lights.key_rgb[:, None, None] * (lobe * (layer['sharpness'] + 8) / 25 * lit)
  fresnel = 1 + 4 * np.square(np.square(1 - np.clip((view * normal).sum(0), 0, 1)))
  mirrored = layer['gloss'] * fresnel * (specular + 0.12 * lights.above[:, None, None])
  return layer['albedo'] * light + mirrored + layer['emit']


def infrared(
  layer: Layer, rays: np.ndarray, lamp: np.ndarray, surroundings: float, reference: float
) -> np.ndarray:
  """Radiance at 850 nm, [H, W]; a white surface facing the lamp at `reference` mm gives 1.

  Args:
    layer: what is seen.
    rays: [3, H, W] with z = 1.
    lamp: [3] place of the lamp beside the camera, mm.
    surroundings: infrared light that is there anyway.
    reference: mm.
  """
  z = np.minimum(layer['z'], 1e5)
  point = rays * z
  to_lamp = lamp[:, None, None] - point
  distance = np.sqrt(np.square(to_lamp).sum(0))
  to_lamp /= distance
  normal = layer['normal']
  facing = (to_lamp * normal).sum(0)
  falloff = np.square(reference / distance)
  view = -rays / np.sqrt(np.square(rays).sum(0))
  half = view + to_lamp
  half /= np.sqrt(np.square(half).sum(0)) + 1e-6
  lobe = np.power(np.clip((half * normal).sum(0), 0, 1), layer['sharpness'])
  lobe *= layer['gloss'] * (layer['sharpness'] + 8) / 25
  beam = np.square(np.clip(-to_lamp[2], 0, 1))  # a lamp's cone is brightest along its axis
  wrap = 0.18 * layer['scatter']
  light = np.maximum(facing + wrap, 0) / (1 + wrap) * falloff * beam
  up = 0.7 - 0.3 * normal[1]
  return layer['ir'] * (light + surroundings * up) + lobe * falloff * (facing > 0)
