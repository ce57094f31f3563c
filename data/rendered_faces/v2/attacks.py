"""The attacks, and the living: each maker turns a `Take` into the layers of one frame."""

import dataclasses

import numpy as np

from flexfas_jax.data.rendered_faces import head, materials, render, surroundings
from flexfas_jax.data.rendered_faces.head import EYE_X, ramp
from flexfas_jax.data.rendered_faces.materials import Layer, Material
from flexfas_jax.data.rendered_faces.populations import Video
from flexfas_jax.data.rendered_faces.v2 import domains, heads, scene, sheets, substances
from flexfas_jax.data.rendered_faces.v2.heads import LIVING, Shape, Subject
from flexfas_jax.data.rendered_faces.v2.scene import (
  FACE_Y,
  SIZE,
  Pose,
  Take,
  features,
  living,
  photo,
  see,
)
from flexfas_jax.data.rendered_faces.v2.substances import Ink

_INF = np.float32(np.inf)


def live(take: Take) -> list[Layer]:
  """A living subject, sometimes with glasses, headwear, make-up, a hand at the face."""
  pose = take.pose()
  layers = living(take, take.subject, pose)
  if take.subject.glasses and take.static.random() < 0.75:
    layers.append(_glasses(take, pose, layers[0]))
  if take.static.random() < 0.12 and not take.rig.black_outside:
    layers += _hand(take, take.subject, pose)
  return layers


def _hand(take, subject, pose):
  """Fingers at the cheek or chin."""
  side = take.static.choice([-1, 1])
  x, y = side * take.static.uniform(48, 66), take.static.uniform(40, 95)
  angle = take.static.normal(0.6, 0.3)
  angle = angle if side > 0 else np.pi - angle
  return [
    surroundings.finger(
      subject, take.rays, pose.place + pose.turn @ [x, y + 15 * k, -62 + 8 * k], angle
    )
    for k in range(int(take.static.integers(1, 4)))
  ]


def _on_nose(subject: Subject, pose: Pose, rays: np.ndarray, height: float):
  """The plane of a pair of glasses: where it is met, and distance to the lens' edge (1)."""
  eyes, _ = heads.places(subject)
  middle = eyes.mean(0)
  place = pose.place + pose.turn @ (middle + [0, 2, -22])
  z, normal, right, down = sheets.Sheet(pose.turn, place, 1 / 190).meet(rays)
  down = down + 2
  half = 0.5 * (eyes[1, 0] - eyes[0, 0])
  u, v = (np.abs(right) - half - 2) / 25, down / height
  return z, normal, right, down, np.power(u**4 + v**4, 0.25)


def _glasses(take, pose, behind):
  """Ordinary glasses: a thin frame; the lenses mirror, and disturb depth cameras."""
  static = take.static
  z, normal, right, down, lens = _on_nose(take.subject, pose, take.rays, static.uniform(17, 21))
  thick = static.uniform(1.8, 4.0)
  rim = np.abs(lens - 1) * 40 < thick
  rim |= (np.abs(right) < 12) & (np.abs(down + 4) < thick * 0.7) & (lens > 1)  # bridge
  rim |= (np.abs(right) > 53) & (np.abs(right) < 70) & (np.abs(down + 6) < thick * 0.8)
  rgb = tuple((static.uniform(0.01, 0.3) * static.uniform(0.4, 1, 3)).tolist())
  frame = Material(rgb, static.uniform(0.05, 0.5), 0.25, 60, lost=0.3)
  glass = ((lens < 1) & np.isfinite(z))[behind.window]
  behind['lost'] += 0.30 * glass
  behind['albedo'] *= 1 - static.choice([0.1, 0.1, 0.5]) * glass  # a few are tinted
  streak = np.exp(-np.square((right + 0.8 * down - static.uniform(-30, 30)) / 9))
  behind['emit'] += float(static.choice([0, 0.12])) * glass * streak[behind.window]
  return materials.coat(frame, np.where(rim, z, _INF), normal)


