"""Heads: identities, the shape of the head, and how a camera sees it.

A head is a height field over a skull: at each height `y` and angle `phi` about the vertical axis,
the skull's surface is moved out by relief (brow, sockets, nose, lips, chin, cheeks, hair). Relief
and paint are written once, in canonical face coordinates in which every face has its eyes at the
same height; an identity is a set of deviations and a warp from canonical to own millimetres.

Axes of head and camera alike: x to the viewer's right, y down, z away from the viewer; millimetres.
The head's origin is on its vertical axis at the height of the eyes.
"""

import dataclasses
import functools

import cv2
import numpy as np

ROWS, COLUMNS = 168, 176  # about 1.9 mm between neighbours at the front
_SIDE = np.deg2rad(122)  # how far the mesh reaches round the head

# The skull in canonical coordinates: height y, half width, front of the profile, centre of depth.
_SKULL = np.array(
  [
    # y, width, front, centre [mm]
    (-120, 0, 8, 8),
    (-117, 24, -18, 8),
    (-110, 42, -42, 6),
    (-97, 58, -64, 4),
    (-80, 69, -80, 2),
    (-60, 75, -89, 0),
    (-38, 77, -94, 0),
    (-18, 76.5, -94, 0),
    (2, 74, -90, 0),
    (22, 71.5, -88, 0),
    (42, 68, -88, -2),
    (60, 64, -88, -6),
    (76, 58.5, -87, -10),
    (90, 51, -85.5, -16),
    (102, 42, -83, -24),
    (110, 33, -78, -30),
    (115, 23, -70, -36),
    (118, 0, -50, -50),
  ],
  np.float32,
)
EYE_X, MOUTH_Y = 31.5, 74.0  # canonical places of the pupils and of the line between the lips

_FAR = np.iinfo(np.int64).max  # no point seen here
EXPRESSIONS = ('jaw_open', 'smile', 'brow_raise', 'lip_press')


@dataclasses.dataclass(frozen=True)
class Identity:
  """Deviations of one identity from the mean, as standard normals, and colours."""

  shape: tuple[float, ...]  # see `_SHAPE`
  tone: float  # 0 fair .. 1 dark
  redness: float
  age: float  # 0 young .. 1 old
  hair: str  # short, long, bald, fringe, receding
  hair_rgb: tuple[float, float, float]  # linear reflectance
  hair_ir: float
  beard: float  # 0 none .. 1 full
  brow: float  # thickness and density of the brows
  iris_rgb: tuple[float, float, float]
  glasses: bool
  cloth_rgb: tuple[float, float, float]
  cloth_ir: float
  seed: tuple[int, ...]


_SHAPE = (
  'width',
  'length',
  'jaw',
  'brow',
  'socket',
  'eye_gap',
  'eye_size',
  'nose_length',
  'nose_width',
  'nose_height',
  'bridge',
  'lips',
  'mouth_width',
  'chin',
  'cheek',
  'forehead',
  'depth',
  'lean',  # asymmetry: nose and mouth off the middle
  'slant',  # asymmetry: one eye higher
  'muzzle',
)
_HAIR = (  # visible colour (linear), reflectance in infrared: melanin fades towards 850 nm
  ((0.012, 0.010, 0.009), 0.16),
  ((0.03, 0.018, 0.011), 0.22),
  ((0.07, 0.036, 0.018), 0.30),
  ((0.22, 0.13, 0.06), 0.42),
  ((0.26, 0.25, 0.24), 0.45),
)
_IRIS = ((0.05, 0.022, 0.010), (0.09, 0.05, 0.02), (0.08, 0.10, 0.05), (0.09, 0.15, 0.22))
# Groups differ in the distributions of identities; they represent no real population.
_GROUPS = {
  '': {'tone': (0.05, 0.95), 'shift': {}, 'hair': (0.3, 0.3, 0.2, 0.12, 0.08)},
  'group_a': {
    'tone': (0.65, 1.0),
    'shift': {'nose_width': 1.0, 'lips': 1.0},
    'hair': (0.9, 0.05, 0, 0, 0.05),
  },
  'group_b': {
    'tone': (0.2, 0.55),
    'shift': {'bridge': -1.0, 'cheek': 0.8},
    'hair': (0.75, 0.2, 0, 0, 0.05),
  },
  'group_c': {
    'tone': (0.0, 0.35),
    'shift': {'nose_height': 0.8, 'brow': 0.4},
    'hair': (0.1, 0.3, 0.3, 0.2, 0.1),
  },
}


