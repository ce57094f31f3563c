"""CASIA-SURF CeFA in miniature, in its current and its older layout."""

import itertools
from pathlib import Path

from tests.miniatures.flexmodal import CEFA_CLIPS, save

RACES = {'AF': 1, 'CA': 2, 'EA': 3}
NUMBERS = {'train': ('000', '199'), 'val': ('200',), 'test': ('300', '499')}
MASKS = {
  '3D-Mask/001/1_001_0_0_2_1_3': 'rigidmask',
  '3D-Mask/002/1_002_1_1_2_2_1': 'rigidmask',
  'Silicone-Mask/001/2_001_1_0_2_1_4': 'flexiblemask',
}
FRAMES = ('0001', '0002')


def clips() -> list[tuple[str, str]]:
  """(clip's folder below Ethnicity, category) of the 2D part: 60 clips."""
  return [
    (f'{race}/{race}-{number}/{first}_{number}_{clip}', category)
    for race, first in RACES.items()
    for number in itertools.chain.from_iterable(NUMBERS.values())
    for clip, category in CEFA_CLIPS.items()
  ]


def write_ethnicity(root: Path) -> None:
  """Writes the current layout, below CASIA_CeFA: Ethnicity and Mask, RGB in color; 126 triplets."""
  _write(root / 'CASIA_CeFA', 'Ethnicity', 'Mask', 'color')


def write_cefa_race(root: Path) -> None:
  """Writes the older layout: CeFA-Race and CeFA-Mask, RGB in profile; 126 triplets."""
  _write(root, 'CeFA-Race', 'CeFA-Mask', 'profile')


def _write(root: Path, flat: str, masks: str, rgb: str) -> None:
  some = [(f'{flat}/{clip}', category) for clip, category in clips()]
  some += [(f'{masks}/{clip}', category) for clip, category in MASKS.items()]
  for number, ((clip, category), frame) in enumerate(itertools.product(some, FRAMES)):
    kinds = {'rgb': rgb, 'depth': 'depth', 'ir': 'ir'}
    files = {modality: f'{clip}/{kind}/{frame}.jpg' for modality, kind in kinds.items()}
    save(root, files, category, number, sizes=(48, 48, 48), grey=())


def write_protocol(folder: Path) -> None:
  """Writes the lists of protocol 1.1 (train on AF) of the release, and 4@1 of the challenge.

  The release names the folders of videos and has 0 for live; the challenge names pictures of
  train, has 1 for live, and hides behind numbers which videos the others are of.
  """
  folder.mkdir(parents=True)
  parts = {'train': ('train', 'AF'), 'dev': ('val', 'AF'), 'test': ('test', 'CA EA')}
  for part, (split, races) in parts.items():
    lines = [
      f'CASIA_CeFA/Ethnicity/{clip}/color {int(bool(category))}\n'
      for clip, category in clips()
      if clip[:2] in races and clip.split('-')[1][:3] in NUMBERS[split]
    ]
    if part == 'test':
      lines += [f'CASIA_CeFA/Mask/{clip}/color 1\n' for clip in MASKS]
    (folder / f'CASIA_CeFA@p1.1_video_{part}.txt').write_text(''.join(lines))
  train = [
    f'train/{clip.rpartition("/")[2]}/profile/{frame}.jpg {int(not category)}\n'
    for clip, category in clips()
    if clip.startswith('AF/AF-000') and category != 'print'
    for frame in FRAMES
  ]
  (folder / '4@1_train.txt').write_text(''.join(train))
  (folder / '4@1_dev_res.txt').write_text('dev/003000\ndev/003001\n')
