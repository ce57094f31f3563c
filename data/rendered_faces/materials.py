"""What surfaces are made of, in visible light and at 850 nm, and how a face is painted.

A `Layer` is one surface as a camera sees it: per pixel its distance, normal and reflectance.
Surfaces in front of each other are merged by `nearest`; light falls on the result (lighting.py).

Near infrared is not grey RGB: skin is bright and nearly independent of its tone, dyes of cloth and
of inkjet ink are transparent (only carbon stays black), melanin of hair absorbs less, the iris is
lighter, lips and blushes vanish, a liquid crystal screen is dark glass.
"""

import dataclasses

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces.head import MOUTH_Y, Identity, Seen, eye_centre, ramp, traits

# Planes of a layer, in this order.
PLANES = {
  'z': slice(0, 1),  # mm, inf where the layer is absent
  'normal': slice(1, 4),  # unit, camera axes
  'albedo': slice(4, 7),  # linear reflectance, RGB
  'ir': slice(7, 8),  # reflectance at 850 nm
  'gloss': slice(8, 9),  # specular reflectance
  'sharpness': slice(9, 10),  # exponent of the highlight
  'scatter': slice(10, 11),  # light that wraps round through the material (skin, silicone)
  'emit': slice(11, 14),  # light given off, RGB; the scene's white is 1
  'lost': slice(14, 15),  # probability that a depth sensor measures nothing here
  'face': slice(15, 16),  # part of the face that is presented (live, or shown by the attack)
}


@dataclasses.dataclass(frozen=True)
class Material:
  """Reflectance of a plain surface; `rgb` and `ir` are diffuse, see `PLANES` for the others."""

  rgb: tuple[float, float, float]
  ir: float
  gloss: float = 0.0
  sharpness: float = 12.0
  scatter: float = 0.0
  lost: float = 0.0


PAPER = Material((0.84, 0.84, 0.82), 0.80, 0.02, 8.0)
GLOSSY_PAPER = Material((0.86, 0.86, 0.86), 0.80, 0.22, 60.0)
SCREEN = Material((0.012, 0.012, 0.014), 0.035, 0.045, 6000.0, lost=0.42)
BLACK_PLASTIC = Material((0.03, 0.03, 0.032), 0.09, 0.10, 40.0, lost=0.06)
RESIN = Material((0.60, 0.46, 0.38), 0.66, 0.16, 28.0, 0.15)
PLASTIC = Material((0.66, 0.50, 0.42), 0.76, 0.30, 70.0)
SILICONE = Material((0.52, 0.35, 0.27), 0.37, 0.10, 16.0, 0.9)
LATEX = Material((0.50, 0.34, 0.25), 0.56, 0.05, 9.0, 0.5)
MANNEQUIN = Material((0.68, 0.55, 0.46), 0.62, 0.14, 26.0)


WHOLE = np.s_[:, :]


class Layer:
  """Planes of one surface: `layer['albedo']` is a view [3, h, w], or [h, w] for single planes.

  They cover `window`, rows and columns of the image, and all of the surface lies there.
  """

  def __init__(self, planes: np.ndarray, window: tuple[slice, slice] = WHOLE):
    self.planes = planes  # [16, h, w] float32
    self.window = window

  def __getitem__(self, name: str) -> np.ndarray:
    view = self.planes[PLANES[name]]
    return view if len(view) > 1 else view[0]

  def __setitem__(self, name: str, value) -> None:
    self[name][...] = value


def coat(
  material: Material, z: np.ndarray, normal: np.ndarray, window: tuple[slice, slice] = WHOLE
) -> Layer:
  """A surface of one material: z [h, w] mm (inf where absent), normal [3, h, w]."""
  layer = Layer(np.empty((16, *z.shape), np.float32), window)
  layer['z'], layer['normal'] = z, normal
  layer['albedo'] = np.float32(material.rgb)[:, None, None]
  for name in ('ir', 'gloss', 'sharpness', 'scatter', 'lost'):
    layer[name] = getattr(material, name)
  layer['emit'] = layer['face'] = 0
  return layer


