"""What stands before the camera: a living face, or an attack made of what attacks are made of."""

import dataclasses
import functools

import numpy as np

from flexfas_jax.data.rendered_faces import head, lighting, materials, sensors, sheets, surroundings
from flexfas_jax.data.rendered_faces.head import Identity, Pinhole
from flexfas_jax.data.rendered_faces.materials import Layer
from flexfas_jax.data.rendered_faces.populations import CATEGORY, Video

SIZE = 112  # pixels a side at which scenes are worked out, before the cameras see them
_PHOTO_SIZE = 144
_FACE_Y = 17.0  # canonical middle of the face below the eyes, mm
_STILL = np.zeros(len(head.EXPRESSIONS))


@dataclasses.dataclass(frozen=True)
class Pose:
  """A head in one frame."""

  turn: np.ndarray  # [3, 3]
  place: np.ndarray  # [3] of the head's origin, mm
  yaw: float
  expression: np.ndarray  # [E]
  gaze: tuple[float, float]
  lids: float


def draw_pose(
  rng: np.random.Generator, angles: tuple[float, float, float], distance: float
) -> Pose:
  """A head about the camera's axis.

  Args:
    rng: of the expression.
    angles: yaw, pitch, roll, degrees.
    distance: of the plane of the eyes, mm; what is printed stands at the same place.
  """
  yaw, pitch, roll = np.deg2rad(angles)
  turn = head.rotation(yaw, pitch, roll)
  # The face, not the head's origin, is in the middle of the image.
  place = np.array([0, 0, distance]) - turn @ [0, _FACE_Y, -80]
  often = rng.random(len(head.EXPRESSIONS)) < (0.35, 0.5, 0.4, 0.3)
  expression = rng.beta(0.8, 2.2, len(often)) * (0.7, 1, 1, 0.7) * often
  lids = 0.12 if rng.random() < 0.06 else float(np.clip(rng.normal(0.86, 0.12), 0.5, 1.2))
  gaze = tuple(map(float, rng.normal(0, (1.5, 0.7))))
  return Pose(turn, place, yaw, expression, gaze, lids)


def living(
  identity: Identity,
  pose: Pose,
  rays: np.ndarray,
  camera: Pinhole,
  rig: sensors.Rig,
  only: tuple[slice, slice] | None = None,
) -> list[Layer]:
  """A subject: head and, where visible, neck, shoulders and long hair."""
  jaw = float(pose.expression[0])
  seen = head.see(head.mesh(identity), pose.expression, pose.turn, pose.place, camera, only)
  on = materials.features(identity, seen, pose.gaze, pose.lids, jaw)
  layers = [materials.paint(identity, seen, on)]
  if not rig.black_outside:
    layers += surroundings.body(identity, rays, pose.place, pose.yaw)
  return layers


@functools.lru_cache(maxsize=4)
def photo(identity: Identity, number: int, frontal: bool = False) -> sheets.Photo:
  """A photo of an identity, taken with a good camera at another place and time."""
  rng = np.random.default_rng(np.random.SeedSequence((103, *identity.seed, number)))
  width, distance = 285.0, rng.uniform(700, 1300)
  camera = Pinhole(
    _PHOTO_SIZE, _PHOTO_SIZE / width * distance, ((_PHOTO_SIZE - 1) / 2, (_PHOTO_SIZE - 1) / 2)
  )
  angles = rng.normal(0, (6, 4, 2)) * (not frontal)
  pose = draw_pose(rng, angles, distance)
  rays = camera.rays()
  seen = head.see(head.mesh(identity), pose.expression * 0.6, pose.turn, pose.place, camera)
  jaw = 0.6 * float(pose.expression[0])
  on = materials.features(identity, seen, pose.gaze, max(pose.lids, 0.8), jaw)
  front = materials.paint(identity, seen, on)
  where = np.full((3, _PHOTO_SIZE, _PHOTO_SIZE), 999, np.float32)
  where[:2, *seen.window] = np.where(np.isfinite(seen.z), seen.canonical[:2], 999)
  where[2] = 0
  where[2, *seen.window] = front['face']
  behind = surroundings.body(identity, rays, pose.place, pose.yaw)
  behind.append(surroundings.room(rng, _PHOTO_SIZE, 3000))
  scene = materials.nearest([front, *behind], _PHOTO_SIZE)
  light = lighting.visible(scene, rays, _PHOTO_SIZE / width, lighting.draw(rng, rng.random() < 0.3))
  rig = dataclasses.replace(sensors.RIGS['cefa_like'], shot=5e-5, read=0.001, blur=0.55)
  image = sensors.rgb_camera(light, rig, sensors.settle(rig, rng), _PHOTO_SIZE, rng)
  where = np.ascontiguousarray(where.transpose(1, 2, 0), np.float32)
  return sheets.Photo(image.astype(np.float32), where, width / _PHOTO_SIZE)


