"""The four domains of version 2: sensors, populations, lights, attacks, splits.

Nothing is drawn here. README.md gives the physics behind each number.
"""

import dataclasses
import re

from flexfas_jax.data.rendered_faces.populations import Video
from flexfas_jax.data.rendered_faces.v2.heads import Population

# Each species, and its category in the vocabulary that all data sets share.
CATEGORY = {
  'eyes_flat': 'cut_photo',
  'eyes_curved': 'cut_photo',
  'eyes_nose_flat': 'cut_photo',
  'eyes_nose_curved': 'cut_photo',
  'eyes_nose_mouth_flat': 'cut_photo',
  'eyes_nose_mouth_curved': 'cut_photo',
  'print_flat': 'print',
  'print_curved': 'print',
  'print_moulded': 'print',
  'print_on_mannequin': 'print',
  'replay': 'replay',
  'mask_paper': 'papermask',
  'mask_resin': 'rigidmask',
  'mask_plaster': 'rigidmask',
  'mask_plastic': 'rigidmask',
  'mask_silicone': 'flexiblemask',
  'mask_latex': 'flexiblemask',
  'mask_textile': 'flexiblemask',
  'mannequin': 'fakehead',
  'funny_eye_glasses': 'glasses',
  'paper_glasses': 'glasses',
  'half_mask': 'other',
  'fake_nose': 'other',
  'makeup': 'makeup',
}


@dataclasses.dataclass(frozen=True)
class Rig:
  """The sensors of a domain, where they stand, and the light there."""

  rgb_size: int
  depth_size: int
  ir_size: int
  crop: tuple[float, float]  # height of the image at the face, mm
  distance: tuple[float, float]  # of the face, mm
  yaw: float  # standard deviations, degrees
  pitch: float
  roll: float
  outdoor: float  # share of recordings in daylight
  hard: float  # share of recordings with one strong lamp
  black_outside: bool  # everything but the face is set to 0
  blur: float  # of the lens, pixels
  sharpen: float  # what the camera's processing adds of the difference to a blurred image
  shot: float  # noise variance per unit of light
  read: float  # noise of the dark, linear
  jpeg: int
  depth_kind: str  # structured, stereo or tof
  depth_bits: int  # 16: millimetres; 8: a visualisation
  depth_noise: float  # mm at 500 mm on a surface of reflectance 0.5
  depth_step: float  # quantisation, mm at 500 mm
  depth_range: float  # mm; nothing is measured beyond
  baseline: float  # projector or second camera to camera, mm
  ir_target: float  # level that the exposure control of the infrared camera aims at
  ir_control: float  # share of the deviation (in logarithms) that it removes
  ir_gamma: float
  ir_noise: float


RIGS = {
  'surf_like': Rig(
    rgb_size=112, depth_size=96, ir_size=96, crop=(208, 230), distance=(380, 700),
    yaw=11, pitch=7, roll=4, outdoor=0.0, hard=0.15, black_outside=True,
    blur=0.65, sharpen=0.3, shot=3.0e-4, read=0.004, jpeg=92,
    depth_kind='structured', depth_bits=8, depth_noise=0.9, depth_step=0.5, depth_range=1500,
    baseline=26, ir_target=0.36, ir_control=0.6, ir_gamma=0.75, ir_noise=0.010,
  ),
  'cefa_like': Rig(
    rgb_size=112, depth_size=112, ir_size=112, crop=(225, 265), distance=(450, 850),
    yaw=9, pitch=6, roll=4, outdoor=0.3, hard=0.2, black_outside=False,
    blur=0.6, sharpen=0.5, shot=2.0e-4, read=0.003, jpeg=90,
    depth_kind='stereo', depth_bits=16, depth_noise=1.0, depth_step=0.4, depth_range=4000,
    baseline=50, ir_target=0.30, ir_control=0.8, ir_gamma=0.85, ir_noise=0.014,
  ),
  'wmca_like': Rig(
    rgb_size=104, depth_size=100, ir_size=100, crop=(220, 260), distance=(420, 680),
    yaw=7, pitch=6, roll=3, outdoor=0.0, hard=0.2, black_outside=False,
    blur=0.8, sharpen=0.1, shot=4.5e-4, read=0.006, jpeg=85,
    depth_kind='structured', depth_bits=16, depth_noise=1.4, depth_step=1.0, depth_range=1600,
    baseline=26, ir_target=0.45, ir_control=0.3, ir_gamma=0.65, ir_noise=0.020,
  ),
  'padisi_like': Rig(
    rgb_size=112, depth_size=88, ir_size=104, crop=(215, 255), distance=(550, 950),
    yaw=8, pitch=5, roll=3, outdoor=0.1, hard=0.2, black_outside=False,
    blur=0.55, sharpen=0.2, shot=1.5e-4, read=0.002, jpeg=94,
    depth_kind='tof', depth_bits=16, depth_noise=1.2, depth_step=1.0, depth_range=3000,
    baseline=12, ir_target=0.34, ir_control=0.9, ir_gamma=1.0, ir_noise=0.008,
  ),
}  # fmt: skip

_MIXED = Population((0.05, 0.95), (0.0, 0.9), 1, 0.22, 0.08, 0.5, 0.4)
POPULATIONS = {
  'surf_like': Population((0.1, 0.6), (0.05, 0.6), 2, 0.25, 0.06, 0.35, 0.4),
  'cefa_like': _MIXED,  # its groups are below
  'wmca_like': Population((0.0, 0.6), (0.1, 1.0), 3, 0.35, 0.10, 0.6, 0.3),
  'padisi_like': _MIXED._replace(shift=4, headwear=0.12),
}
GROUPS = {
  'group_a': Population((0.6, 1.0), (0.0, 0.8), 5, 0.15, 0.10, 0.5, 0.3),
  'group_b': Population((0.25, 0.6), (0.0, 0.8), 6, 0.25, 0.05, 0.3, 0.4),
  'group_c': Population((0.0, 0.35), (0.0, 0.8), 7, 0.20, 0.08, 0.6, 0.4),
}