def nearest(layers: list[Layer], size: int) -> Layer:
  """What is seen, in an image of `size` pixels a side, where surfaces lie behind each other."""
  seen = Layer(np.zeros((16, size, size), np.float32))
  seen['z'] = np.inf
  for layer in layers:
    under = seen.planes[:, *layer.window]
    np.copyto(under, layer.planes, where=layer['z'] < under[0])
  return seen


def over(front: Layer, behind: list[Layer], size: int) -> Layer:
  """As `nearest`, but nothing comes through the front: it bends, or presses what is behind it."""
  seen = nearest(behind, size)
  np.copyto(seen.planes[:, *front.window], front.planes, where=np.isfinite(front['z']))
  return seen


def mix(a, b, weight):
  """a where weight [H, W] is 0, b where it is 1; a and b [H, W], [3, H, W] or a colour (3,)."""
  if isinstance(b, tuple):
    b = np.float32(b)[:, None, None]
  return a + (b - a) * weight


def skin(identity: Identity) -> tuple[np.ndarray, float]:
  """Reflectance of the skin of an identity: RGB [3] (linear) and at 850 nm.

  Between a fair and a dark measured skin, interpolated in absorbance, as pigment adds up.
  """
  fair, dark = np.array([0.64, 0.43, 0.33]), np.array([0.125, 0.066, 0.042])
  rgb = np.exp(np.log(fair) * (1 - identity.tone) + np.log(dark) * identity.tone)
  return rgb.astype(np.float32), 0.56 - 0.13 * identity.tone


@dataclasses.dataclass(frozen=True)
class Features:
  """Where on a face what is painted, each [H, W] in 0..1, in what the camera sees of a head."""

  eye: np.ndarray  # between the lids
  iris: np.ndarray
  pupil: np.ndarray
  lash: np.ndarray
  shade: np.ndarray  # of the lids: crease, and shadow on the eye
  brow: np.ndarray
  lip: np.ndarray
  gape: np.ndarray  # inside of the mouth
  nostril: np.ndarray
  beard: np.ndarray
  blush: np.ndarray
  face: np.ndarray  # from the hair line to the chin, to before the ears
  bulge: tuple[np.ndarray, np.ndarray]  # slope of the eyeball to the right and down