def _holder(take, sheet, half):
  """Who holds a sheet or a device: fingers on its edges, a body behind it."""
  static, other = take.static, take.other(1)
  layers = []
  if static.random() < 0.6:
    for side in (-1, 1):
      at = sheet.place + sheet.turn @ [side * (half[0] - 4), static.uniform(-10, half[1] - 30), -6]
      layers.append(
        surroundings.finger(other, take.rays, at, static.normal(0, 0.3) + np.pi * (side < 0))
      )
  if static.random() < 0.75:
    behind = take.distance + static.uniform(100, 400)
    place = np.array([static.normal(0, 60), static.uniform(-20, 60), behind])
    layers += surroundings.body(other, take.rays, place, 0)
  return layers


def _paper(static):
  return substances.piece('photo paper' if static.random() < 0.3 else 'paper', static)


def print_flat(take: Take) -> list[Layer]:
  """A printed photo held at the place of a face, flat but for waves."""
  return _held(take, 0.0, 2.5)


def print_curved(take: Take) -> list[Layer]:
  """A printed photo bent to about a head's curvature, or creased over its middle."""
  return _held(take, 1 / take.static.uniform(75, 160), 4.0)


def _held(take, bend, most):
  static = take.static
  paper, ink = _paper(static), Ink.draw(static)
  ridge = float(static.uniform(0.1, 0.5)) if bend and static.random() < 0.4 else 0.0
  half = (static.uniform(98, 160), static.uniform(135, 210))
  own = static.normal(0, (4, 5, 2))  # how it is held
  turn = head.rotation(*np.deg2rad(0.7 * take.angles + own))
  place = np.array([0, 0, take.distance])
  sheet = sheets.Sheet(turn, place, bend, ridge, sheets.waves(static, most))
  scale = static.uniform(0.92, 1.08)
  layer, _ = sheets.printed(
    sheet, take.rays, photo(take.subject, 0, bend > 0), paper, ink, scale, half
  )
  return [layer, *_holder(take, sheet, half)]


def cut_photo(take: Take) -> list[Layer]:
  """A photo of the attacker's own face, worn on it, with holes for the real eyes, nose, mouth."""
  static, species = take.static, take.video.species
  nose, mouth = 'nose' in species, 'mouth' in species
  pose = take.pose(30)
  curved = species.endswith('curved')
  bend = 1 / static.uniform(80, 150) if curved else static.uniform(0, 1 / 900)
  # Paper over a nose folds about its ridge; where the nose is cut out it lies on brow and cheeks.
  ridge = 0.0 if nose else float(static.uniform(0.0, 0.35 if not curved else 0.25))
  _, tip = heads.places(take.subject)
  front = -tip[2] + static.uniform(0, 4) if not nose else -tip[2] - static.uniform(8, 14)
  slack = head.rotation(
    *np.deg2rad(static.normal(0, (2.0, 2.5, 1.0)) + take.moving.normal(0, 0.4, 3))
  )
  off = static.normal(0, 1.5, 2)
  place = pose.place + pose.turn @ [off[0], FACE_Y + off[1], -front]
  sheet = sheets.Sheet(pose.turn @ slack, place, bend, ridge, sheets.waves(static, 2.0))
  half = (static.uniform(95, 120), static.uniform(125, 150))
  paper, ink = _paper(static), Ink.draw(static)
  layer, where = sheets.printed(
    sheet, take.rays, photo(take.subject, 0, True), paper, ink, static.uniform(0.97, 1.05), half
  )
  cut = sheets.holes(where, nose, mouth)
  rim = np.clip(1 - np.abs(cut - 1.05) / 0.05, 0, 1)  # the paper's white edge
  layer['albedo'] = materials.mix(layer['albedo'], (0.8, 0.8, 0.78), 0.4 * rim)
  layer['z'] = np.where(cut < 1, _INF, layer['z'])
  # Of the face behind, where nothing but the photo is shown, only what is in the holes matters.
  only = _bounds(cut < 1) if take.rig.black_outside else None
  behind = living(take, take.subject, pose, only)
  for part in behind:
    part['face'] = 0
  return [materials.over(layer, behind, SIZE)]


