"""What is in the image besides the face: neck, shoulders, long hair, fingers, the room."""

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces.head import Identity, rotate
from flexfas_jax.data.rendered_faces.materials import Layer, Material, coat, skin


def ellipsoid(
  material: Material,
  rays: np.ndarray,
  centre: np.ndarray,
  radii: tuple[float, float, float],
  turn: np.ndarray,
) -> tuple[Layer, np.ndarray]:
  """An ellipsoid of one material, as rays [3, H, W] (z = 1) meet it.

  Returns:
    The layer, and the points that are met [3, h, w], mm, 0 where there are none.
  """
  # The part of the image that it can be in: its box, seen from its nearest and farthest side.
  reach = np.sqrt(np.square(turn * np.asarray(radii)).sum(1))
  sides = [(centre[k] + s * reach[k]) / (centre[2] + e * reach[2])
           for k in (1, 0) for s in (-1, 1) for e in (-1, 1)]  # fmt: skip
  rows = np.searchsorted(rays[1, :, 0], (min(sides[:4]), max(sides[:4])))
  columns = np.searchsorted(rays[0, 0], (min(sides[4:]), max(sides[4:])))
  window = slice(*rows.tolist()), slice(*columns.tolist())
  rays = rays[:, *window]  # [3, h, w]

  scale = (np.float32(radii)[:, None] ** -1) * turn.T.astype(np.float32)  # to the unit sphere
  direction = rotate(scale, rays)
  origin = (scale @ np.float32(-np.asarray(centre)))[:, None, None]
  a = np.square(direction).sum(0)
  b = (origin * direction).sum(0)
  root = b * b - a * (np.square(origin).sum(0) - 1)
  hit = root > 0
  z = np.where(hit, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)
  normal = rotate(scale.T, origin + direction * z)
  normal /= np.sqrt(np.square(normal).sum(0)) + 1e-9
  return coat(material, np.where(hit, z, np.float32(np.inf)), normal, window), rays * z


def body(identity: Identity, rays: np.ndarray, place: np.ndarray, yaw: float) -> list[Layer]:
  """Neck, shoulders and long hair of an identity whose head's origin is at `place` [3] mm."""
  c, s = np.cos(0.3 * yaw), np.sin(0.3 * yaw)
  turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
  tone, tone_ir = skin(identity)
  place = np.asarray(place)
  neck = Material(tuple(0.92 * tone), tone_ir, 0.03, 10, 1.0, 0.02)
  neck, _ = ellipsoid(neck, rays, place + turn @ [0, 120, 15], (54, 150, 56), turn)
  cloth = Material(identity.cloth_rgb, identity.cloth_ir, 0.01, 6, 0, 0.05)
  cloth, (x, _, _) = ellipsoid(cloth, rays, place + turn @ [0, 300, 40], (225, 150, 110), turn)
  if identity.seed[-1] % 3 == 0:  # stripes
    cloth['albedo'] *= 1 + 0.2 * np.sin(x * 0.35)
  layers = [neck, cloth]
  if identity.hair == 'long':
    hair = Material(
      identity.hair_rgb, identity.hair_ir, 0.03, 8, 0, 0.42 * (1 - 1.6 * identity.hair_ir)
    )
    hair, (x, y, _) = ellipsoid(hair, rays, place + turn @ [0, 35, 38], (93, 135, 78), turn)
    hair['albedo'] *= 1 + 0.3 * np.sin(x * 1.3 + 2 * np.sin(y * 0.03))
    layers.append(hair)
  return layers


def finger(identity: Identity, rays: np.ndarray, tip: np.ndarray, angle: float) -> Layer:
  """A finger that holds something: `tip` [3] mm, pointing at `angle` [rad] in the image."""
  c, s = np.cos(angle), np.sin(angle)
  turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
  tone, tone_ir = skin(identity)
  flesh = Material(tuple(tone), tone_ir, 0.05, 14, 1.0, 0.02)
  return ellipsoid(flesh, rays, np.asarray(tip) + turn @ [22, 0, 0], (30, 9, 8.5), turn)[0]


def room(rng: np.random.Generator, size: int, distance: float) -> Layer:
  """A wall with things on it; infrared and colour have patterns of their own.

  Args:
    rng: of what is there.
    size: of the image, pixels.
    distance: of the wall, mm.
  """
  base = rng.uniform(0.12, 0.75) * np.exp(rng.normal(0, 0.12, 3))
  image = np.ones((size, size, 3), np.float32) * base.astype(np.float32)
  infra = np.full((size, size), rng.uniform(0.35, 0.75), np.float32)
  depth = np.full((size, size), distance, np.float32)
  for _ in range(rng.integers(0, 5)):  # shelves, doors, paintings, windows
    x, y = rng.integers(-size // 2, size, 2)
    w, h = rng.integers(size // 6, size, 2)
    box = np.s_[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
    image[box] = rng.uniform(0.03, 0.9) * np.exp(rng.normal(0, 0.25, 3))
    infra[box] = rng.uniform(0.1, 0.8)
    depth[box] = distance - rng.choice([0, 30, 250])
  image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 3))  # out of focus
  slope = np.linspace(-1, 1, size, dtype=np.float32)
  across, along = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
  image *= (1 + across * slope[None, :, None]) * (1 + along * slope[:, None, None])
  layer = coat(Material((0, 0, 0), 0, lost=0.05), depth, np.float32([0, 0, -1])[:, None, None])
  layer['albedo'], layer['ir'] = image.transpose(2, 0, 1), infra
  return layer
