"""WMCA in miniature: the preprocessed release's two halves of HDF5 files, and its protocol files.

Three groups of clients who do not meet: train, dev and eval have bona fide people and attacks each,
eval all seven categories of attack (paper masks there alone, as in the real protocols).
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np

from flexfas_jax.evaluation import naming
from tests.miniatures import faces, flexmodal


class Video(NamedTuple):
  """One video: its name, the day it was taken, its group in grandtest, and its frames."""

  name: str
  day: str
  group: str
  frames: tuple[int, ...] = (0, 12)
  # Frames that one of the halves lacks.
  not_in: Mapping[str, tuple[int, ...]] = {}


# Client, session, presenter, type, instrument.
VIDEOS = (
  Video('001_01_000_0_00', '31.01.18', 'train', (0, 12, 24, 36)),
  Video('002_02_000_0_01', '12.02.18', 'train', (0, 12, 24), {'RGB': (12,)}),
  Video('001_01_000_3_01', '31.01.18', 'train'),
  Video('002_02_002_4_03', '12.02.18', 'train'),
  Video('501_02_000_2_75', '12.02.18', 'train'),
  Video('502_01_001_2_12', '31.01.18', 'train'),
  Video('003_01_000_0_00', '31.01.18', 'dev', (0, 12, 24)),
  Video('004_03_000_0_02', '05.03.18', 'dev'),
  Video('003_01_000_3_06', '31.01.18', 'dev'),
  Video('004_03_000_3_05', '05.03.18', 'dev'),
  Video('503_03_000_2_01', '05.03.18', 'dev', (0, 12, 24), {'CDIT': (0, 24)}),
  Video('514_01_035_1_05', '31.01.18', 'dev'),
  Video('005_02_000_0_00', '12.02.18', 'eval', (0, 12, 24)),
  Video('006_03_000_0_00', '05.03.18', 'eval'),
  Video('005_02_000_2_08', '12.02.18', 'eval'),
  Video('006_03_000_3_11', '05.03.18', 'eval'),
  Video('006_03_006_4_18', '05.03.18', 'eval'),
  Video('504_02_000_2_07', '12.02.18', 'eval'),
  Video('505_02_005_1_16', '12.02.18', 'eval'),
  Video('506_03_000_2_99', '05.03.18', 'eval'),
  Video('507_03_006_1_02', '05.03.18', 'eval'),
)
# Groups by client of the videos in the miniature of the FlexModal export.
_FLEXMODAL_GROUPS = {
  **dict.fromkeys(('001', '501'), 'train'),
  **dict.fromkeys(('002', '502'), 'dev'),
  **dict.fromkeys(('003', '100', '101', '512'), 'eval'),
}
# {category: how the protocol files call it}
LEFT_OUT = {
  'fakehead': 'fakehead',
  'flexiblemask': 'flexiblemask',
  'glasses': 'glasses',
  'papermask': 'papermask',
  'print': 'prints',
  'replay': 'replay',
  'rigidmask': 'rigidmask',
}
SIZE = 128  # as in the release


def path_of(root: Path, half: str, video: Video) -> Path:
  """The HDF5 file of a video.

  Args:
    root: of the tree.
    half: 'RGB' or 'CDIT'.
    video: one of `VIDEOS`.
  """
  folder = root / f'WMCA_preprocessed_{half}' / 'WMCA' / 'face-station' / video.day
  return folder / f'{video.name}.hdf5'


def arrays(video: Video, frame: int) -> dict[str, np.ndarray]:
  """What the two halves hold of a frame: {'RGB': [3, h, w], 'CDIT': [4, h, w]} uint8."""
  said = naming.wmca_video(video.name)
  images = faces.triplet(said.attack_category, int(said.subject), frame, SIZE)
  grey = cv2.cvtColor(images['rgb'], cv2.COLOR_RGB2GRAY)
  thermal = cv2.GaussianBlur(255 - images['ir'], (9, 9), 0)
  return {
    'RGB': np.moveaxis(images['rgb'], 2, 0),
    'CDIT': np.stack([grey, images['depth'], images['ir'], thermal]),
  }


def write_video(root: Path, video: Video) -> None:
  """Writes both files of a video."""
  for half in ('RGB', 'CDIT'):
    path_of(root, half, video).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path_of(root, half, video), 'w') as file:
      for frame in video.frames:
        if frame not in video.not_in.get(half, ()):
          file[f'Frame_{frame}/array'] = arrays(video, frame)[half]


def write_preprocessed(root: Path, videos: Iterable[Video] = VIDEOS) -> None:
  """Writes the preprocessed release: 21 videos of 2 to 4 frames, 45 frames in both halves."""
  for video in videos:
    write_video(root, video)


def flexmodal_videos() -> list[Video]:
  """The videos of `flexmodal.write`, for `write_protocols`."""
  return [
    Video(name, '31.01.18', _FLEXMODAL_GROUPS[name[:3]])
    for names in flexmodal.WMCA_VIDEOS.values()
    for name in names
  ]


def group_of(video: Video, left_out: str = '') -> str:
  """The group of a video in a protocol, or '' where it has none.

  Args:
    video: one of `VIDEOS`.
    left_out: the category that train and dev go without, '' for grandtest.
  """
  category = naming.wmca_video(video.name).attack_category
  if not left_out or not category:
    return video.group
  unseen = category == left_out
  return video.group if unseen == (video.group == 'eval') else ''


def write_protocols(folder: Path, videos: Iterable[Video] = VIDEOS) -> None:
  """Writes PROTOCOL-grandtest.csv and the seven PROTOCOL-LOO_*.csv into a folder."""
  folder.mkdir(parents=True, exist_ok=True)
  for left_out in ('', *LEFT_OUT):
    name = f'LOO_{LEFT_OUT[left_out]}' if left_out else 'grandtest'
    with open(folder / f'PROTOCOL-{name}.csv', 'w', encoding='utf-8', newline='') as file:
      rows = csv.writer(file, lineterminator='\n')
      rows.writerow(['path', 'label', 'client_id', 'group'])
      for video in videos:
        if group := group_of(video, left_out):
          said = naming.wmca_video(video.name)
          label = int(said.label == 'attack')
          rows.writerow([f'face-station/{video.day}/{video.name}', label, said.subject, group])