def _bounds(where):
  rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
  if not len(rows):
    return None
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def replay(take: Take) -> list[Layer]:
  """A video shown on a phone, a tablet or a monitor."""
  static, phone = take.static, take.shrink < 1
  scale = take.shrink * static.uniform(0.92, 1.08)
  half = (static.uniform(34, 38), static.uniform(70, 78)) if phone else (
    static.uniform(100, 260), static.uniform(125, 170)
  )  # fmt: skip
  own = static.normal(0, (4, 5, 1.5))
  turn = head.rotation(*np.deg2rad(0.6 * take.angles + own))
  sheet = sheets.Sheet(turn, np.array([0, 0, take.distance]))
  moire = (
    static.uniform(0.0, 0.06),
    *(scale * static.uniform(6, 30, 2) * static.choice([-1, 1], 2)),
  )
  shown = photo(take.subject, min(take.number, 1))  # the video moves
  offset = tuple(map(float, static.normal(0, 0.08, 2) * half))
  bezel = static.uniform(2, 9) if phone else static.uniform(8, 18)
  layer = sheets.screen(
    sheet, take.rays, shown, scale, half, bezel, static.uniform(0.6, 1.6), moire, offset
  )
  layer['lost'] *= static.uniform(0.1, 1.1)  # glasses differ in what they let through
  outer = (half[0] + bezel - abs(offset[0]), half[1] + bezel)
  return [layer, *_holder(take, sheet, outer)]


def _printed_shell(take, model, shape, pose, forward, substance, ink, expression=heads.STILL):
  """A shell after a model's head with a printed photo of the model on it."""
  static = take.static
  seen = see(model, shape._replace(rest=True), pose, take.camera, forward, expression)
  material = substances.piece(substance, static)
  x, y = seen.texture[:2]
  rgb, infra, _ = photo(model, 0, True).at(x, y - FACE_Y)
  layer = materials.coat(material, seen.z, seen.normal, seen.window)
  substances.printed_on(material, ink, rgb, infra, layer, 2.1 * y)
  layer['albedo'] *= np.clip(seen.canonical[3], 0.6, 1.05)
  layer['face'] = ramp(np.abs(seen.canonical[2]), 1.35, 1.25) * ramp(seen.canonical[1], -86, -82)
  return layer, seen


def _trim(take, layer, seen, round_to, top, eyes, mouth=False):
  """Cuts a shell: at an angle round the head, at a height, holes for the eyes (in place)."""
  x, y, phi, _ = seen.canonical
  cut = (np.abs(phi) > round_to) | (y < top)
  if eyes:
    cut |= sheets.holes(np.stack([x, y]), False, mouth, eyes) < 1
  layer['z'] = np.where(cut, _INF, layer['z'])


def _eyes(static, share):
  """Half width and half height of the holes for the eyes, mm; None: none."""
  return (static.uniform(12.5, 17), static.uniform(5.5, 9)) if static.random() < share else None


def print_moulded(take: Take) -> list[Layer]:
  """A print that was moulded: wet paper, card pulp or a thermoformed sheet, worn or held up."""
  static = take.static
  model, pose = take.other(2), take.pose()
  shape = Shape(static.uniform(3, 9), static.uniform(0.45, 1.0))
  layer, seen = _printed_shell(take, model, shape, pose, static.uniform(6, 14), 'paper',
                               Ink.draw(static))  # fmt: skip
  _trim(take, layer, seen, static.uniform(1.0, 1.5), static.uniform(-100, -70), _eyes(static, 0.5))
  if static.random() < 0.6:
    return [materials.over(layer, living(take, take.subject, pose), SIZE)]
  full = Layer(np.zeros((16, SIZE, SIZE), np.float32))
  full['z'] = _INF
  front = materials.over(layer, [full], SIZE)
  sheet = sheets.Sheet(pose.turn, pose.place + pose.turn @ [0, FACE_Y, -60.0])
  return [front, *_holder(take, sheet, (95, 130))]