# A list names a species as often as it is recorded relative to the others. The four materials of
# masks that are trained on are in both of the first domains: each can be left out.
_SURF = (
  'eyes_flat', 'mask_resin', 'eyes_nose_curved', 'mask_silicone', 'eyes_nose_mouth_flat',
  'mask_textile', 'print_moulded', 'mask_plaster', 'eyes_curved', 'mask_silicone',
  'eyes_nose_flat', 'print_moulded', 'eyes_nose_mouth_curved', 'mask_resin', 'print_on_mannequin',
  'mask_textile',
)  # fmt: skip
_CEFA = (
  'print_flat', 'mask_plaster', 'print_moulded', 'mask_silicone', 'replay', 'mask_resin',
  'print_curved', 'mask_textile', 'print_on_mannequin', 'mask_silicone', 'print_moulded',
  'mask_plaster',
)  # fmt: skip
_CEFA_UNSEEN = ('mask_latex', 'mask_paper', 'mask_plastic')
_WMCA = (
  'print_flat', 'mask_silicone', 'mannequin', 'mask_paper', 'funny_eye_glasses', 'mask_latex',
  'replay', 'mask_resin', 'print_curved', 'mask_plastic', 'paper_glasses', 'makeup',
  'mask_silicone', 'mask_latex', 'mannequin', 'print_moulded', 'mask_paper',
)  # fmt: skip
_PADISI = (
  'print_curved', 'mask_silicone', 'half_mask', 'makeup', 'mannequin', 'replay', 'mask_plaster',
  'fake_nose', 'mask_latex', 'funny_eye_glasses', 'mask_resin', 'print_moulded', 'mask_plastic',
)  # fmt: skip

FRAMES = 3  # of every video
_LIVE, _ATTACKS = 2, 4  # videos of each subject


@dataclasses.dataclass(frozen=True)
class Block:
  """Subjects of one split: how many, how many in the size `tiny`, and their attacks."""

  subjects: int
  tiny: int
  species: tuple[str, ...]
  live: int = _LIVE


_BLOCKS = {
  'surf_like': {
    'train': Block(45, 3, _SURF),
    'val': Block(15, 2, _SURF),
    'test': Block(30, 2, _SURF),
  },
  'cefa_like': {
    'train': Block(39, 3, _CEFA),
    'val': Block(15, 2, _CEFA),
    'test': Block(30, 3, _CEFA),
    'masks': Block(18, 1, _CEFA_UNSEEN, live=0),
  },
  'wmca_like': {
    'train': Block(24, 1, _WMCA),
    'val': Block(9, 1, _WMCA),
    'test': Block(30, 3, _WMCA),
  },
  'padisi_like': {
    'train': Block(24, 1, _PADISI),
    'val': Block(9, 1, _PADISI),
    'test': Block(24, 2, _PADISI),
  },
}
DATASETS = tuple(_BLOCKS)
_NAME = re.compile(r'(?P<dataset>\w+?)(_(?P<tiny>tiny)|_x(?P<times>[1-9]\d*))?')


def parse(name: str) -> tuple[str, int]:
  """Splits a config's name: 'surf_like_x4' -> ('surf_like', 4), '.._tiny' -> (.., 0).

  Raises:
    ValueError: an unknown name; the message lists the known ones.
  """
  match = _NAME.fullmatch(name)
  if match is None or match['dataset'] not in DATASETS:
    raise ValueError(
      f'rendered_faces has no config {name!r}. Choices: {", ".join(DATASETS)}, each also with '
      '_tiny (a few subjects) or _xN (N times as many, N = 2, 3, ...) appended; v1_surf_like, ... '
      'are of version 1'
    )
  return match['dataset'], 0 if match['tiny'] else int(match['times'] or 1)


def population(video: Video) -> Population:
  """The population that a video's subject belongs to."""
  return GROUPS[video.group] if video.group else POPULATIONS[video.dataset]


def plan(name: str) -> dict[str, list[Video]]:
  """All videos of a config, by split; those of one subject follow each other.

  Args:
    name: config name, with its size: surf_like, surf_like_tiny, surf_like_x4.
  """
  dataset, times = parse(name)
  number = 0  # runs through all splits: no subject is in two of them
  splits = {}
  for split, block in _BLOCKS[dataset].items():
    videos = splits[split] = []
    turn = 0
    for i in range(block.subjects * times if times else block.tiny):
      # Subjects are h0000, ...: those of version 1 are s0000, ... and other population.
      subject = f'{dataset}/h{number:04d}'
      identity = (DATASETS.index(dataset), number)
      species = [''] * block.live
      species += [block.species[(turn + k) % len(block.species)] for k in range(_ATTACKS)]
      turn += _ATTACKS
      for k, kind in enumerate(species):
        videos.append(
          Video(
            dataset=dataset,
            subject=subject,
            name=f'{subject}/v{k}',
            species=kind,
            frames=FRAMES,
            group=tuple(GROUPS)[i % len(GROUPS)] if dataset == 'cefa_like' else '',
            identity=identity,
            seed=(*identity, k),
          )
        )
      number += 1
  return splits