@dataclasses.dataclass(frozen=True)
class Scene:
  """What is drawn once for a recording; `frame` gives the content of its images."""

  video: Video
  identity: Identity
  rig: sensors.Rig
  lights: lighting.Lights
  distance: float
  crop: float  # mm
  angles: np.ndarray  # [3] mean yaw, pitch, roll, degrees
  centre: np.ndarray  # [2] of the face relative to the middle of the image, as a share of its side
  seed: int

  def frame(self, number: int) -> tuple[Layer, np.ndarray]:
    """The scene in one frame: what is seen, and the camera's rays [3, H, W] with z = 1."""
    # `static` is the same in each frame, `moving` is not.
    static = np.random.default_rng(np.random.SeedSequence((self.seed, 1)))
    moving = np.random.default_rng(np.random.SeedSequence((self.seed, 2, number)))
    make = _MAKERS.get(self.video.species or 'live') or _MAKERS[CATEGORY[self.video.species]]
    distance, crop = self.distance, self.crop
    if self.video.species == 'replay_phone':  # a small face: held nearer, cropped closer
      distance, crop = distance * 0.55, crop * 0.42
    distance *= 1 + moving.normal(0, 0.012)
    angles = self.angles + moving.normal(0, (3.0, 2.0, 1.2))
    middle = (SIZE - 1) / 2 + SIZE * (self.centre + moving.normal(0, 0.008, 2))
    camera = Pinhole(SIZE, SIZE / crop * distance, tuple(middle))
    rays = camera.rays()
    layers = make(self, rays, camera, angles, distance, static, moving)
    if not self.rig.black_outside:
      layers.append(_wall(self.seed, self.distance))
    return materials.nearest(layers, SIZE), rays


@functools.lru_cache(maxsize=2)
def _wall(seed, distance):
  rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
  return surroundings.room(rng, SIZE, rng.uniform(1.4, 2.6) * distance)


def _live(scene, rays, camera, angles, distance, static, moving):
  pose = draw_pose(moving, angles, distance)
  layers = living(scene.identity, pose, rays, camera, scene.rig)
  if scene.identity.glasses and static.random() < 0.7:
    layers.append(_glasses(scene.identity, pose, rays, layers[0], static))
  return layers


def _glasses(identity, pose, rays, behind, static):
  """Ordinary glasses: a thin frame; the lenses mirror, and disturb the depth sensor."""
  z, normal, right, down, lens = _on_nose(identity, pose, rays, static.uniform(17, 21))
  thick = static.uniform(1.8, 4.0)
  rim = np.abs(lens - 1) * 40 < thick
  rim |= (np.abs(right) < 12) & (np.abs(down + 4) < thick * 0.7) & (lens > 1)  # bridge
  rim |= (np.abs(right) > 53) & (np.abs(right) < 70) & (np.abs(down + 6) < thick * 0.8)
  rgb = tuple(static.uniform(0.01, 0.16) * static.uniform(0.4, 1, 3))
  frame = materials.Material(rgb, static.uniform(0.05, 0.4), 0.25, 60, lost=0.3)
  glass = ((lens < 1) & np.isfinite(z))[behind.window]
  behind['lost'] += 0.30 * glass
  behind['albedo'] *= 1 - 0.10 * glass
  streak = np.exp(-np.square((right + 0.8 * down - static.uniform(-30, 30)) / 9))
  behind['emit'] += float(static.choice([0, 0.12])) * glass * streak[behind.window]
  return materials.coat(frame, np.where(rim, z, np.float32(np.inf)), normal)