def print_on_mannequin(take: Take) -> list[Layer]:
  """A printed face before a mannequin's head: wrapped round it, or a curved sheet on its nose."""
  static, pose = take.static, dataclasses.replace(take.pose(), expression=heads.STILL)
  behind, doll = _doll(take, pose, take.other(3))
  if static.random() < 0.6:
    model = take.other(2)
    shape = Shape(0.0, static.uniform(0.3, 0.8), facets=int(static.integers(9, 16)))
    layer, seen = _printed_shell(take, model, shape, pose, static.uniform(8, 15), 'paper',
                                 Ink.draw(static))  # fmt: skip
    _trim(take, layer, seen, static.uniform(0.9, 1.4), static.uniform(-100, -75), None)
  else:
    _, tip = heads.places(doll)
    place = pose.place + pose.turn @ [0, FACE_Y, tip[2] - static.uniform(0, 4)]
    sheet = sheets.Sheet(pose.turn, place, 1 / static.uniform(75, 120), static.uniform(0, 0.3),
                         sheets.waves(static, 2.0))  # fmt: skip
    layer, where = sheets.printed(
      sheet, take.rays, photo(take.other(2), 0, True), _paper(static), Ink.draw(static),
      static.uniform(0.97, 1.05), (120, 150),
    )  # fmt: skip
    outline = (where[0] > 900) | (where[1] < -90)
    layer['z'] = np.where(outline, _INF, layer['z'])
  for part in behind:
    part['face'] = 0
  return [materials.over(layer, behind, SIZE)]


def _painted_mask(take, substance, blur, forward, follow, craft, eyes):
  """A mask of one substance over the wearer's face, painted by hand."""
  static, model, pose = take.static, take.other(2), take.pose()
  expression = follow * pose.expression
  seen = see(model, Shape(blur), pose, take.camera, forward, expression)
  on = features(model, seen, pose, expression)
  layer = substances.painted(model, seen, on, substances.piece(substance, static), craft, static)
  _trim(take, layer, seen, static.uniform(1.2, 1.7), static.uniform(-104, -78), eyes)
  return [materials.over(layer, living(take, take.subject, pose), SIZE)]


def _full_colour_mask(take, substance, blur, forward, eyes):
  """A mask with a photo in or on its surface: printed in full colour, or by water transfer."""
  static, model, pose = take.static, take.other(2), take.pose()
  layer, seen = _printed_shell(take, model, Shape(blur), pose, forward, substance, Ink.draw(static))
  _trim(take, layer, seen, static.uniform(1.1, 1.5), static.uniform(-104, -78), eyes)
  return [materials.over(layer, living(take, take.subject, pose), SIZE)]


def mask_resin(take: Take) -> list[Layer]:
  """Cast or 3D printed resin, airbrushed, or with a photo transferred to it."""
  static = take.static
  forward, eyes = static.uniform(6, 13), _eyes(static, 0.8)
  if static.random() < 0.4:
    return _full_colour_mask(take, 'resin', static.uniform(1.5, 3), forward, eyes)
  craft = static.uniform(0, 0.7)
  return _painted_mask(take, 'resin', static.uniform(1.5, 3), forward, 0.0, craft, eyes)


def mask_plaster(take: Take) -> list[Layer]:
  """Gypsum powder, printed in full colour."""
  static = take.static
  return _full_colour_mask(
    take, 'plaster', static.uniform(1, 2.5), static.uniform(6, 13), _eyes(static, 0.7)
  )