def features(
  identity: Identity,
  seen: Seen,
  gaze: tuple[float, float] = (0, 0),
  lids: float = 1,
  jaw: float = 0,
) -> Features:
  """Finds the parts of a face.

  Args:
    who: whose face.
    seen: what the camera sees of the head, [h, w].
    gaze: of both eyes, mm to the right and down on the eyeball.
    lids: 1 open, 0 shut.
    jaw: 0 shut, 1 wide open.
  """
  x, y, phi, _ = seen.canonical
  coarse, fine, strands, _ = seen.texture
  s = traits(identity)
  ax = np.abs(x)
  zero = np.zeros_like(x)
  eye, iris, pupil, lash, shade, brow, bulge_x, bulge_y = (zero.copy() for _ in range(8))
  soft = 0.9  # mm: half the width of an edge, about a pixel
  for side in (-1, 1):
    ex, ey = eye_centre(identity, side)
    box = _around(x, y, phi, (ex, ey - 8), (34, 26))
    if box is None:
      continue
    u, v = side * (x[box] - ex), y[box] - ey  # u runs outwards
    wide = 14.2 + 0.5 * s['eye_size']
    arch = np.maximum(1 - np.square((u - 0.5) / wide), 0)
    near = arch > 0
    tilt = 0.3 - 0.06 * u  # outer corner a little higher
    upper = tilt - (5.6 + 0.5 * s['eye_size']) * lids * np.sqrt(arch) * (1 - 0.012 * u)
    lower = tilt + (3.9 + 0.3 * s['eye_size']) * (0.35 + 0.65 * lids) * arch
    inside = ramp(v - upper, -soft, soft) * ramp(lower - v, -soft, soft) * near
    r = np.sqrt(np.square(u - side * gaze[0]) + np.square(v - gaze[1] + 0.6))
    eye[box] += inside
    iris[box] += inside * ramp(r, 6.6, 5.4)
    pupil[box] += inside * ramp(r, 3.0, 1.7)
    line = np.exp(-np.square((v - upper + 0.4) / 1.15)) * (0.75 + 0.25 * u / wide)
    line += 0.35 * np.exp(-np.square((v - lower - 0.3) / 0.9))
    lash[box] += near * line
    crease = np.exp(-np.square((v + 9.6 - 0.016 * u * u) / 1.5) - np.square(u / 13))
    shade[box] += 0.45 * crease + 0.5 * inside * ramp(v - upper, 3.4, 0)
    bulge_x[box] += inside * side * u / 12
    bulge_y[box] += inside * v / 12
    # Brow: an arch that thins outwards.
    across = ramp(u, -16, -11) * ramp(u, 25, 15)
    middle = -17.5 - 0.10 * np.maximum(u + 10, 0) + 0.0075 * np.square(np.maximum(u - 3, 0))
    # Far out, where there is no brow, it would be 0.
    thick = np.maximum((2.5 + 2.2 * identity.brow) * (1 - 0.016 * (u + 12)), 0.1)
    brow[box] += across * ramp(np.abs(v - middle), thick, thick * 0.35)
  brow *= np.clip(0.62 * identity.brow + 0.35 + 0.16 * strands, 0, 1)

  lip, gape, nostril = (zero.copy() for _ in range(3))
  tip = 46 + 1.7 * s['nose_length']
  box = _around(x, y, phi, (0, 70), (38, 28))
  if box is not None:
    u, v = np.abs(x[box]), y[box] - MOUTH_Y
    mouth = 25.5 + 1.6 * s['mouth_width']
    full = 1 + 0.16 * s['lips']
    arch = np.sqrt(np.maximum(1 - np.square(u / mouth), 0))
    bow = 1.6 * np.exp(-np.square(u / 3.6))  # Cupid's bow
    above = v + full * 8.2 * arch * np.sqrt(np.sqrt(arch)) - bow
    below = full * 10.5 * arch - v
    lip[box] = ramp(above, -1, 1.2) * ramp(below, -1, 1.2) * (arch > 0)
    line = np.exp(-np.square(v / 1.3)) * ramp(u, mouth + 4, mouth - 3)
    inside = jaw * ramp(np.abs(v - 0.5), 2.6, 1.6) * (arch > 0.22)
    gape[box] = np.maximum(0.75 * line, inside)
    nx = (u - 7.2 - 0.5 * s['nose_width']) / (4.0 + 0.3 * s['nose_width'])
    ny = (y[box] - tip - 8.0) / 2.3
    nostril[box] = ramp(np.square(nx) + np.square(ny), 1.8, 0.4)
  beard = ramp(y + 0.22 * ax, 44, 66) * ramp(ax, 78, 60) * (1 - lip)
  beard *= 1 - np.exp(-np.square((ax - 34) / 14) - np.square((y - 44) / 16))
  beard = np.clip(beard * (1 + 0.25 * strands + 0.3 * coarse), 0, 1) * identity.beard
  blush = np.exp(-np.square((ax - 42) / 17) - np.square((y - 32) / 16))
  blush += 0.8 * np.exp(-np.square(x / 13) - np.square((y - tip) / 12))
  face = ramp(np.abs(phi), 1.35, 1.25) * ramp(y, -86, -82)
  return Features(
    eye,
    iris,
    pupil,
    np.clip(lash, 0, 1),
    shade,
    np.clip(brow, 0, 1),
    lip,
    gape,
    nostril,
    beard,
    blush,
    face,
    (bulge_x, bulge_y),
  )