def _on_nose(identity, pose, rays, height):
  """The plane of a pair of glasses: where it is met, and distance to the lens' edge (1)."""
  place = pose.place + pose.turn @ [0, 2, -107]
  z, normal, right, down = sheets.Sheet(pose.turn, place, 1 / 190).meet(rays)
  lens = np.full_like(z, 9)
  for side in (-1, 1):
    x, y = head.eye_centre(identity, side)
    u, v = (right - side * 2 - x) / 25, (down - y) / height
    lens = np.minimum(lens, np.power(u**4 + v**4, 0.25))
  return z, normal, right, down, lens


def _paper(scene, rays, camera, angles, distance, static, moving):
  """A printed photo, held at the place of a face."""
  glossy = scene.video.species == 'print_glossy'
  printer = sheets.Printer.draw(static, glossy)
  scale = static.uniform(0.9, 1.1)
  half = (static.uniform(98, 150), static.uniform(140, 200))
  bend = static.choice([0, 1 / static.uniform(130, 400)], p=[0.6, 0.4])
  own = static.normal(0, (5, 5, 2))  # how it is held
  turn = head.rotation(*np.deg2rad(0.7 * angles + own))
  sheet = sheets.Sheet(turn, np.array([0, 0, distance]), bend + moving.normal(0, 1e-4) * (bend > 0))
  image = photo(scene.identity, 0)
  layer, _ = sheets.printed(sheet, rays, image, printer, scale, half, static)
  return [layer, *_holder(scene, rays, sheet, half, distance, static)]


def _holder(scene, rays, sheet, half, distance, static):
  """Who holds a sheet or a device: fingers on its edges, a body behind it."""
  other = head.draw_identity((*scene.video.identity, 1), scene.video.group)
  layers = []
  if static.random() < 0.75:
    for side in (-1, 1):
      at = sheet.place + sheet.turn @ [side * (half[0] - 4), static.uniform(-10, half[1] - 30), -6]
      layers.append(
        surroundings.finger(other, rays, at, static.normal(0, 0.3) + np.pi * (side < 0))
      )
    place = [static.normal(0, 60), static.uniform(-20, 60), distance + static.uniform(200, 400)]
    layers += surroundings.body(other, rays, np.array(place), 0)
  return layers


def _cut_photo(scene, rays, camera, angles, distance, static, moving):
  """A photo of the attacker's own face, worn on it, with holes for the real eyes, nose, mouth."""
  species = scene.video.species
  nose, mouth = 'nose' in species, 'mouth' in species
  # The printed face, not the one behind it, has the size of a face in the image.
  pose = draw_pose(moving, angles, distance + 30)
  bend = 1 / static.uniform(85, 150) if species.endswith('curved') else static.uniform(0, 1 / 1500)
  # Paper rests on the nose's tip, or, where the nose is cut out, on brow and cheeks.
  front = -static.uniform(99, 105) if nose else -static.uniform(113, 118)
  # It is worn, so it turns with the head, but not exactly.
  slack = head.rotation(*np.deg2rad(static.normal(0, (2.0, 2.5, 1.0)) + moving.normal(0, 0.5, 3)))
  turn = pose.turn @ slack
  off = static.normal(0, 1.5, 2)
  place = pose.place + pose.turn @ [off[0], _FACE_Y + off[1], front]
  sheet = sheets.Sheet(turn, place, bend)
  printer = sheets.Printer.draw(static, static.random() < 0.3)
  half = (static.uniform(95, 120), static.uniform(125, 150))
  image = photo(scene.identity, 0, True)
  layer, where = sheets.printed(
    sheet, rays, image, printer, static.uniform(0.97, 1.05), half, static
  )
  cut = sheets.holes(scene.identity, where, nose, mouth)
  rim = np.clip(1 - np.abs(cut - 1.05) / 0.05, 0, 1)  # the paper's white edge
  layer['albedo'] = materials.mix(layer['albedo'], (0.8, 0.8, 0.78), 0.5 * rim)
  layer['z'] = np.where(cut < 1, np.float32(np.inf), layer['z'])
  # Of the face behind, where nothing but the photo is shown, only what is in the holes matters.
  only = _bounds(cut < 1) if scene.rig.black_outside else None
  behind = living(scene.identity, pose, rays, camera, scene.rig, only)
  for part in behind:
    part['face'] = 0
  layers = [materials.over(layer, behind, SIZE)]
  for side in (-1, 1):
    if static.random() < 0.5 and not scene.rig.black_outside:
      at = sheet.place + sheet.turn @ [side * (half[0] - 14), static.uniform(20, 80), -5]
      layers.append(
        surroundings.finger(scene.identity, rays, at, static.normal(0, 0.3) + np.pi * (side < 0))
      )
  return layers


