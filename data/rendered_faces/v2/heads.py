"""Heads of version 2: subjects, and meshes from the basis of MakeHuman's shapes (`heads.npz`).

A mesh is a grid of points, as in `head.py`, whose camera `head.see` it uses. Axes and units are the
same: x to the viewer's right, y down, z away, mm; the pupils are about the height y = 0.
"""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import head
from flexfas_jax.data.rendered_faces.head import COLUMNS, ROWS, Identity, Mesh, ramp

ACTIONS = ('jaw_open', 'smile', 'brow_raise', 'brow_lower', 'pucker', 'cheek_puff')
STILL = np.zeros(len(ACTIONS))
NO_TRAITS = (0.0,) * 20  # the painter's own deviations; here the mesh carries them


class Population(NamedTuple):
  """Distributions of the subjects of a domain; they represent no real population."""

  tone: tuple[float, float]  # range of skin tone, 0 fair .. 1 dark
  age: tuple[float, float]  # range, 0 young .. 1 old
  shift: int  # seed of a direction of shape in which the population deviates
  glasses: float  # share of subjects
  headwear: float  # share of recordings
  beard: float  # share of bearded among the male
  daily_makeup: float  # share of recordings of the female


@dataclasses.dataclass(frozen=True)
class Subject(Identity):
  """An identity with a shape in the basis of MakeHuman, and details of the skin."""

  coefficients: tuple[float, ...] = ()
  male: bool = False
  freckles: float = 0.0
  oil: float = 0.5  # gloss of the skin, 0..1
  ir_factor: float = 1.0  # skin's reflectance at 850 nm relative to the mean of its tone
  headwear: str = ''  # beanie, scarf or cap; replaces the hair's colour
  makeup: float = 0.0  # strength of everyday make-up


class Shape(NamedTuple):
  """What is made after a head's shape."""

  blur: float = 0.0  # details below this many mm are lost in moulding
  relief: float = 1.0  # share of the relief (against its smooth envelope) that remains
  hair: bool = False
  facets: int = 0  # folded from a sheet: number of facets across, 0 for none
  rest: bool = False  # texture planes 0 and 1 are the resting x and y [mm], not noise


LIVING = Shape(hair=True)
_HAIR = (  # visible colour (linear), reflectance at 850 nm, where melanin absorbs less
  ((0.012, 0.010, 0.009), 0.16),
  ((0.03, 0.018, 0.011), 0.22),
  ((0.07, 0.036, 0.018), 0.30),
  ((0.22, 0.13, 0.06), 0.42),
  ((0.26, 0.25, 0.24), 0.45),
)
_IRIS = ((0.05, 0.022, 0.010), (0.09, 0.05, 0.02), (0.08, 0.10, 0.05), (0.09, 0.15, 0.22))


@functools.lru_cache(maxsize=16)
def draw_subject(seed: tuple[int, ...], population: Population) -> Subject:
  """Draws a subject.

  Args:
    seed: of the subject.
    population: of its domain.
  """
  rng = np.random.default_rng(np.random.SeedSequence((201, *seed)))
  macro = _basis()['macro']
  male, age = rng.random() < 0.5, float(rng.uniform(*population.age))
  shift = np.random.default_rng((202, population.shift)).normal(size=macro.shape[1])
  coefficients = 0.85 * rng.normal(size=macro.shape[1]) + 0.35 * shift
  coefficients += (2 * male - 1) * 0.8 * macro[0] + (2 * age - 1) * 0.8 * macro[1]
  coefficients += rng.normal(0, 0.5) * macro[2]
  tone = float(rng.uniform(*population.tone))
  weights = np.array([0.85, 0.1, 0.02, 0, 0.03] if tone > 0.55 else [0.25, 0.3, 0.25, 0.15, 0.05])
  weights[4] += max(age - 0.5, 0)  # grey
  hair_rgb, hair_ir = _HAIR[rng.choice(len(_HAIR), p=weights / weights.sum())]
  styles = ('short', 'long', 'bald', 'fringe', 'receding')
  style = rng.choice(
    styles, p=(0.6, 0.06, 0.1, 0.11, 0.13) if male else (0.15, 0.55, 0.02, 0.28, 0)
  )
  iris = _IRIS[rng.choice(4, p=(0.85, 0.15, 0, 0) if tone > 0.45 else (0.3, 0.25, 0.2, 0.25))]
  cloth = rng.uniform(0.02, 0.6) * rng.uniform(0.4, 1, 3)
  bearded = male and rng.random() < population.beard
  return Subject(
    shape=NO_TRAITS,
    tone=tone,
    redness=float(rng.uniform(0.2, 1)),
    age=age,
    hair=str(style),
    hair_rgb=hair_rgb,
    hair_ir=hair_ir * float(rng.uniform(0.85, 1.15)),
    beard=float(rng.choice([rng.uniform(0.15, 0.6), 1])) if bearded else 0.0,
    brow=float(rng.uniform(0.65, 1.1) if male else rng.uniform(0.45, 0.8)),
    iris_rgb=iris,
    glasses=bool(rng.random() < population.glasses),
    cloth_rgb=tuple(map(float, cloth)),
    cloth_ir=float(rng.uniform(0.15, 0.7)),  # dyes mostly do not absorb at 850 nm
    seed=tuple(seed),
    coefficients=tuple(map(float, np.clip(coefficients, -2.6, 2.6))),
    male=male,
    freckles=float(max(rng.normal(0, 0.5), 0) * (1 - tone)),
    oil=float(rng.random()),
    ir_factor=float(np.exp(rng.normal(0, 0.07))),
  )


