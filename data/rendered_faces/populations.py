"""Contents of version 1 of the rendered sets: configs, splits, subjects, species, videos, frames.

Nothing is drawn here: a plan is a list of `Video`, each with all that rendering needs, and the
same name always gives the same plan.
"""

import dataclasses
import re

# Each species, and its category in the vocabulary that all data sets share.
CATEGORY = {
  'eyes_flat': 'cut_photo',
  'eyes_curved': 'cut_photo',
  'eyes_nose_flat': 'cut_photo',
  'eyes_nose_curved': 'cut_photo',
  'eyes_nose_mouth_flat': 'cut_photo',
  'eyes_nose_mouth_curved': 'cut_photo',
  'print_indoor': 'print',
  'print_outdoor': 'print',
  'print_matte': 'print',
  'print_glossy': 'print',
  'replay': 'replay',
  'replay_phone': 'replay',
  'replay_tablet': 'replay',
  'paper_mask': 'papermask',
  'resin_mask': 'rigidmask',
  'plastic_mask': 'rigidmask',
  'silicone_mask': 'flexiblemask',
  'latex_mask': 'flexiblemask',
  'mannequin': 'fakehead',
  'funny_eye_glasses': 'glasses',
  'paper_glasses': 'glasses',
}


@dataclasses.dataclass(frozen=True)
class Video:
  """One recording: a subject (or an attack that imitates one) before one camera."""

  dataset: str  # config without its size: surf_like, cefa_like, wmca_like
  subject: str  # surf_like/s0012
  name: str  # surf_like/s0012/v3
  species: str  # '' for bona fide
  frames: int
  group: str  # ethnicity field; '' where the data set has no groups
  identity: tuple[int, ...]  # seed of `head.draw_identity`
  seed: tuple[int, ...]  # seed of the recording


@dataclasses.dataclass(frozen=True)
class Block:
  """Subjects of one split that are recorded in the same way."""

  subjects: int
  tiny: int  # how many of them in the size `tiny`
  live: int  # bona fide videos of each
  attacks: int  # attack videos of each, taken in turn from `species`
  species: tuple[str, ...]
  frames_attack: int = 2
  frames_live: int = 3


_SURF = (
  'eyes_flat',
  'eyes_nose_curved',
  'eyes_nose_mouth_flat',
  'eyes_curved',
  'eyes_nose_flat',
  'eyes_nose_mouth_curved',
)
_CEFA = ('print_indoor', 'print_outdoor', 'replay')
_WMCA = (
  'print_matte',
  'replay_phone',
  'paper_mask',
  'plastic_mask',
  'silicone_mask',
  'mannequin',
  'funny_eye_glasses',
  'print_glossy',
  'replay_tablet',
  'paper_mask',
  'resin_mask',
  'latex_mask',
  'mannequin',
  'paper_glasses',
)
_BLOCKS = {
  'surf_like': {
    'train': (Block(56, 3, 2, 4, _SURF),),
    'val': (Block(19, 2, 2, 4, _SURF),),
    'test': (Block(37, 2, 2, 4, _SURF),),
  },
  'cefa_like': {
    'train': (Block(39, 3, 2, 3, _CEFA),),
    'val': (Block(15, 3, 2, 3, _CEFA),),
    'test': (Block(30, 3, 2, 3, _CEFA),),
    # As in CeFA, 3D masks are a part of their own that nothing is trained on; without bona fide.
    'masks': (
      Block(12, 1, 0, 3, ('resin_mask',)),
      Block(6, 1, 0, 3, ('silicone_mask',)),
    ),
  },
  'wmca_like': {'test': (Block(36, 4, 2, 4, _WMCA, frames_attack=3),)},
}
GROUPS = ('group_a', 'group_b', 'group_c')
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
      f'rendered_faces has no config v1_{name}. Choices: {", ".join("v1_" + d for d in DATASETS)}, '
      'each also with _tiny (a few subjects) or _xN (N times as many, N = 2, 3, ...) appended'
    )
  return match['dataset'], 0 if match['tiny'] else int(match['times'] or 1)


def plan(name: str) -> dict[str, list[Video]]:
  """All videos of a config, by split; those of one subject follow each other.

  Args:
    name: config name, with its size: surf_like, surf_like_tiny, surf_like_x4.
  """
  dataset, times = parse(name)
  number = 0  # runs through all splits: no subject is in two of them
  splits = {}
  for split, blocks in _BLOCKS[dataset].items():
    videos = splits[split] = []
    for block in blocks:
      turn = 0
      for i in range(block.subjects * times if times else block.tiny):
        subject = f'{dataset}/s{number:04d}'
        identity = (DATASETS.index(dataset), number)
        species = [''] * block.live
        species += [block.species[(turn + k) % len(block.species)] for k in range(block.attacks)]
        turn += block.attacks
        for k, kind in enumerate(species):
          videos.append(
            Video(
              dataset=dataset,
              subject=subject,
              name=f'{subject}/v{k}',
              species=kind,
              frames=block.frames_attack if kind else block.frames_live,
              group=GROUPS[i % len(GROUPS)] if dataset == 'cefa_like' else '',
              identity=identity,
              seed=(*identity, k),
            )
          )
        number += 1
  return splits