def mask_plastic(take: Take) -> list[Layer]:
  """Vacuum formed plastic, painted."""
  static = take.static
  craft = static.uniform(0, 0.4)
  return _painted_mask(
    take, 'plastic', static.uniform(2.5, 5), static.uniform(8, 14), 0.0, craft, _eyes(static, 0.8)
  )


def mask_silicone(take: Take) -> list[Layer]:
  """Silicone, coloured through, often with punched hair; it moves with the wearer."""
  static = take.static
  craft = static.uniform(0.3, 1.0)
  return _painted_mask(
    take, 'silicone', static.uniform(0.8, 2), static.uniform(3, 8), static.uniform(0.3, 0.8), craft,
    _eyes(static, 1.0),
  )  # fmt: skip


def mask_latex(take: Take) -> list[Layer]:
  """Latex, painted; looser than silicone."""
  static = take.static
  craft = static.uniform(0.1, 0.8)
  return _painted_mask(
    take, 'latex', static.uniform(1.5, 3), static.uniform(4, 10), static.uniform(0.1, 0.4), craft,
    _eyes(static, 1.0),
  )  # fmt: skip


def mask_textile(take: Take) -> list[Layer]:
  """A knitted hood with a printed face, stretched over the wearer's own relief."""
  static, model, pose = take.static, take.other(2), take.pose()
  # The cloth spans the hollows: relief of the wearer, colours of the model.
  own = dataclasses.replace(model, coefficients=take.subject.coefficients)
  shape = Shape(static.uniform(5, 10), static.uniform(0.6, 0.95))
  layer, seen = _printed_shell(
    take, own, shape, pose, static.uniform(3, 7), 'textile', Ink.draw(static), 0.6 * pose.expression
  )
  substances.weave(layer, seen, static.uniform(0.05, 0.25))
  _trim(take, layer, seen, 1.75, -140, _eyes(static, 0.85))
  return [materials.over(layer, living(take, take.subject, pose), SIZE)]


def mask_paper(take: Take) -> list[Layer]:
  """A face printed on paper, cut out and folded round the head."""
  static, model, pose = take.static, take.other(2), take.pose()
  shape = Shape(0.0, static.uniform(0.4, 1.0), facets=int(static.integers(10, 18)))
  layer, seen = _printed_shell(take, model, shape, pose, static.uniform(9, 14), 'paper',
                               Ink.draw(static))  # fmt: skip
  _trim(take, layer, seen, static.uniform(1.0, 1.4), static.uniform(-100, -80), _eyes(static, 0.6))
  return [materials.over(layer, living(take, take.subject, pose), SIZE)]


def _doll(take, pose, model):
  """A mannequin's head and what it stands on; the subject that it is made after."""
  static = take.static
  dressed = static.random() < 0.6
  model = dataclasses.replace(
    model, headwear=str(static.choice(['', 'beanie', 'scarf'])) if dressed else '',
    hair=model.hair if dressed else 'bald',
  )  # fmt: skip
  seen = see(model, Shape(1.8, hair=True), pose, take.camera)
  on = features(model, seen, pose)
  layer = substances.painted(
    model, seen, on, substances.piece('mannequin', static), static.uniform(0, 0.6), static
  )
  hair = seen.texture[3]
  dark = np.float32(model.cloth_rgb if model.headwear else model.hair_rgb)[:, None, None]
  layer['albedo'] = materials.mix(
    layer['albedo'], dark * np.clip(1 + 0.35 * seen.texture[2], 0.3, 2), hair
  )
  fibre = model.cloth_ir if model.headwear else static.uniform(0.2, 0.6)
  layer['ir'] = materials.mix(layer['ir'], fibre, hair)
  layer['gloss'] *= 1 - 0.5 * hair
  layers = [layer]
  if not take.rig.black_outside:
    stand = surroundings.body(dataclasses.replace(model, hair='short'), take.rays, pose.place, 0)
    neck = materials.coat(
      substances.piece('mannequin', static), stand[0]['z'], stand[0]['normal'], stand[0].window
    )
    neck['albedo'] = np.float32(np.median(layer['albedo'].reshape(3, -1), 1))[:, None, None]
    layers += [neck, *(stand[1:] if static.random() < 0.6 else [])]
  return layers, model


