"""Sheets: photos of faces, printed on paper (flat, bent, with holes) or shown on a screen."""

import dataclasses

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import materials
from flexfas_jax.data.rendered_faces.head import MOUTH_Y, Identity, eye_centre, ramp, rotate, traits
from flexfas_jax.data.rendered_faces.materials import Layer, Material, coat


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A rectangle in space, bent about its own vertical axis.

  turn: [3, 3], columns are its right, its down and its back; place: [3] of its middle, mm;
  bend: 1 / radius in 1/mm, 0 is flat, positive curves away from the viewer.
  """

  turn: np.ndarray
  place: np.ndarray
  bend: float = 0.0

  def meet(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where rays [3, H, W] (z = 1) meet it.

    Returns:
      z [H, W] mm (inf for a miss), normal [3, H, W], and the place on the sheet, along its surface,
      to the right and down [H, W] mm.
    """
    # In its own axes the surface is bend/2 (x^2 + z^2) = z, a cylinder that touches z = 0.
    turn = self.turn.astype(np.float32)
    o = -turn.T @ np.float32(self.place)
    d = rotate(turn.T, rays)
    k = np.float32(self.bend)
    a = 0.5 * k * (np.square(d[0]) + np.square(d[2]))
    b = k * (o[0] * d[0] + o[2] * d[2]) - d[2]
    c = 0.5 * k * (o[0] ** 2 + o[2] ** 2) - o[2]
    root = b * b - 4 * a * c
    hit = root > 0
    # This form of the root does not lose its digits as the bend goes to 0.
    z = 2 * c / (-b + np.copysign(np.sqrt(np.maximum(root, 0)), -b))
    x, y, depth = (o[i] + d[i] * z for i in range(3))
    hit &= (z > 0) & (np.abs(k * x) < 0.99) & (k * depth < 1)
    normal = np.stack([k * x, np.zeros_like(x), k * depth - 1])
    normal = rotate(turn, normal)
    if k:
      x = np.arcsin(np.clip(k * x, -1, 1)) / k
    return np.where(hit, z, np.float32(np.inf)), normal, x, y