def draw_identity(seed: tuple[int, ...], group: str = '') -> Identity:
  """Draws an identity.

  Args:
    seed: of the identity.
    group: '' or one of the groups of `cefa_like`.
  """
  rng = np.random.default_rng(np.random.SeedSequence((101, *seed)))
  drawn = _GROUPS[group]
  shape = np.clip(rng.normal(size=len(_SHAPE)), -2.2, 2.2)
  for name, shift in drawn['shift'].items():
    shape[_SHAPE.index(name)] += shift
  tone = rng.uniform(*drawn['tone'])
  colours = np.array(drawn['hair'])
  if not group and tone > 0.6:  # fair hair on dark skin is rare
    colours = np.array([0.85, 0.1, 0, 0, 0.05])
  hair_rgb, hair_ir = _HAIR[rng.choice(len(_HAIR), p=colours / colours.sum())]
  female = rng.random() < 0.5
  styles = ('short', 'long', 'bald', 'fringe', 'receding')
  style = rng.choice(styles, p=(0.15, 0.6, 0, 0.25, 0) if female else (0.55, 0.06, 0.1, 0.11, 0.18))
  iris = _IRIS[rng.choice(4, p=(0.85, 0.15, 0, 0) if tone > 0.45 else (0.3, 0.25, 0.2, 0.25))]
  cloth = rng.uniform(0.02, 0.6) * rng.uniform(0.4, 1, 3)
  return Identity(
    shape=tuple(map(float, shape)),  # Python's: NumPy's would turn float32 into float64
    tone=float(tone),
    redness=rng.uniform(0.2, 1),
    age=rng.beta(1.6, 2),
    hair=str(style),
    hair_rgb=hair_rgb,
    hair_ir=hair_ir * rng.uniform(0.85, 1.15),
    beard=0.0 if female else float(rng.choice([0, rng.uniform(0.1, 0.5), 1], p=[0.4, 0.4, 0.2])),
    brow=rng.uniform(0.45, 0.8) if female else rng.uniform(0.65, 1.1),
    iris_rgb=iris,
    glasses=rng.random() < 0.22,
    cloth_rgb=tuple(map(float, cloth)),
    cloth_ir=rng.uniform(0.15, 0.7),  # dyes mostly do not absorb at 850 nm
    seed=tuple(seed),
  )


def _bump(d, width):
  return np.exp(-np.square(d / width))


def ramp(x, low, high):
  """Smooth step from 0 at `low` to 1 at `high` (which may be the smaller)."""
  t = np.clip((x - low) / (high - low), 0, 1)
  return t * t * (3 - 2 * t)


def traits(identity: Identity) -> dict[str, float]:
  """The deviations in the shape of an identity, by name, as standard normals."""
  return dict(zip(_SHAPE, identity.shape, strict=True))


def _interp(x, at, values):
  return np.interp(x, at, values).astype(np.float32)


def eye_centre(identity: Identity, side: int) -> tuple[float, float]:
  """Canonical (x, y) of a pupil looking straight on, mm; side -1 is the viewer's left."""
  s = traits(identity)
  return side * (EYE_X + 1.4 * s['eye_gap']), 0.8 * side * s['slant']


def hairline(identity: Identity, phi: np.ndarray, noise: np.ndarray | float = 0) -> np.ndarray:
  """Height (canonical y, mm) above which hair grows, by angle [rad] round the head."""
  a = np.abs(np.rad2deg(phi))
  top = {'short': -74, 'long': -72, 'bald': -400, 'fringe': -44, 'receding': -88}[identity.hair]
  if identity.hair == 'bald':
    return np.full_like(phi, -400)
  temple = {'receding': -58}.get(identity.hair, -42)
  return (
    _interp(
      a,
      [0, 28, 44, 58, 68, 80, 90, 100, 180],
      [top, top + 1, top + 7, temple, -12, 12, 22, 70, 95],
    )
    + 4.5 * noise
  )


@dataclasses.dataclass(frozen=True)
class Mesh:
  """A head at rest, in its own coordinates."""

  points: np.ndarray  # [6, R, C] float32: place [mm], normal (not quite unit)
  moves: np.ndarray  # [E, 6, R, C] what each expression at 1 adds to them
  canonical: np.ndarray  # [R, C, 4] float32: canonical x, y [mm], phi [rad], openness of crevices
  texture: np.ndarray  # [R, C, 4] float32: coarse noise, fine noise, strands, hair in 0..1