def mannequin(take: Take) -> list[Layer]:
  """A mannequin's head, painted, with or without hair, hat and glasses."""
  pose = dataclasses.replace(take.pose(), expression=heads.STILL, lids=0.9)
  layers, model = _doll(take, pose, take.other(2))
  if take.static.random() < 0.2:
    layers.append(_glasses(dataclasses.replace(take, subject=model), pose, layers[0]))
  return layers


def funny_eye_glasses(take: Take) -> list[Layer]:
  """A living face behind novelty glasses with eyes on their discs."""
  static, pose = take.static, take.pose()
  layers = living(take, take.subject, pose)
  z, normal, right, down, lens = _on_nose(take.subject, pose, take.rays, 21)
  rgb = tuple((static.uniform(0.02, 0.6) * static.uniform(0.3, 1, 3)).tolist())
  frame = Material(rgb, static.uniform(0.2, 0.7), 0.25, 60)
  present = (lens < 1.22) | ((np.abs(right) < 12) & (np.abs(down + 2) < 4))
  present |= (np.abs(right) > 53) & (np.abs(right) < 72) & (np.abs(down + 6) < 4)
  layer = materials.coat(frame, np.where(present, z, _INF), normal)
  disc = lens < 1.0
  white = static.uniform(0.5, 0.82)
  colour = materials.mix(layer['albedo'], (white, 0.98 * white, 0.93 * white), disc)
  ir = materials.mix(layer['ir'], static.uniform(0.4, 0.8), disc)
  iris_rgb = tuple(static.uniform(0.05, 0.5, 3).tolist())
  gaze = static.normal(0, 3, 2).tolist()
  size = static.uniform(0.7, 1.1)
  r = np.hypot(np.abs(right) - EYE_X - 2 - gaze[0], down - gaze[1]) / size
  colour = materials.mix(colour, iris_rgb, disc * ramp(r, 11.5, 10))
  ir = materials.mix(ir, 0.6, disc * ramp(r, 11.5, 10))
  colour = materials.mix(colour, (0.02, 0.02, 0.02), disc * ramp(r, 5.5, 4.5))
  layer['albedo'], layer['ir'] = colour, materials.mix(ir, 0.25, disc * ramp(r, 5.5, 4.5))
  return [layer, *layers]


def paper_glasses(take: Take) -> list[Layer]:
  """A living face with a strip of another printed face over its eyes."""
  static, pose = take.static, take.pose()
  layers = living(take, take.subject, pose)
  eyes, tip = heads.places(take.subject)
  place = pose.place + pose.turn @ [0, FACE_Y, 0.35 * eyes[0, 2] + 0.65 * tip[2]]
  sheet = sheets.Sheet(pose.turn, place, 1 / static.uniform(90, 200), static.uniform(0, 0.2))
  paper, ink = _paper(static), Ink.draw(static)
  layer, where = sheets.printed(
    sheet, take.rays, photo(take.other(2), 0, True), paper, ink, 1.0, (200, 200)
  )
  x, y = where[:2]
  keep = (np.abs(y + 3) < static.uniform(18, 27)) & (np.abs(x) < static.uniform(52, 66))
  keep &= ~((np.abs(x) < 11) & (y > 6))  # notch for the nose
  layer['z'] = np.where(keep, layer['z'], _INF)
  return [layer, *layers]


