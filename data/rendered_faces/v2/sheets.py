"""Sheets of paper and screens of version 2: photos, and developable surfaces that carry them."""

import dataclasses

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import materials
from flexfas_jax.data.rendered_faces.head import EYE_X, MOUTH_Y, ramp, rotate
from flexfas_jax.data.rendered_faces.materials import Layer, Material, coat
from flexfas_jax.data.rendered_faces.v2.substances import Ink, printed_on

_TURNS = 5  # of Newton's method; a hundredth of a millimetre for the bends that are drawn


@dataclasses.dataclass(frozen=True)
class Photo:
  """Photos of a face, visible and infrared, and where on them the parts of the face are."""

  rgb: np.ndarray  # [n, n, 3] in 0..1, as encoded in a file
  infra: np.ndarray  # [n, n] linear, skin about 0.5
  where: np.ndarray  # [n, n, 3]: painter's x, y (far away outside the head), face 0..1
  mm: float  # millimetres of the face per pixel

  def at(self, right: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At life size, mm from its middle: rgb [3, H, W], infra [H, W], where [3, H, W]."""
    middle = (self.rgb.shape[0] - 1) / 2
    column, row = (np.float32(a / self.mm + middle) for a in (right, down))
    rgb, infra = (
      cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
      for image in (self.rgb, self.infra)
    )
    where = cv2.remap(
      self.where, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
      borderValue=(999, 999, 0),
    )  # fmt: skip
    rgb, where = (np.ascontiguousarray(a.transpose(2, 0, 1)) for a in (rgb, where))
    return rgb, infra, where


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A sheet in space: bent about its vertical axis, creased over a nose, in waves.

  turn: [3, 3], columns are its right, its down and its back; place: [3] of its middle, mm;
  bend: 1 / radius in 1/mm, positive curves away from the viewer; ridge: slope of both sides of the
  crease; waves: amplitude [mm], length [mm] and phase of waves along x and y, [2, 3].
  """

  turn: np.ndarray
  place: np.ndarray
  bend: float = 0.0
  ridge: float = 0.0
  waves: tuple[tuple[float, float, float], ...] = ((0, 100, 0), (0, 100, 0))

  def _profile(self, x, k):
    """Height [mm] (away from the viewer) and slope along one of its axes."""
    amplitude, length, phase = self.waves[k]
    turn = 2 * np.pi / length
    height = amplitude * np.sin(turn * x + phase)
    slope = amplitude * turn * np.cos(turn * x + phase)
    if k == 0:
      if self.bend:
        inside = np.clip(self.bend * x, -0.98, 0.98)
        root = np.sqrt(1 - inside * inside)
        height = height + (1 - root) / self.bend + (np.abs(x) - np.abs(inside) / self.bend) * 5
        slope = slope + np.where(np.abs(inside) < 0.98, inside / root, 5 * np.sign(x))
      if self.ridge:
        round_ = np.sqrt(x * x + 36)
        height = height + self.ridge * (round_ - 6)
        slope = slope + self.ridge * x / round_
    return height, slope

  def meet(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where rays [3, H, W] (z = 1) meet it.

    Returns:
      z [H, W] mm (inf for a miss), normal [3, H, W], and the place on the sheet, along its surface,
      to the right and down [H, W] mm.
    """
    turn = self.turn.astype(np.float32)
    o = -turn.T @ np.float32(self.place)
    d = rotate(turn.T, rays)
    t = -o[2] / d[2]
    for _ in range(_TURNS):
      x, y, z = (o[i] + d[i] * t for i in range(3))
      (hx, sx), (hy, sy) = self._profile(x, 0), self._profile(y, 1)
      step = (hx + hy - z) / np.minimum(sx * d[0] + sy * d[1] - d[2], -0.05)
      t = t - np.clip(step, -60, 60)
    x, y, z = (o[i] + d[i] * t for i in range(3))
    (hx, sx), (hy, sy) = self._profile(x, 0), self._profile(y, 1)
    hit = (np.abs(hx + hy - z) < 0.5) & (t > 0)
    if self.bend:
      hit &= np.abs(x * self.bend) < 0.97
    normal = np.stack([sx, sy, -np.ones_like(sx)])
    normal = rotate(turn, normal / np.sqrt(np.square(normal).sum(0)))
    # Along the paper, not through the air.
    table = np.linspace(-260, 260, 521)
    slope = self._profile(table, 0)[1]
    along = np.concatenate([[0], np.cumsum(np.sqrt(1 + np.square(0.5 * (slope[1:] + slope[:-1]))))])
    right = np.interp(x, table, along - along[260]).astype(np.float32)
    return np.where(hit, t, np.float32(np.inf)), normal.astype(np.float32), right, y


def waves(rng: np.random.Generator, most: float) -> tuple[tuple[float, float, float], ...]:
  """Waves of held paper, up to `most` mm."""
  return tuple(
    (float(rng.uniform(0, most)), float(rng.uniform(90, 260)), float(rng.uniform(0, 6)))
    for _ in range(2)
  )


def printed(
  sheet: Sheet, rays: np.ndarray, photo: Photo, paper: Material, ink: Ink, scale: float,
  half: tuple[float, float],
) -> tuple[Layer, np.ndarray]:  # fmt: skip
  """A printed photo.

  Args:
    sheet: where it is.
    rays: [3, H, W] of the camera.
    photo: what is on it.
    paper: of which it is.
    ink: of the printer.
    scale: size of the printed face, 1 is life size.
    half: half width and half height of the sheet, mm.

  Returns:
    The layer, and `Photo.where` on it, [3, H, W].
  """
  z, normal, right, down = sheet.meet(rays)
  finite = np.isfinite(z)
  right, down = np.where(finite, right, 9e3), np.where(finite, down, 9e3)
  z = np.where((np.abs(right) < half[0]) & (np.abs(down) < half[1]), z, np.float32(np.inf))
  rgb, infra, where = photo.at(right / scale, down / scale)
  layer = coat(paper, z, normal)
  printed_on(paper, ink, rgb, infra, layer, down * 2.1 + right * 0.3)
  layer['face'] = where[2]
  return layer, where


def holes(where: np.ndarray, nose: bool, mouth: bool, eye: tuple[float, float] = (18.5, 10.5)):
  """Distance to the cut, [H, W]: below 1 is cut out (eyes always), 1 is its edge.

  Args:
    where: painter's coordinates on the sheet or mask, [2+, H, W].
    nose: is the nose cut out.
    mouth: is the mouth cut out.
    eye: half width and half height of the holes for the eyes, mm.
  """
  x, y = where[:2]
  cut = np.hypot((np.abs(x) - EYE_X) / eye[0], y / eye[1])
  if nose:
    half = 9 + 12 * ramp(y, 0, 44)
    cut = np.minimum(cut, np.maximum(np.abs(x) / half, np.abs(y - 27) / 31))
  if mouth:
    cut = np.minimum(cut, np.hypot(x / 33, (y - MOUTH_Y - 1) / 16))
  return cut


def screen(
  sheet: Sheet, rays: np.ndarray, photo: Photo, scale: float, half: tuple[float, float],
  bezel: float, brightness: float, moire: tuple[float, float, float], offset: tuple[float, float],
) -> Layer:  # fmt: skip
  """A display that shows a photo: it gives off light of its own and mirrors the lamps.

  Args:
    sheet: where it is.
    rays: [3, H, W] of the camera.
    photo: what is shown.
    scale: size of the shown face, 1 is life size.
    half: half width and half height of the lit area, mm.
    bezel: width of the frame, mm.
    brightness: of its white, in units of the scene's white.
    moire: beats of its pixels with the camera's: strength, and period to the right and down, mm.
    offset: where the face is off the display's middle, mm.
  """
  z, normal, right, down = sheet.meet(rays)
  right = np.where(np.isfinite(z), right, 9e3) + offset[0]
  down = np.where(np.isfinite(z), down, 9e3) + offset[1]
  lit = (np.abs(right) < half[0]) & (np.abs(down) < half[1])
  inside = (np.abs(right) < half[0] + bezel) & (np.abs(down) < half[1] + 1.6 * bezel)
  layer = coat(materials.SCREEN, np.where(inside, z, np.float32(np.inf)), normal)
  rgb, _, where = photo.at((right - offset[0]) / scale, (down - offset[1]) / scale)
  linear = np.power(rgb, 2.2) * np.float32([0.93, 1.0, 1.10])[:, None, None] + 0.006
  strength, period_x, period_y = moire
  phase = 2 * np.pi * (right / period_x + down / period_y)
  beat = np.stack([np.sin(phase), np.sin(phase * 1.04 + 2.1), np.sin(phase * 0.97 + 4.2)])
  layer['emit'] = linear * brightness * (1 + strength * beat) * lit
  frame = coat(materials.BLACK_PLASTIC, layer['z'], normal)
  np.copyto(layer.planes, frame.planes, where=~lit)
  layer['face'] = where[2] * lit
  return layer