def _relief(identity: Identity, x, y):
  """How far the face stands out of the skull, mm towards the viewer, at canonical x, y."""
  s = traits(identity)
  x = x - 0.9 * s['lean'] * ramp(y, 5, 50)
  ax = np.abs(x)
  dz = (3.6 + 1.2 * s['brow']) * _bump(y + 19, 8) * _bump(ax - 27, 21)
  dz += 1.8 * s['forehead'] * _bump(y + 62, 22) * _bump(x, 50)
  for side in (-1, 1):
    u, v = x - eye_centre(identity, side)[0], y - eye_centre(identity, side)[1]
    dz -= (10.5 + 1.5 * s['socket']) * _bump(u - side * -2, 15.5) * _bump(v + 1, 11.5)
    ball = 1 - np.square(u / 15.5) - np.square(v / 11.5)
    dz += (6.6 + 0.5 * s['eye_size']) * np.sqrt(np.maximum(ball, 0) + 0.003)
    dz -= 1.3 * _bump(v + 9.5 - 0.018 * u * u, 1.9) * _bump(u, 16)  # crease of the upper lid
    dz -= (0.5 + 1.1 * identity.age) * _bump(v - 11.5 + 0.02 * u * u, 3.2) * _bump(u + side * 3, 13)
  # Nose: a ridge that rises and widens to the tip, then falls within a few millimetres.
  tip = 46 + 1.7 * s['nose_length']
  rise = _interp(
    y,
    [-14, -6, 6, 22, tip - 7, tip, tip + 5, tip + 9, tip + 13],
    [
      0,
      3 + 0.8 * s['bridge'],
      7.6 + 1.3 * s['bridge'],
      13.5 + 1.2 * s['bridge'],
      20,
      21.5,
      19,
      9,
      0,
    ],
  ) * (1 + 0.08 * s['nose_height'])
  half = _interp(y, [-14, 4, 22, tip - 6, tip + 8], [8.5, 8.6, 10, 14.5, 13.5])
  half = half * (1 + 0.07 * s['nose_width'])
  dz += rise * np.exp(-np.power(np.abs(x / half), 2.1))
  wing = 15.0 * (1 + 0.07 * s['nose_width'])
  dz += 8.2 * _bump(ax - wing, 5.2) * _bump(y - tip - 1, 6.0)
  dz -= 2.2 * _bump(ax - wing - 6, 3.2) * _bump(y - tip + 1, 7)  # groove behind the wing
  dz -= 3.0 * _bump(ax - 6.8, 3.2) * _bump(y - tip - 8.5, 2.6)  # nostrils
  # Mouth: muzzle, two lips, the line between them, corners.
  mouth = 25.5 + 1.6 * s['mouth_width']
  dz += (6.5 + 0.9 * s['muzzle']) * _bump(x, 31) * _bump(y - 72, 22)
  across = np.exp(-np.power(np.abs(x / mouth), 4))
  full = 1 + 0.16 * s['lips']
  dz += 4.3 * full * across * _bump(y - MOUTH_Y + 5.0 * full, 4.3 * full)
  dz += (
    5.0
    * full
    * np.exp(-np.power(np.abs(x / (mouth * 0.86)), 4))
    * _bump(y - MOUTH_Y - 6.0 * full, 4.8 * full)
  )
  dz -= 3.4 * np.exp(-np.power(np.abs(x / (mouth + 2)), 6)) * _bump(y - MOUTH_Y, 1.9)
  dz -= 2.0 * _bump(ax - mouth - 2, 4) * _bump(y - MOUTH_Y, 4.5)
  dz -= 1.2 * _bump(x, 3) * _bump(y - 62, 5.5)  # philtrum
  dz -= 3.4 * _bump(x, 21) * _bump(y - 90, 5.5)  # under the lower lip
  dz += (5.4 + 1.6 * s['chin']) * _bump(x, 17) * _bump(y - 103, 10)
  dz += (4.6 + 1.3 * s['cheek']) * _bump(ax - 44, 19) * _bump(y - 27, 19)
  dz -= 1.8 * (1 - 0.5 * s['cheek']) * _bump(ax - 47, 15) * _bump(y - 66, 17)
  fold = (ax - 19 - 0.42 * (y - 48)) * 0.92  # from the wing of the nose past the mouth
  dz -= (0.8 + 1.7 * identity.age) * _bump(fold, 3.4) * ramp(y, 42, 52) * ramp(y, 92, 74)
  dz -= (
    0.45 * max(identity.age - 0.35, 0) * np.cos(y * 0.62) * _bump(y + 52, 17) * _bump(x, 38)
  )  # forehead lines
  return dz