@functools.cache
def _basis() -> dict[str, np.ndarray]:
  with np.load(pathlib.Path(__file__).with_name('heads.npz'), allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  for name in ('basis', 'actions'):
    scale = arrays.pop(f'{name}_scale').reshape(-1, 1, 1, 1)
    arrays[name] = arrays[name].astype(np.float32) * scale
  for name in ('mean', 'centre', 'canonical'):
    arrays[name] = arrays[name].astype(np.float32) / 50
  arrays['masks'] = arrays['masks'].astype(np.float32) / 255
  return arrays


def _whole(half):
  """A field [R/2, C/2, 3] on every second point of the grid, on all of its points."""
  step = np.float32([[0.5, 0, 0], [0, 0.5, 0]])
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  return cv2.warpAffine(half, step, (COLUMNS, ROWS), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def mesh(subject: Subject, shape: Shape = LIVING) -> Mesh:
  """The head of a subject at rest, or a copy of it in another material."""
  # What changes from recording to recording shapes nothing but the hair.
  headwear = subject.headwear if shape.hair else ''
  same = dataclasses.replace(
    subject, headwear=headwear, makeup=0.0, cloth_rgb=(0.0, 0.0, 0.0), cloth_ir=0.0
  )
  return _mesh(same, shape)


@functools.lru_cache(maxsize=16)
def _mesh(subject, shape):
  basis = _basis()
  rest, phi = _at_rest(subject.coefficients)
  points = rest
  if shape.blur:
    points = cv2.GaussianBlur(points, (0, 0), shape.blur / 1.5)
  if shape.relief != 1:
    smooth = _blur_widely(points, 14)
    points = smooth + shape.relief * (points - smooth)
  if shape.facets:
    small = cv2.resize(points, (shape.facets, shape.facets + 1), interpolation=cv2.INTER_AREA)
    points = cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_LINEAR)
  x, y = basis['canonical'][..., 0], basis['canonical'][..., 1]
  radius = np.hypot(points[..., 0], points[..., 2])
  deep = radius - _blur_widely(radius, 7)
  opening = np.clip(1 + 0.06 * np.minimum(deep, 0) + 0.015 * np.maximum(deep, 0), 0.4, 1.1)

  texture = _textures(subject.seed).copy()
  hair = np.zeros_like(x)
  if shape.hair:
    hair, out = _hair(subject, x, y, phi, texture)
    from_middle = points - np.float32((0, -20, 0))
    length = np.sqrt(np.einsum('rck,rck->rc', from_middle, from_middle))
    points = points * (1 + out / length)[..., None]
  texture[..., 3] = hair
  if shape.rest:
    texture[..., :2] = rest[..., :2]

  points = np.ascontiguousarray(points.transpose(2, 0, 1), np.float32)
  canonical = np.stack([x, y, phi, opening], -1).astype(np.float32)
  still = np.zeros((0, 6, ROWS, COLUMNS), np.float32)
  return Mesh(np.concatenate([points, head.normals(points)]), still, canonical, texture)


def moved(still: Mesh, expression: np.ndarray, blur: float = 0.0) -> Mesh:
  """A mesh with an expression.

  Args:
    still: the mesh at rest.
    expression: [E] weights of `ACTIONS`.
    blur: of the movement, mm: a mask smooths it.
  """
  used = np.flatnonzero(expression)
  if not len(used):
    return still
  move = np.einsum('e,ercd->rcd', np.float32(expression[used]), _basis()['actions'][used])
  if blur:
    move = cv2.GaussianBlur(move, (0, 0), blur)
  points = still.points[:3] + _whole(move).transpose(2, 0, 1)
  return dataclasses.replace(still, points=np.concatenate([points, head.normals(points)]))


def _hair(subject, x, y, phi, texture):
  """Where hair or headwear is, 0..1, and how far it stands out, mm."""
  if subject.headwear:
    a = np.abs(np.rad2deg(phi))
    line = {'beanie': -50.0, 'cap': -62.0, 'scarf': -60.0}[subject.headwear]
    edge = np.interp(a, [0, 40, 70, 90, 180], [line, line + 4, line + 16, line + 30, line + 40])
    cover = ramp(y - edge, 2, -2).astype(np.float32)
    if subject.headwear == 'scarf':
      cover = np.maximum(cover, ramp(a, 60, 66))
      cover = np.maximum(cover, ramp(y, 108, 114)).astype(np.float32)
    return cover, cv2.blur(cover, (5, 5)) * (5 + 1.5 * texture[..., 0])
  above = y - head.hairline(subject, phi, texture[..., 0])
  volume = {'short': 8, 'long': 11, 'bald': 0, 'fringe': 10, 'receding': 6}[subject.hair]
  # Hair rises from its line over some millimetres; a step would be torn by the grid.
  out = ramp(above, 2, -16) * (volume + 1.6 * texture[..., 0]) * ramp(y, 118, -60)
  return ramp(above, 3, -3), out


@functools.lru_cache(maxsize=4)
def _at_rest(coefficients):
  """Points of a bare head, [R, C, 3] mm, and their angle round it, [R, C] rad."""
  basis = _basis()
  half = basis['centre'] + np.einsum('k,krcd->rcd', np.float32(coefficients), basis['basis'])
  points = basis['mean'] + _whole(half)
  points = cv2.GaussianBlur(points, (0, 0), 0.7)  # rounds the facets of the base mesh
  return points, np.arctan2(points[..., 0], -points[..., 2])


def _blur_widely(field, sigma):
  """A Gaussian blur on the grid by way of every second point: within 0.2 mm, six times as fast."""
  small = cv2.resize(field, (COLUMNS // 2, ROWS // 2), interpolation=cv2.INTER_AREA)
  return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 2), (COLUMNS, ROWS))


@functools.lru_cache(maxsize=4)
def _textures(seed):
  rng = np.random.default_rng(np.random.SeedSequence((203, *seed)))
  noise = rng.standard_normal((3, ROWS, COLUMNS), dtype=np.float32)
  coarse = cv2.GaussianBlur(noise[0], (0, 0), 7)
  strands = cv2.GaussianBlur(noise[2], (0, 0), sigmaX=0.7, sigmaY=5)
  planes = [coarse / coarse.std(), noise[1], strands / strands.std(), np.zeros_like(coarse)]
  return np.stack(planes, -1)  # [R, C, 4]


@functools.lru_cache(maxsize=8)
def places(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
  """Of the eyes [2, 3] (viewer's left first) and of the tip of the nose [3], mm, at rest."""
  points = mesh(subject, Shape()).points[:3]
  eye = _basis()['masks'][0] > 0.5
  sides = [points[:, eye & (points[0] * side > 0)].mean(1) for side in (-1, 1)]
  x, y = _basis()['canonical'][..., 0], _basis()['canonical'][..., 1]
  tip = np.argmin(np.hypot(x, y - 46))
  return np.stack(sides), points.reshape(3, -1)[:, tip]