def half_mask(take: Take) -> list[Layer]:
  """A piece of a mask over the lower or the upper half of a living face."""
  static, model, pose = take.static, take.other(2), take.pose()
  substance = str(static.choice(['silicone', 'resin', 'textile', 'paper']))
  forward, lower = static.uniform(3, 8), static.random() < 0.5
  if substance in ('silicone', 'resin'):
    seen = see(model, Shape(2.0), pose, take.camera, forward)
    on = features(model, seen, pose)
    layer = substances.painted(
      model, seen, on, substances.piece(substance, static), static.uniform(0.3, 1), static
    )
  else:
    shape = Shape(static.uniform(3, 8), static.uniform(0.5, 0.9))
    layer, seen = _printed_shell(take, model, shape, pose, forward, substance, Ink.draw(static))
  edge = static.uniform(18, 34)
  _trim(take, layer, seen, static.uniform(1.1, 1.5), -95, None if lower else _eyes(static, 1.0))
  y = seen.canonical[1]
  layer['z'] = np.where(y < edge if lower else y > edge + 12, _INF, layer['z'])
  return [materials.over(layer, living(take, take.subject, pose), SIZE)]


def fake_nose(take: Take) -> list[Layer]:
  """A nose, or nose and chin, of silicone or latex, glued on a living face and painted."""
  static, pose = take.static, take.pose()
  large = take.other(2)
  substance = str(static.choice(['silicone', 'latex']))
  expression = 0.5 * pose.expression
  seen = see(large, Shape(1.5), pose, take.camera, static.uniform(6, 12), expression)
  on = features(large, seen, pose, expression)
  model = dataclasses.replace(large, tone=take.subject.tone, redness=take.subject.redness)
  layer = substances.painted(
    model, seen, on, substances.piece(substance, static), static.uniform(0.5, 1), static
  )
  x, y, _, _ = seen.canonical
  piece = np.hypot(x / (12 + 0.28 * np.clip(y, 0, 60)), (y - 32) / 30) < 1
  if static.random() < 0.5:
    piece |= np.hypot(x / 30, (y - 100) / 17) < 1
  layer['z'] = np.where(piece, layer['z'], _INF)
  return [layer, *living(take, take.subject, pose)]


def makeup(take: Take) -> list[Layer]:
  """A living face that feigns another one, or another age, with paint."""
  static, pose = take.static, take.pose()
  seen = see(take.subject, LIVING, pose, take.camera, 0, pose.expression)
  on = features(take.subject, seen, pose, pose.expression)
  layer = substances.living(take.subject, seen, on, float(pose.expression[0]))
  contour = static.uniform(0.5, 1.0) * static.choice([-1, 1])
  substances.make_up(
    layer, take.subject, on, seen, static.uniform(0.4, 1), static.uniform(0.5, 1), contour
  )
  return [layer, *living(take, take.subject, pose)[1:]]


def render_video(video: Video) -> list[tuple[str, dict]]:
  """The examples of one video: (key, example) of each frame."""
  recorded = scene.draw(video)
  category, make = domains.CATEGORY.get(video.species, ''), MAKERS[video.species]
  return [
    render.example(
      video, category, frame, scene.take(recorded, frame, make), recorded.settings.jpeg
    )
    for frame in range(video.frames)
  ]


MAKERS = {
  '': live,
  **dict.fromkeys(
    (
      'eyes_flat', 'eyes_curved', 'eyes_nose_flat', 'eyes_nose_curved', 'eyes_nose_mouth_flat',
      'eyes_nose_mouth_curved',
    ),
    cut_photo,
  ),
  **{
    maker.__name__: maker
    for maker in (
      print_flat, print_curved, print_moulded, print_on_mannequin, replay, mask_paper, mask_resin,
      mask_plaster, mask_plastic, mask_silicone, mask_latex, mask_textile, mannequin,
      funny_eye_glasses, paper_glasses, half_mask, fake_nose, makeup,
    )
  },
}  # fmt: skip