@functools.lru_cache(maxsize=6)
def mesh(identity: Identity, kind: str = 'live') -> Mesh:
  """The head of an identity, or a copy of it in another material.

  Args:
    who: whose.
    kind: 'live'; 'smooth', moulded (details under 3 mm are gone, no hair); 'wig', that with hair;
      'folded', cut from a sheet (a coarse net of flat facets).
  """
  s = traits(identity)
  rng = np.random.default_rng(np.random.SeedSequence((102, *identity.seed)))
  # Rows are even in arc length, so that the steep crown and chin get their share.
  arc = np.cumsum(np.hypot(*np.diff(_SKULL[:, [0, 2]], axis=0, prepend=_SKULL[:1, [0, 2]]).T))
  y1 = _interp(np.linspace(0, arc[-1], ROWS), arc, _SKULL[:, 0])
  width, front, centre = (_smooth_rows(_interp(y1, _SKULL[:, 0], _SKULL[:, k])) for k in (1, 2, 3))
  y1 = _smooth_rows(y1)
  u = np.linspace(-1, 1, COLUMNS)
  phi1 = _SIDE * (0.8 * u + 0.2 * u**3)  # denser at the front
  y, phi = (a.astype(np.float32) for a in np.meshgrid(y1, phi1, indexing='ij'))  # [R, C]
  x = width[:, None] * np.sin(phi)
  side = ramp(np.cos(phi), -0.05, 0.5)
  texture = _textures(rng)

  relief = np.zeros_like(x)
  face = np.s_[np.searchsorted(y1, -90) :, np.flatnonzero(side[0] > 0)]
  relief[face] = _relief(identity, x[face], y[face]) * side[face]
  if kind in ('smooth', 'wig'):
    relief = cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 1.6)
  open_ = relief - cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 6)
  open_ = np.clip(1 + 0.085 * np.minimum(open_, 0) + 0.02 * np.maximum(open_, 0), 0.35, 1.12)
  ear = _bump(np.abs(np.rad2deg(phi)) - 90, 7) * ramp(y, -22, -12) * ramp(y, 44, 26)
  hair = ramp(y - hairline(identity, phi, texture[..., 0]), 3, -3)
  if kind not in ('live', 'wig'):
    hair = np.zeros_like(y)
  volume = {'short': 8, 'long': 11, 'bald': 0, 'fringe': 10, 'receding': 6}[identity.hair]
  out = hair * (volume + 1.6 * texture[..., 0]) * ramp(y, 118, -60)

  # The millimetres of the identity.
  wide = (
    1 + 0.035 * s['width'] + 0.05 * s['jaw'] * ramp(y, 20, 95) - 0.02 * s['jaw'] * ramp(y, 0, -90)
  )
  deep = centre[:, None] - front[:, None]
  points = np.stack(
    [
      x * wide + np.sign(phi) * 13 * ear + np.sin(phi) * out,
      y * (1 + 0.03 * s['length']) - out * ramp(y, -60, -118),
      centre[:, None] - deep * (1 + 0.03 * s['depth']) * np.cos(phi) - relief - np.cos(phi) * out,
    ]
  ).astype(np.float32)  # [3, R, C]
  if kind == 'folded':
    # A cut sheet keeps no feature: 14 x 13 facets round the head, the nose as a fold.
    small = cv2.resize(points.transpose(1, 2, 0), (13, 14), interpolation=cv2.INTER_AREA)
    points = cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_LINEAR)
    points = np.ascontiguousarray(points.transpose(2, 0, 1))

  jaw = ramp(y, MOUTH_Y - 1.2, MOUTH_Y + 2.2) * ramp(np.cos(phi), 0.2, 0.8)
  corner = _bump(np.abs(x) - 27, 13) * _bump(y - 72, 13)
  cheek = _bump(np.abs(x) - 40, 16) * _bump(y - 42, 16)
  brow = _bump(np.abs(x) - 28, 24) * _bump(y + 22, 12)
  lips = _bump(x, 26) * _bump(y - MOUTH_Y, 9)
  zero = np.zeros_like(x)
  moves = np.stack(
    [
      np.stack([zero, 13 * jaw, 3 * jaw * ramp(y, MOUTH_Y, 110)]),
      np.stack([5 * np.sign(x) * corner, -5 * corner - 1.5 * cheek, 2 * corner - 3 * cheek]),
      np.stack([zero, -4 * brow, -0.5 * brow]),
      np.stack([-2.5 * np.sign(x) * corner, zero, 2.2 * lips]),
    ]
  ).astype(np.float32)
  canonical = np.stack([x, y, phi, open_], -1).astype(np.float32)
  texture[..., 3] = hair
  normal = normals(points)
  bent = [normals(points + move) - normal for move in moves]
  return Mesh(
    np.concatenate([points, normal]),
    np.concatenate([moves, np.stack(bent)], 1),
    canonical,
    texture,
  )