def _around(x, y, phi, middle, half):
  """Rows and columns in which a part of the face lies, or None: the rest is not worked out."""
  # Every second pixel, and less than 1.5 rad round the head, will do.
  x, y, phi = x[::2, ::2], y[::2, ::2], phi[::2, ::2]
  inside = (np.abs(x - middle[0]) < half[0]) & (np.abs(y - middle[1]) < half[1])
  inside &= np.abs(phi) < 1.5
  rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
  if not len(rows):
    return None
  return np.s_[2 * rows[0] : 2 * rows[-1] + 2, 2 * columns[0] : 2 * columns[-1] + 2]


def paint(identity: Identity, seen: Seen, on: Features) -> Layer:
  """A living head: skin, eyes, brows, lips, beard, hair"""
  coarse, fine, strands, hair = seen.texture
  tone, tone_ir = skin(identity)
  layer = coat(Material(tuple(tone), tone_ir, 0.05, 14, 1.0), seen.z, seen.normal, seen.window)
  # Blood shows in green and blue, pigment in all; neither at 850 nm.
  blood = 0.30 * identity.redness * on.blush + 0.06 * coarse * identity.redness
  spots = 1 + 0.035 * coarse + 0.03 * fine
  rgb = layer['albedo'] * spots * np.exp(-blood * np.float32([0.1, 1.0, 0.8])[:, None, None])
  ir = layer['ir'] * (1 + 0.012 * coarse + 0.01 * fine)
  lip_rgb = tone * np.float32([0.78, 0.48, 0.50])
  rgb = mix(rgb, tuple(lip_rgb), 0.85 * on.lip)
  ir = mix(ir, tone_ir * 0.96, on.lip)
  rgb = rgb * (1 - 0.35 * on.shade * (1 - on.eye))
  dark = np.float32(identity.hair_rgb)[:, None, None] * np.clip(1 + 0.35 * strands, 0.3, 2)
  shave = np.clip(on.beard, 0, 1)
  rgb = mix(rgb, 0.6 * dark + 0.12 * tone[:, None, None], 0.85 * shave)
  ir = mix(ir, identity.hair_ir + 0.12, 0.6 * shave)
  rgb = mix(rgb, dark + 0.05 * tone[:, None, None], on.brow)
  ir = mix(ir, 0.4 * tone_ir + 0.6 * identity.hair_ir, 0.8 * on.brow)
  sclera = np.float32([0.54, 0.50, 0.47])[:, None, None] * (1 - 0.6 * on.shade)
  rgb = mix(rgb, sclera, on.eye)
  ir = mix(ir, 0.42 * (1 - 0.3 * on.shade), on.eye)
  rgb = mix(rgb, np.float32(identity.iris_rgb)[:, None, None] * (1 - 0.5 * on.shade), on.iris)
  ir = mix(ir, 0.24, on.iris)
  rgb = mix(rgb, 0.006, on.pupil)
  ir = mix(ir, 0.02, on.pupil)
  rgb = mix(rgb, (0.02, 0.014, 0.012), 0.85 * on.lash * (0.4 + 0.5 * identity.brow))
  ir = mix(ir, 0.18, 0.5 * on.lash)
  rgb = mix(rgb, (0.05, 0.012, 0.01), on.gape)
  ir = mix(ir, 0.12, on.gape)
  rgb = mix(rgb, (0.03, 0.012, 0.009), 0.9 * on.nostril)
  ir = mix(ir, 0.10, 0.9 * on.nostril)
  rgb, ir = (
    mix(rgb, dark, hair),
    mix(ir, identity.hair_ir * np.clip(1 + 0.2 * strands, 0.4, 2), hair),
  )
  layer['albedo'], layer['ir'] = rgb * np.clip(seen.canonical[3], 0.4, 1.1), ir
  layer['gloss'] = mix(0.05 + 0.03 * on.blush + 0.05 * on.lip, 0.25, on.eye) * (1 - 0.6 * hair)
  layer['sharpness'] = mix(14 + 0 * ir, 140, on.eye)
  layer['scatter'] = 1 - np.maximum(hair, on.eye)
  layer['lost'] = 0.02 + 0.42 * hair * (1 - 1.6 * identity.hair_ir) + 0.12 * on.pupil
  bend(layer, seen, *on.bulge)
  roughen(layer, seen, 0.05 * fine * (1 - on.eye) + 0.16 * strands * hair)
  layer['face'] = on.face * (1 - hair)
  return layer


