"""What living faces and attacks are made of, in visible light and at 850 nm.

Layers and their planes are those of `materials.py`. Reflectances at 850 nm are drawn from ranges
that overlap: pigmented silicone, painted resin and coated paper can be as bright as skin.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import materials
from flexfas_jax.data.rendered_faces.head import Seen, ramp
from flexfas_jax.data.rendered_faces.materials import Features, Layer, Material, mix
from flexfas_jax.data.rendered_faces.v2.heads import Subject


class Range(NamedTuple):
  """From which a piece of a substance is drawn; see `materials.PLANES` for the planes."""

  rgb: tuple[float, float, float]
  ir: tuple[float, float]
  gloss: tuple[float, float]
  sharpness: tuple[float, float]
  scatter: tuple[float, float]


SUBSTANCES = {
  'resin': Range((0.60, 0.46, 0.38), (0.45, 0.72), (0.04, 0.18), (12, 40), (0.0, 0.3)),
  'plaster': Range((0.68, 0.56, 0.48), (0.50, 0.78), (0.01, 0.06), (8, 14), (0.1, 0.4)),
  'plastic': Range((0.66, 0.50, 0.42), (0.50, 0.78), (0.12, 0.35), (30, 90), (0.0, 0.2)),
  'silicone': Range((0.52, 0.35, 0.27), (0.36, 0.64), (0.03, 0.12), (9, 20), (0.6, 1.0)),
  'latex': Range((0.50, 0.34, 0.25), (0.42, 0.68), (0.02, 0.08), (8, 14), (0.3, 0.7)),
  'textile': Range((0.80, 0.80, 0.78), (0.45, 0.75), (0.0, 0.02), (6, 8), (0.1, 0.3)),
  'mannequin': Range((0.68, 0.55, 0.46), (0.45, 0.75), (0.06, 0.22), (14, 40), (0.0, 0.2)),
  'paper': Range((0.84, 0.84, 0.82), (0.60, 0.85), (0.01, 0.05), (7, 12), (0.0, 0.0)),
  'photo paper': Range((0.86, 0.86, 0.86), (0.60, 0.85), (0.08, 0.22), (30, 70), (0.0, 0.0)),
}


def piece(name: str, rng: np.random.Generator) -> Material:
  """A piece of a substance."""
  drawn = SUBSTANCES[name]
  ir, gloss, sharpness, scatter = (float(rng.uniform(*range_)) for range_ in drawn[1:])
  return Material(drawn.rgb, ir, gloss, sharpness, scatter, lost=0.015)


@dataclasses.dataclass(frozen=True)
class Ink:
  """Of one printer: what it prints in colour, and what of it is seen at 850 nm.

  Dyes are transparent there. The black of toner and of pigment inks is carbon, which is not. An
  infrared ink below the colours is laid down after an infrared photo, so that the print has a face
  in both.
  """

  kind: str  # dye, carbon or infrared
  carbon: float  # share of the printed darkness that is carbon
  infrared: float  # how strong the infrared ink is
  cast: np.ndarray  # [3] colour error
  bands: float  # strength of the lines that the head leaves
  black: float  # reflectance of the deepest shade
  gamut: float  # share of the saturation that it reaches

  @staticmethod
  def draw(rng: np.random.Generator) -> 'Ink':
    kind = str(rng.choice(['dye', 'carbon', 'infrared'], p=[0.35, 0.3, 0.35]))
    return Ink(
      kind,
      float(rng.uniform(0.3, 0.75)) if kind == 'carbon' else 0.03,
      float(rng.uniform(0.6, 1.0)) if kind == 'infrared' else 0.0,
      np.exp(rng.normal(0, 0.06, 3)).astype(np.float32),
      float(rng.uniform(0, 0.02)),
      float(rng.uniform(0.012, 0.045)),
      float(rng.uniform(0.78, 1.0)),
    )

  def on(self, paper: Material, rgb: np.ndarray, infra: np.ndarray):
    """Reflectance of a print: RGB [3, H, W], and at 850 nm [H, W].

    Args:
      paper: what is printed on.
      rgb: [3, H, W], the image as encoded in the file (sRGB).
      infra: [H, W], an infrared photo of the same, reflectance of skin at 0.5 (linear).
    """
    encoded = np.clip(rgb, 0, 1)
    linear = np.power(encoded, 2.2)
    grey = linear.mean(0)
    linear = grey + self.gamut * (linear - grey)
    colour = self.black + np.float32(paper.rgb)[:, None, None] * 0.95 * np.maximum(linear, 0)
    dark = np.square(1 - encoded.max(0))  # printers use black for the deep shades
    ir = paper.ir * (1 - 0.05 * (1 - grey)) * (1 - self.carbon * dark)
    wanted = np.clip(infra / max(paper.ir, 0.1), 0.12, 1)
    ir = ir * (1 - self.infrared * (1 - wanted))
    return colour * self.cast[:, None, None], ir


def living(subject: Subject, seen: Seen, on: Features, jaw: float) -> Layer:
  """A living head: skin with its marks, eyes, teeth, hair or headwear, everyday make-up.

  Args:
    subject: whose.
    seen: what the camera sees of the head.
    on: where its features are.
    jaw: 0 shut, 1 wide open.
  """
  layer = materials.paint(subject, seen, on)
  coarse, fine, strands, hair = seen.texture
  x, y, _, _ = seen.canonical
  bare = (1 - hair) * (1 - on.eye)
  layer['ir'] *= mix(1.0, subject.ir_factor, bare)
  marks = np.clip(fine - 1.6, 0, 1.5) * subject.freckles * ramp(np.abs(x), 62, 40) * bare
  layer['albedo'] *= np.exp(-0.45 * marks * np.float32([0.6, 1.0, 1.2])[:, None, None])
  layer['gloss'] += (0.06 * subject.oil - 0.02) * bare * (1 + 0.3 * coarse)
  wrinkles = _wrinkles(subject.age, x, y)
  materials.roughen(layer, seen, (-0.2 * wrinkles + 0.03 * fine) * bare)
  layer['albedo'] *= 1 - 0.10 * wrinkles * bare
  teeth = jaw * on.gape * ramp(y, 77.0, 74.5) * ramp(np.abs(x), 19, 14) * (np.abs(y - 74) < 4)
  layer['albedo'] = mix(layer['albedo'], (0.55, 0.52, 0.43), np.clip(1.6 * teeth, 0, 1))
  layer['ir'] = mix(layer['ir'], 0.5, np.clip(1.6 * teeth, 0, 1))
  if subject.headwear:  # cloth: no strands
    cloth = np.float32(subject.cloth_rgb)[:, None, None] * (1 + 0.12 * strands)
    layer['albedo'] = mix(layer['albedo'], cloth, hair)
    layer['ir'] = mix(layer['ir'], subject.cloth_ir * (1 + 0.08 * strands), hair)
    layer['lost'] = mix(layer['lost'], 0.02, hair)
  if subject.makeup:
    make_up(layer, subject, on, seen, subject.makeup, 0.3 * subject.makeup, 0.0)
  return layer


def _wrinkles(age, x, y):
  """Lines of forehead, eyes and mouth, 0..1."""
  forehead = np.square(np.cos(y * 0.36 + 0.02 * np.abs(x))) ** 6 * ramp(y, -22, -32)
  forehead = forehead * ramp(np.abs(x), 42, 30) * ramp(y, -66, -58)
  crow = np.square(np.cos((y + 0.6 * np.abs(x)) * 0.5)) ** 4
  crow = crow * ramp(np.abs(x), 46, 50) * ramp(np.abs(x), 62, 56) * ramp(np.abs(y), 14, 9)
  fold = np.exp(-np.square((np.abs(x) - 19 - 0.42 * (y - 48)) / 2.2)) * ramp(y, 44, 52)
  fold = fold * ramp(y, 90, 76)
  return (forehead + crow) * max(age - 0.35, 0) * 1.2 + fold * (0.15 + 0.7 * age)


def make_up(
  layer: Layer, subject: Subject, on: Features, seen: Seen, colour: float, cover: float,
  contour: float,
) -> None:  # fmt: skip
  """Puts make-up on a living face (in place).

  Lipstick and eye shadow are dyes, transparent at 850 nm; mascara and liner are carbon. Foundation
  and contour are iron oxides and titania: they level the skin and keep a third of their contrast.

  Args:
    layer: the face.
    subject: whose.
    on: its features.
    seen: what the camera sees of it.
    colour: strength of lipstick, eye shadow and liner.
    cover: of foundation over spots, blushes and stubble.
    contour: depth of painted shades that feign another relief; negative feigns age.
  """
  x, y, _, _ = seen.canonical
  rng = np.random.default_rng(np.random.SeedSequence((204, *subject.seed)))
  tone, tone_ir = materials.skin(subject)
  skin = on.face * (1 - seen.texture[3]) * (1 - on.eye) * (1 - on.lip) * (1 - on.brow)
  even = tuple((tone * rng.uniform(0.85, 1.2)).tolist())
  layer['albedo'] = mix(layer['albedo'], even, 0.85 * cover * skin)
  layer['ir'] = mix(layer['ir'], 0.5 * tone_ir + 0.31, 0.5 * cover * skin)
  layer['gloss'] *= 1 - 0.5 * cover * skin
  lips = tuple((np.array([0.32, 0.05, 0.06]) * rng.uniform(0.5, 1.5, 3)).tolist())
  layer['albedo'] = mix(layer['albedo'], lips, 0.8 * colour * on.lip)
  lid = np.exp(-np.square((np.abs(x) - 31.5) / 15)) * ramp(y, -16, -11) * ramp(y, 0, -5)
  shadow = tuple(rng.uniform(0.04, 0.3, 3).tolist())
  layer['albedo'] = mix(layer['albedo'], shadow, 0.6 * colour * lid * (1 - on.eye))
  layer['albedo'] = mix(layer['albedo'], (0.015, 0.014, 0.014), 0.7 * colour * on.lash)
  layer['ir'] = mix(layer['ir'], 0.08, 0.5 * colour * on.lash)
  if contour:
    cheek = np.exp(-np.square((np.abs(x) - 45 + 0.25 * (y - 60)) / 9)) * ramp(y, 22, 40)
    cheek = cheek * ramp(y, 86, 70)
    nose = np.exp(-np.square((np.abs(x) - 10) / 4)) * ramp(y, -6, 4) * ramp(y, 52, 40)
    temple = ramp(np.abs(x), 48, 62) * ramp(y, -10, -30)
    shade = cheek + 0.8 * nose + 0.8 * temple
    if contour < 0:
      shade = 1.3 * _wrinkles(1.0, x, y) + 0.5 * cheek
    shade = np.clip(shade, 0, 1.2) * abs(contour) * skin
    layer['albedo'] *= np.exp(-shade * np.float32([0.7, 1.0, 1.05])[:, None, None])
    layer['ir'] *= np.exp(-0.33 * shade)


def painted(
  model: Subject, seen: Seen, on: Features, material: Material, craft: float,
  rng: np.random.Generator,
) -> Layer:  # fmt: skip
  """A copy of a head, painted by hand.

  Args:
    model: after whom.
    seen: what the camera sees of it.
    on: where its features are.
    material: what it is made of.
    craft: 0, plain paint; 1, layer over layer, with hair that was punched in.
    rng: of colours.
  """
  plain = materials.cast(
    model, seen, on, material, float(rng.uniform(0.6, 1.0)), float(rng.uniform(0.6, 1.0))
  )
  alive = materials.paint(model, seen, on)
  colour = np.exp(rng.normal(0, 0.10) * np.float32([-0.3, 0.6, 1.0]))[:, None, None]
  plain['albedo'] = mix(plain['albedo'], alive['albedo'] * colour, craft)
  # Punched hair is hair; the rest is pigment, which keeps a part of its contrast at 850 nm.
  dark = 1 - np.clip(plain['albedo'].mean(0) / max(float(np.median(plain['albedo'])), 1e-3), 0, 1)
  pigment = material.ir * (1 - 0.45 * float(rng.uniform(0.3, 1)) * dark)
  hair = np.clip(on.brow + on.beard, 0, 1) * craft
  plain['ir'] = mix(mix(plain['ir'], pigment, 0.6), 0.3 * material.ir + 0.7 * model.hair_ir, hair)
  plain['gloss'] = mix(plain['gloss'], 0.3, on.eye)  # varnish or glass
  plain['sharpness'] = mix(plain['sharpness'], 120.0, on.eye)
  return plain


def printed_on(
  material: Material, ink: Ink, rgb: np.ndarray, infra: np.ndarray, layer: Layer, lines: np.ndarray
) -> None:
  """Prints on a layer (in place); `lines` [H, W] is where the head's lines run, rad."""
  layer['albedo'], layer['ir'] = ink.on(material, rgb, infra)
  layer['albedo'] *= 1 + ink.bands * np.sin(lines)


def weave(layer: Layer, seen: Seen, strength: float) -> None:
  """The relief of a knitted cloth (in place)."""
  x, y = seen.texture[:2]
  thread = strength * np.sin(x * 1.1 + 0.4 * np.sin(y * 0.7)) * np.sin(y * 1.3)
  materials.roughen(layer, seen, cv2.GaussianBlur(np.float32(thread), (0, 0), 0.5))