def _bounds(where):
  rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
  if not len(rows):
    return None
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _replay(scene, rays, camera, angles, distance, static, moving):
  """A video shown on a phone, a tablet or a monitor."""
  phone = scene.video.species == 'replay_phone'
  scale = 0.42 * static.uniform(0.9, 1.1) if phone else static.uniform(0.88, 1.05)
  half = (static.uniform(34, 38), static.uniform(70, 78)) if phone else (
    static.uniform(95, 140), static.uniform(125, 170)
  )  # fmt: skip
  own = static.normal(0, (4, 5, 1.5))
  turn = head.rotation(*np.deg2rad(0.6 * angles + own))
  sheet = sheets.Sheet(turn, np.array([0, 0, distance]))
  moire = (
    static.uniform(0.01, 0.07),
    *(scale * static.uniform(6, 30, 2) * static.choice([-1, 1], 2)),
  )
  image = photo(scene.identity, int(moving.integers(2)))  # the video moves
  offset = tuple(map(float, static.normal(0, 0.10, 2) * half))
  bezel = static.uniform(4, 9) if phone else static.uniform(9, 18)
  layer = sheets.screen(
    sheet, rays, image, scale, half, bezel, static.uniform(0.7, 1.6), moire, offset
  )
  # Glass and emitted light disturb depth sensors to very different degrees.
  layer['lost'] *= static.uniform(0.15, 1.1)
  outer = (half[0] + bezel - abs(offset[0]), half[1] + bezel)
  return [layer, *_holder(scene, rays, sheet, outer, distance, static)]


def _paper_mask(scene, rays, camera, angles, distance, static, moving):
  """A face printed on paper, cut out, folded round the head."""
  pose = draw_pose(moving, angles, distance)
  model = head.draw_identity((*scene.video.identity, 2), scene.video.group)
  printer = sheets.Printer.draw(static, False)
  seen = _worn(model, 'folded', pose, camera, static.uniform(9, 14))
  x, y, phi, _ = seen.canonical
  image = photo(model, 0, True)
  rgb, _ = image.at(x, y - _FACE_Y)
  layer = materials.coat(printer.paper, seen.z, seen.normal, seen.window)
  layer['albedo'], layer['ir'] = materials.ink(rgb, printer.carbon)
  layer['albedo'] *= printer.cast[:, None, None]
  outline = (np.abs(phi) > 1.2) | (y < -92)
  if static.random() < 0.6:
    where = np.stack([x, y])
    outline |= sheets.holes(model, where, False, False) < 0.85
  layer['z'] = np.where(outline, np.float32(np.inf), layer['z'])
  layer['lost'] = 0.01
  layer['face'] = 1
  return [materials.over(layer, living(scene.identity, pose, rays, camera, scene.rig), SIZE)]