def cast(
  identity: Identity, seen: Seen, on: Features, material: Material, colour: float, detail: float
) -> Layer:
  """A head copied from an identity: moulded or printed in one material and painted by hand.

  Args:
    who: after whom.
    seen: what the camera sees of it.
    on: where the features are.
    material: what it is made of.
    colour: 0, the material's own colour; 1, the skin tone of the identity.
    detail: how strongly brows, lips and eyes are painted on, 0..1.
  """
  coarse, _, strands, _ = seen.texture
  layer = coat(material, seen.z, seen.normal, seen.window)
  tone, _ = skin(identity)
  rgb = np.float32(material.rgb) * (1 - colour) + tone * colour
  rgb = rgb[:, None, None] * (1 + 0.02 * coarse)
  ir = layer['ir'] * (1 + 0.01 * coarse)
  # Paint is pigment: iron oxides and carbon keep a part of their contrast at 850 nm.
  rgb = mix(
    rgb, tuple(np.float32(rgb.mean((1, 2))) * np.float32([0.75, 0.42, 0.42])), detail * on.lip
  )
  ir = ir * (1 - 0.10 * detail * on.lip)
  for where, paint_rgb, paint_ir in (
    (on.brow, (0.05, 0.03, 0.02), 0.35),
    (on.eye, (0.72, 0.70, 0.68), 0.75),
    (on.iris, (0.10, 0.07, 0.05), 0.45),
    (on.pupil, (0.01, 0.01, 0.01), 0.12),
    (0.8 * on.lash, (0.03, 0.02, 0.02), 0.30),
    (on.gape, (0.10, 0.03, 0.03), 0.40),
    (on.nostril, (0.05, 0.02, 0.02), 0.15),
  ):
    rgb = mix(rgb, paint_rgb, detail * where)
    ir = mix(ir, paint_ir, detail * where)
  layer['albedo'], layer['ir'] = rgb * np.clip(seen.canonical[3], 0.5, 1.1), ir
  layer['lost'] = np.maximum(layer['lost'], 0.015)
  layer['face'] = on.face
  return layer


def bend(layer: Layer, seen: Seen, right: np.ndarray, down: np.ndarray) -> None:
  """Tilts normals by slopes given in the head's own axes (in place)."""
  normal = (
    layer['normal'] + right * seen.turn[:, 0, None, None] + down * seen.turn[:, 1, None, None]
  )
  layer['normal'] = normal / (np.sqrt(np.square(normal).sum(0)) + 1e-6)


def roughen(layer: Layer, seen: Seen, height: np.ndarray) -> None:
  """Tilts normals by a small relief that the mesh does not carry (in place)."""
  height = cv2.GaussianBlur(height, (0, 0), 0.8)
  right, down = (cv2.Sobel(height, cv2.CV_32F, *d, ksize=1, scale=0.5) for d in ((1, 0), (0, 1)))
  bend(layer, seen, right, down)


def ink(photo: np.ndarray, carbon: float) -> tuple[np.ndarray, np.ndarray]:
  """Reflectance of a printed image.

  Args:
    photo: [3, H, W] in 0..1, as encoded in the file (sRGB).
    carbon: share of the printed darkness that is carbon black; 0 for dyes, 0.6 for a laser printer.

  Returns:
    RGB reflectance [3, H, W] between the ink's and the paper's, and reflectance at 850 nm [H, W].
  """
  linear = np.power(np.clip(photo, 0, 1), 2.2)
  grey = linear.mean(0)
  linear = grey + 0.86 * (linear - grey)  # the gamut of print is smaller
  rgb = 0.035 + np.float32(PAPER.rgb)[:, None, None] * 0.93 * linear
  black = np.square(1 - np.clip(photo, 0, 1).max(0))  # printers use black for the deep shades
  ir = PAPER.ir * (1 - 0.05 * (1 - grey)) * (1 - carbon * black)
  return rgb, ir
