"""What the FlexModal benchmark is run on, in miniature: three exports and their protocol lists.

CASIA-SURF-CROP/{real,fake}_part/{real,fake}_{train,val,test}_part/CLKJ_*/*.rssdk/color/1.jpg
CeFA/CeFA-Race/AF/AF-000/1_000_1_1_1/profile/0026.jpg
CeFA/CeFA-Mask/{3D-Mask,Silicone-Mask}/001/.../profile/0001.jpg
WMCA-Image/R_CDIT/001_01_000_0_00/color/0012.jpg
Protocols/*.txt, as published: CRLF, and no end of the last line in the four main ones
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.miniatures import faces

SPECIES = ('01_e_s', '02_e_b', '03_en_s', '04_en_b', '05_enm_s', '06_enm_b')
SURF_SUBJECTS = {
  'train': ('CLKJ_AS0005', 'CLKJ_BS0049'),
  'val': ('CLKJ_AS0010', 'CLKJ_BS0060'),
  'test': ('CLKJ_AS0002', 'CLKJ_BS0151'),
}
CEFA_NUMBERS = {'train': '000', 'val': '200', 'test': '300'}  # one person each of AF and CA
CEFA_CLIPS = {'1_1_1': '', '3_1_2': 'print', '3_2_2': 'print', '3_1_4': 'replay'}
WMCA_VIDEOS = {
  'bona_fide': ('001_01_000_0_00', '002_02_000_0_01', '003_03_000_0_02'),
  'fakehead': ('501_01_000_2_02', '502_01_017_2_03'),
  'flexiblemask': ('001_01_000_2_80', '002_01_009_2_18'),
  'glasses': ('512_01_008_1_01', '001_04_001_1_04'),
  'papermask': ('001_01_000_2_08', '100_03_015_2_10'),
  'print': ('001_01_000_3_01', '002_01_024_3_12'),
  'replay': ('001_01_000_3_05', '003_01_000_4_18'),
  'rigidmask': ('001_01_014_2_12', '101_06_067_1_02'),
}
MAIN = (*(f'CASIA-SURF_CeFA_{split}.txt' for split in ('train', 'val', 'test')), 'WMCA_test.txt')
# Depth and infrared have other frames there than colour, if the faults are asked for.
MISMATCHED = ('100_03_015_2_10', '101_06_067_1_02')

EXPORTS = ('CASIA-SURF-CROP', 'CeFA', 'WMCA-Image')

Row = tuple[str, str, str, str]  # rgb, depth, ir, label: 1 is live


def rows(faults: bool = False) -> dict[str, list[Row]]:
  """The rows of every list, by its name.

  Args:
    faults: as published: a triplet of the only frame of its video three times, twice in train
      (CASIA-SURF) and twice in test (CASIA-SURF, CeFA's silicone masks); a frame of AF-300, who is
      in test, in val.
  """
  found = {}
  times = 3 if faults else 1
  for split, subjects in SURF_SUBJECTS.items():
    found[f'CASIA-SURF_CeFA_{split}.txt'] = some = []
    for subject, clip in itertools.product(subjects, ('real', *SPECIES)):
      part = 'real' if clip == 'real' else 'fake'
      folder = f'CASIA-SURF-CROP/{part}_part/{part}_{split}_part/{subject}/{clip}.rssdk'
      single = split != 'val' and (subject, clip) == (subjects[1], '02_e_b')
      frames = [121] * times if single else [1, 121]
      some += [_row(folder, 'color', f'{frame}', clip == 'real') for frame in frames]
    for (race, first), clip in itertools.product((('AF', 1), ('CA', 2)), CEFA_CLIPS):
      number = CEFA_NUMBERS[split]
      folder = f'CeFA/CeFA-Race/{race}/{race}-{number}/{first}_{number}_{clip}'
      frames = ('0026', '0051')
      some += [_row(folder, 'profile', frame, not CEFA_CLIPS[clip]) for frame in frames]
  masks = [('3D-Mask/001/1_001_0_0_2_1_3', ['0003']), ('3D-Mask/002/1_002_1_1_2_2_1', ['0001'])]
  masks.append(('Silicone-Mask/001/2_001_1_0_2_1_4', ['0001'] * times))
  for folder, frames in masks:
    some += [_row(f'CeFA/CeFA-Mask/{folder}', 'profile', frame, False) for frame in frames]
  if faults:
    leak = _row('CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1', 'profile', '0026', True)
    found['CASIA-SURF_CeFA_val.txt'].append(leak)
  found['WMCA_test.txt'] = some = []
  for category, videos in WMCA_VIDEOS.items():
    of_kind = [
      _row(f'WMCA-Image/R_CDIT/{video}', 'color', frame, category == 'bona_fide')
      for video, frame in itertools.product(videos, ('0012', '0024'))
    ]
    some += of_kind
    if category != 'bona_fide':
      found[f'WMCA_test_{category}.txt'] = of_kind
  return found


def _row(folder: str, rgb: str, frame: str, live: bool) -> Row:
  return (*(f'{folder}/{kind}/{frame}.jpg' for kind in (rgb, 'depth', 'ir')), str(int(live)))


def write(root: Path, faults: bool = False, exports: Iterable[str] = EXPORTS) -> None:
  """Writes the exports and, in Protocols, the lists.

  Args:
    root: the folder that the lists' paths start from.
    faults: as in `rows`; and depth and infrared of two WMCA videos have other frames than colour.
    exports: those whose pictures are wanted; the lists name all of them.
  """
  found = rows(faults)
  write_lists(root / 'Protocols', faults)
  distinct = sorted({row for name in MAIN for row in found[name]})
  for number, (*files, _) in enumerate(distinct):
    export, _, video, *_ = files[0].split('/')
    if export not in exports:
      continue
    if faults and video in MISMATCHED:
      files[1:] = [path.replace('.jpg', '5.jpg') for path in files[1:]]
    save(root, dict(zip(('rgb', 'depth', 'ir'), files, strict=True)), _category(files[0]), number)


def _category(path: str) -> str:
  if 'CASIA-SURF' in path:
    return 'cut_photo' if '/fake_part/' in path else ''
  if 'CeFA-Race' in path:
    return CEFA_CLIPS[path.split('/')[4][-5:]]
  if 'CeFA-Mask' in path:
    return 'flexiblemask' if 'Silicone' in path else 'rigidmask'
  video = path.split('/')[2]
  category = next(name for name, videos in WMCA_VIDEOS.items() if video in videos)
  return '' if category == 'bona_fide' else category


def write_lists(folder: Path, faults: bool = False) -> None:
  """Writes the four main lists and WMCA's seven, as they are published."""
  folder.mkdir(parents=True)
  for name, some in rows(faults).items():
    text = '\r\n'.join(' '.join(row) for row in some) + ('' if name in MAIN else '\r\n')
    (folder / name).write_bytes(text.encode())


def save(
  root: Path,
  files: Mapping[str, str],
  category: str,
  number: int,
  *,
  sizes: Iterable[int] = (48, 40, 44),
  grey: Iterable[str] = ('ir',),
) -> None:
  """Writes a rendered triplet as JPEG.

  Args:
    root: what paths are below.
    files: {modality: path}; those left out are not written.
    category: as in `faces.triplet`.
    number: of the triplet; no two that differ in it are equal.
    sizes: pixels along a side of RGB, depth and infrared.
    grey: modalities that are written with one channel; the others have three that are equal.
  """
  for modality, size in zip(('rgb', 'depth', 'ir'), sizes, strict=True):
    if modality in files:
      # Rendering is the cost: two people share out their faces.
      image = faces.triplet(category, number % 2, number, size)[modality]
      if image.ndim == 2 and modality not in grey:
        image = image[..., None].repeat(3, 2)
      path = root / files[modality]
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(faces.encode(image))