def _rigid_mask(scene, rays, camera, angles, distance, static, moving):
  """A painted mask of resin or plastic of another identity, with holes for the eyes."""
  pose = draw_pose(moving, angles, distance)
  model = head.draw_identity((*scene.video.identity, 2), scene.video.group)
  plastic = scene.video.species == 'plastic_mask'
  material = materials.PLASTIC if plastic else materials.RESIN
  seen = _worn(model, 'smooth', pose, camera, static.uniform(8, 13))
  on = materials.features(model, seen)
  colour = static.uniform(0.3, 0.8) if plastic else static.uniform(0.6, 1.0)
  layer = materials.cast(model, seen, on, material, colour, static.uniform(0.5, 1.0))
  x, y, phi, _ = seen.canonical
  outline = (np.abs(phi) > static.uniform(1.15, 1.4)) | (y < static.uniform(-100, -84))
  if static.random() < 0.7:
    outline |= sheets.holes(model, np.stack([x, y]), False, False) < 0.72
  layer['z'] = np.where(outline, np.float32(np.inf), layer['z'])
  return [materials.over(layer, living(scene.identity, pose, rays, camera, scene.rig), SIZE)]


def _flexible_mask(scene, rays, camera, angles, distance, static, moving):
  """A mask of silicone or latex: relief and movement near a living face's, colour of one piece."""
  pose = draw_pose(moving, angles, distance)
  model = head.draw_identity((*scene.video.identity, 2), scene.video.group)
  silicone = scene.video.species == 'silicone_mask'
  material = materials.SILICONE if silicone else materials.LATEX
  seen = _worn(model, 'smooth', pose, camera, static.uniform(4, 8), 0.5 * pose.expression)
  on = materials.features(model, seen)
  layer = materials.cast(
    model, seen, on, material, static.uniform(0.6, 1.0), static.uniform(0.3, 0.8)
  )
  x, y, phi, _ = seen.canonical
  outline = (np.abs(phi) > 1.75) | (y < static.uniform(-92, -80))
  outline |= sheets.holes(model, np.stack([x, y]), False, False) < 0.74
  layer['z'] = np.where(outline, np.float32(np.inf), layer['z'])
  return [materials.over(layer, living(scene.identity, pose, rays, camera, scene.rig), SIZE)]


def _worn(model, kind, pose, camera, off, expression=_STILL):
  """A mask before a head: `off` mm in front of it."""
  place = pose.place + pose.turn @ [0, 0, -off]
  return head.see(head.mesh(model, kind), expression, pose.turn, place, camera)


def _fake_head(scene, rays, camera, angles, distance, static, moving):
  """A mannequin's head, sometimes with a wig."""
  pose = dataclasses.replace(draw_pose(moving, angles, distance), expression=_STILL)
  model = dataclasses.replace(scene.identity, beard=0.0, age=0.1, tone=0.7 * scene.identity.tone)
  wig = static.random() < 0.4
  if not wig:
    model = dataclasses.replace(model, hair='bald')
  seen = head.see(
    head.mesh(model, 'wig' if wig else 'smooth'), _STILL, pose.turn, pose.place, camera
  )
  on = materials.features(model, seen)
  colour = float(static.choice([0.0, static.uniform(0.3, 0.9)]))
  layer = materials.cast(model, seen, on, materials.MANNEQUIN, colour, static.uniform(0.2, 1.0))
  hair = seen.texture[3]
  strands = np.clip(1 + 0.35 * seen.texture[2], 0.3, 2)
  layer['albedo'] = materials.mix(
    layer['albedo'], np.float32(model.hair_rgb)[:, None, None] * strands, hair
  )
  layer['ir'] = materials.mix(layer['ir'], 0.5, hair)  # artificial fibre, dyed
  layer['gloss'] *= 1 - 0.5 * hair
  stand = surroundings.body(dataclasses.replace(model, hair='short'), rays, pose.place, 0)
  neck = materials.coat(materials.MANNEQUIN, stand[0]['z'], stand[0]['normal'], stand[0].window)
  return [layer, neck, *(stand[1:] if static.random() < 0.5 else [])]