@dataclasses.dataclass(frozen=True)
class Photo:
  """An image of an identity, as encoded in a file, and where on it the parts of the face are."""

  rgb: np.ndarray  # [n, n, 3] in 0..1
  where: np.ndarray  # [n, n, 3]: canonical x, y (far away outside the head), face 0..1
  mm: float  # millimetres of the face per pixel

  def at(self, right: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples the image at life size, mm from its middle: rgb [3, H, W], where [3, H, W]."""
    middle = (self.rgb.shape[0] - 1) / 2
    column, row = (np.float32(a / self.mm + middle) for a in (right, down))
    rgb = cv2.remap(self.rgb, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    where = cv2.remap(
      self.where, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
      borderValue=(999, 999, 0),
    )  # fmt: skip
    return rgb.transpose(2, 0, 1), where.transpose(2, 0, 1)


@dataclasses.dataclass(frozen=True)
class Printer:
  """One printer and its paper."""

  paper: Material
  carbon: float  # share of the darkness that stays black at 850 nm
  cast: np.ndarray  # [3] colour error
  bands: float  # strength of the lines the head leaves

  @staticmethod
  def draw(rng: np.random.Generator, glossy: bool) -> 'Printer':
    """Draws a printer: mostly dyes, sometimes toner or pigment with carbon."""
    return Printer(
      materials.GLOSSY_PAPER if glossy else materials.PAPER,
      float(rng.choice([0.03, rng.uniform(0.3, 0.75)], p=[0.65, 0.35])),
      np.exp(rng.normal(0, 0.05, 3)).astype(np.float32),
      rng.uniform(0, 0.03),
    )


def printed(
  sheet: Sheet, rays: np.ndarray, photo: Photo, printer: Printer, scale: float,
  half: tuple[float, float], rng: np.random.Generator,
) -> tuple[Layer, np.ndarray]:  # fmt: skip
  """A printed photo.

  Args:
    sheet: where it is.
    rays: [3, H, W] of the camera.
    photo: what is on it.
    printer: ink and paper.
    scale: size of the printed face, 1 is life size.
    half: half width and half height of the sheet, mm.
    rng: of the paper's waves.

  Returns:
    The layer, and `Photo.where` on it, [3, H, W].
  """
  z, normal, right, down = sheet.meet(rays)
  finite = np.isfinite(z)
  right, down = np.where(finite, right, 9e3), np.where(finite, down, 9e3)
  z = np.where((np.abs(right) < half[0]) & (np.abs(down) < half[1]), z, np.float32(np.inf))
  rgb, where = photo.at(right / scale, down / scale)
  layer = coat(printer.paper, z, _wavy(sheet, normal, right, down, rng))
  layer['albedo'], layer['ir'] = materials.ink(rgb, printer.carbon)
  lines = (
    1 + printer.bands * np.sin(down * 2.1) + 0.5 * printer.bands * np.sin(right * 5 + down * 3)
  )
  layer['albedo'] *= printer.cast[:, None, None] * lines
  layer['lost'] = 0.01
  layer['face'] = where[2]
  return layer, where


def _wavy(sheet, normal, right, down, rng):
  """Paper is never quite flat: slopes of a few degrees."""
  phase, pitch = rng.uniform(0, 6, 2), rng.uniform(60, 140, 2)
  slope = rng.uniform(0.0, 0.06, 2)
  tilt = slope[0] * np.sin(right / pitch[0] * 6 + phase[0]) * sheet.turn[:, 0, None, None]
  tilt = tilt + slope[1] * np.sin(down / pitch[1] * 6 + phase[1]) * sheet.turn[:, 1, None, None]
  normal = normal + tilt
  return (normal / np.sqrt(np.square(normal).sum(0))).astype(np.float32)


def holes(identity: Identity, where: np.ndarray, nose: bool, mouth: bool) -> np.ndarray:
  """Distance to the cut, [H, W]: below 1 is cut out (eyes always), 1 is its edge.

  Args:
    who: whose photo it is.
    where: `Photo.where` on the sheet.
    nose: is the nose cut out.
    mouth: is the mouth cut out.
  """
  x, y = where[:2]
  s = traits(identity)
  cut = np.full_like(x, 9)
  for side in (-1, 1):
    ex, ey = eye_centre(identity, side)
    cut = np.minimum(cut, np.hypot((x - ex) / 18.5, (y - ey) / 10.5))
  if nose:
    half = 9 + 12 * ramp(y, 0, 44)
    middle, reach = 27 + s['nose_length'], 31
    cut = np.minimum(cut, np.maximum(np.abs(x) / half, np.abs(y - middle) / reach))
  if mouth:
    cut = np.minimum(cut, np.hypot(x / (33 + 1.6 * s['mouth_width']), (y - MOUTH_Y - 1) / 16))
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
  right = np.where(np.isfinite(z), right, 9e3)
  down = np.where(np.isfinite(z), down, 9e3)
  right, down = right + offset[0], down + offset[1]
  lit = (np.abs(right) < half[0]) & (np.abs(down) < half[1])
  inside = (np.abs(right) < half[0] + bezel) & (np.abs(down) < half[1] + 1.6 * bezel)
  layer = coat(materials.SCREEN, np.where(inside, z, np.float32(np.inf)), normal)
  rgb, where = photo.at((right - offset[0]) / scale, (down - offset[1]) / scale)
  linear = np.power(rgb, 2.2) * np.float32([0.93, 1.0, 1.10])[:, None, None] + 0.006
  strength, period_x, period_y = moire
  phase = 2 * np.pi * (right / period_x + down / period_y)
  beat = np.stack([np.sin(phase), np.sin(phase * 1.04 + 2.1), np.sin(phase * 0.97 + 4.2)])
  layer['emit'] = linear * brightness * (1 + strength * beat) * lit
  frame = coat(materials.BLACK_PLASTIC, layer['z'], normal)
  np.copyto(layer.planes, frame.planes, where=~lit)
  layer['face'] = where[2] * lit
  return layer