def normals(points: np.ndarray) -> np.ndarray:
  """Unit normals, [3, R, C], of a grid of points [3, R, C]."""
  normal = cross(_central(points, 1), _central(points, 2))
  return normal / (np.sqrt(np.square(normal).sum(0)) + 1e-9)


def _smooth_rows(values):
  """Rounds the corners of a profile given by few points; the ends stay."""
  padded = np.pad(values, 9, mode='reflect', reflect_type='odd')
  kernel = np.hanning(19)
  return np.convolve(padded, kernel / kernel.sum(), 'valid').astype(np.float32)


def _textures(rng):
  noise = rng.standard_normal((3, ROWS, COLUMNS), dtype=np.float32)
  coarse = cv2.GaussianBlur(noise[0], (0, 0), 7)
  strands = cv2.GaussianBlur(noise[2], (0, 0), sigmaX=0.7, sigmaY=5)
  planes = [coarse / coarse.std(), noise[1], strands / strands.std(), np.zeros_like(coarse)]
  return np.stack(planes, -1)  # [R, C, 4]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
  """Head to camera, [3, 3]; radians. Positive: to the viewer's right, up, clockwise."""
  cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
  about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
  about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
  about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
  return (about_z @ about_x @ about_y).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Pinhole:
  """A camera: `size` pixels a side, focal length and centre in pixels; it looks along z."""

  size: int
  focal: float
  centre: tuple[float, float]

  def rays(self) -> np.ndarray:
    """[3, H, W] float32, with z = 1: a point at depth z is z times its ray."""
    at = np.arange(self.size, dtype=np.float32)
    x, y = np.meshgrid((at - self.centre[0]) / self.focal, (at - self.centre[1]) / self.focal)
    return np.stack([x, y, np.ones_like(x)]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Seen:
  """What of a head a camera sees, per pixel of a part of its image that holds all of the head.

  `z` is inf where there is none of it; h, w are the sides of the part.
  """

  window: tuple[slice, slice]  # the part: rows and columns of the image
  z: np.ndarray  # [h, w] mm
  normal: np.ndarray  # [3, h, w] camera axes
  canonical: np.ndarray  # [4, h, w] as in Mesh
  texture: np.ndarray  # [4, h, w] as in Mesh
  turn: np.ndarray  # [3, 3] head to camera


def see(
  shape: Mesh,
  expression: np.ndarray,
  turn: np.ndarray,
  place: np.ndarray,
  camera: Pinhole,
  only: tuple[slice, slice] | None = None,
) -> Seen:
  """Projects a head with its own occlusion.

  Points are splatted with a depth buffer, then each pixel is refined to the spot of the surface
  under its centre.

  Args:
    shape: the head.
    expression: [E] weights of `EXPRESSIONS`, 0..1.
    turn: [3, 3] from `rotation`.
    place: [3] of the head's origin in camera coordinates, mm.
    camera: who looks.
    only: rows and columns of the image that matter, None for all.
  """
  size = camera.size
  points = shape.points.reshape(6, -1)  # [6, R C]
  if expression.any():
    points = points.copy()
    for weight, move in zip(expression, shape.moves, strict=True):
      if weight:
        points += np.float32(weight) * move.reshape(6, -1)
  normal = rotate(turn, points[3:])  # [3, R C]
  points = rotate(turn, points[:3]) + np.float32(place)[:, None]
  flat = points[:2] * (np.float32(camera.focal) / points[2]) + np.float32(camera.centre)[:, None]
  cell = np.rint(flat).astype(np.int32)  # [2, R C]
  seen = np.einsum('kn,kn->n', normal, points) < 0
  rows, columns = only or np.s_[:size, :size]
  seen &= (cell[0] >= (columns.start or 0)) & (cell[0] < columns.stop)
  seen &= (cell[1] >= (rows.start or 0)) & (cell[1] < rows.stop)
  index = np.flatnonzero(seen)
  # Depth in the high bits, the point's number in the low ones: the smallest key is the nearest.
  key = (points[2, index] * 16).astype(np.int64) << 20 | index
  nearest = np.full((size + 2) ** 2, _FAR)  # with a border of one pixel
  np.minimum.at(nearest, ((cell[1] + 1) * (size + 2) + cell[0] + 1)[index], key)
  beside = np.array([dy * (size + 2) + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
  for _ in range(2):  # pixels that no point fell on take the nearest one of their neighbours
    hit = (nearest != _FAR).astype(np.uint8).reshape(size + 2, -1)
    closed = cv2.morphologyEx(hit, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    closed[[0, -1]] = closed[:, [0, -1]] = 0
    holes = np.flatnonzero(closed > hit)
    nearest[holes] = nearest[holes[:, None] + beside].min(1)
  nearest = nearest.reshape(size + 2, -1)[1:-1, 1:-1]
  hit = nearest != _FAR
  rows, columns = np.flatnonzero(hit.any(1)), np.flatnonzero(hit.any(0))
  if not len(rows):
    rows = columns = np.arange(size)
  window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  hit = hit[window]  # [h, w]
  which = (np.where(hit, nearest[window], 0) & ((1 << 20) - 1)).astype(np.intp)

  # First-order step from the point to the pixel's centre, in the mesh's own rows and columns.
  row, column = np.divmod(which.astype(np.int32), np.int32(COLUMNS))

  def of(points):  # [2, h, w]
    return flat.take(points, axis=1, mode='clip')

  by_row = 0.5 * (of(which + COLUMNS) - of(which - COLUMNS))
  by_column = 0.5 * (of(which + 1) - of(which - 1))
  at = np.arange(size, dtype=np.float32)
  x, y = of(which)
  x, y = at[None, window[1]] - x, at[window[0], None] - y
  det = by_row[0] * by_column[1] - by_row[1] * by_column[0]
  det[np.abs(det) < 1e-3] = 1e9  # seen edge on
  row = row + np.clip((x * by_column[1] - y * by_column[0]) / det, -2, 2)
  column = column + np.clip((by_row[0] * y - by_row[1] * x) / det, -2, 2)
  maps = cv2.convertMaps(np.float32(column), np.float32(row), cv2.CV_16SC2)

  def sample(planes):
    return cv2.remap(planes, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

  def planes_of(points):  # [R, C, K] -> [K, h, w], planes in one piece: all that follows is quicker
    return np.ascontiguousarray(sample(points).transpose(2, 0, 1))

  surface = [sample(plane.reshape(ROWS, COLUMNS)) for plane in (*normal, points[2])]
  return Seen(
    window=window,
    z=np.where(hit, surface[3], np.float32(np.inf)),
    normal=np.stack(surface[:3]),
    canonical=planes_of(shape.canonical),
    texture=planes_of(shape.texture),
    turn=turn,
  )


def rotate(turn: np.ndarray, planes: np.ndarray) -> np.ndarray:
  """turn [3, 3] times planes [3, ...]. Not by BLAS: its threads would fight with the workers."""
  return np.einsum('ij,j...->i...', turn, planes)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Vector product of [3, ...] planes (np.cross wants the vectors last, which is slower)."""
  return np.stack([a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)])


def _central(values, axis):
  """Central differences, one-sided at the ends (np.gradient, several times faster)."""
  values = np.moveaxis(values, axis, 0)
  out = np.empty_like(values)
  np.subtract(values[2:], values[:-2], out=out[1:-1])
  out[1:-1] *= 0.5
  out[0], out[-1] = values[1] - values[0], values[-1] - values[-2]
  return np.moveaxis(out, 0, axis)