def _attack_glasses(scene, rays, camera, angles, distance, static, moving):
  """A living face that hides behind glasses: novelty glasses with eyes on them, or paper ones."""
  pose = draw_pose(moving, angles, distance)
  layers = living(scene.identity, pose, rays, camera, scene.rig)
  z, normal, right, down, lens = _on_nose(scene.identity, pose, rays, 21)
  inf = np.float32(np.inf)
  if scene.video.species == 'paper_glasses':
    # A strip of a printed face, with the eyes of another identity.
    model = head.draw_identity((*scene.video.identity, 2), scene.video.group)
    printer = sheets.Printer.draw(static, False)
    place = pose.place + pose.turn @ [0, 0, -static.uniform(103, 108)]
    sheet = sheets.Sheet(pose.turn, place, 1 / static.uniform(110, 200))
    strip = sheets.Sheet(sheet.turn, sheet.place + sheet.turn @ [0, _FACE_Y, 0], sheet.bend)
    layer, where = sheets.printed(
      strip, rays, photo(model, 0, True), printer, 1.0, (200, 200), static
    )
    x, y = where[:2]
    keep = (np.abs(y + 3) < static.uniform(20, 27)) & (np.abs(x) < 66)
    keep &= ~((np.abs(x) < 11) & (y > 6))  # notch for the nose
    layer['z'] = np.where(keep, layer['z'], inf)
    return [layer, *layers]
  rgb = tuple(static.uniform(0.02, 0.6) * static.uniform(0.3, 1, 3))
  frame = materials.Material(rgb, static.uniform(0.2, 0.7), 0.25, 60)
  bridge = (np.abs(right) < 12) & (np.abs(down + 2) < 4)
  arm = (np.abs(right) > 53) & (np.abs(right) < 72) & (np.abs(down + 6) < 4)
  present = (lens < 1.22) | bridge | arm
  layer = materials.coat(frame, np.where(present, z, inf), normal)
  disc = lens < 1.0
  colour, ir = layer['albedo'], layer['ir']
  colour = materials.mix(colour, (0.82, 0.80, 0.76), disc)
  ir = materials.mix(ir, 0.8, disc)
  iris_rgb = tuple(static.uniform(0.05, 0.5, 3).tolist())
  look = static.normal(0, 3, 2).tolist()
  for side in (-1, 1):
    x, y = head.eye_centre(scene.identity, side)
    r = np.hypot(right - 2 * side - x - look[0], down - y - look[1])
    colour = materials.mix(colour, iris_rgb, disc * head.ramp(r, 11.5, 10))
    ir = materials.mix(ir, 0.6, disc * head.ramp(r, 11.5, 10))
    colour = materials.mix(colour, (0.02, 0.02, 0.02), disc * head.ramp(r, 5.5, 4.5))
    ir = materials.mix(ir, 0.25, disc * head.ramp(r, 5.5, 4.5))
  layer['albedo'], layer['ir'] = colour, ir
  return [layer, *layers]


_MAKERS = {
  'live': _live,
  'print': _paper,
  'cut_photo': _cut_photo,
  'replay': _replay,
  'papermask': _paper_mask,
  'rigidmask': _rigid_mask,
  'flexiblemask': _flexible_mask,
  'fakehead': _fake_head,
  'glasses': _attack_glasses,
}


def draw(video: Video) -> tuple[Scene, sensors.Settings]:
  """Draws what stays the same during a recording."""
  rng = np.random.default_rng(np.random.SeedSequence((104, *video.seed)))
  rig = sensors.RIGS[video.dataset]
  outdoor = video.species == 'print_outdoor' or (
    video.species != 'print_indoor' and rng.random() < rig.outdoor
  )
  scene = Scene(
    video=video,
    identity=head.draw_identity(video.identity, video.group),
    rig=rig,
    lights=lighting.draw(rng, outdoor),
    distance=rng.uniform(*rig.distance),
    crop=rng.uniform(*rig.crop),
    angles=np.clip(rng.normal(0, (rig.yaw, rig.pitch, rig.roll)), -32, 32),
    centre=rng.normal(0, 0.012, 2),
    seed=int(rng.integers(1 << 31)),
  )
  return scene, sensors.settle(rig, rng)
