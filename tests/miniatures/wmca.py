"""WMCA in miniature: the preprocessed release's two halves of HDF5 files, and its protocol files.

The videos are those of the FlexModal export in miniature, so that the protocol files serve both,
and its lists name frames that are here. Three groups of clients who do not meet: train, dev and
eval have bona fide people and attacks each, eval all seven categories.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np

from flexfas_jax.protocols import path_layouts
from tests.miniatures import faces, flexmodal


class Video(NamedTuple):
  """One video: its name, the day it was taken, its group in grandtest, and its frames."""

  name: str
  day: str
  group: str
  frames: tuple[int, ...]
  not_in: Mapping[str, tuple[int, ...]] = {}  # {half: frames that it lacks}


_GROUPS = {  # by client
  **dict.fromkeys(('002', '100', '502', '512'), 'train'),
  **dict.fromkeys(('003', '101'), 'dev'),
  **dict.fromkeys(('001', '501'), 'eval'),
}
_DAYS = {'01': '31.01.18', '02': '12.02.18', '03': '05.03.18', '04': '19.03.18', '06': '16.04.18'}
_BONA_FIDE, _ATTACK = (0, 12, 24, 36), (12, 24)  # frames; the lists name 12 and 24
# Two videos of which a half lacks a frame.
_SPECIAL = {
  '002_02_000_0_01': {'not_in': {'RGB': (36,)}},
  '502_01_017_2_03': {'frames': (0, 12, 24), 'not_in': {'CDIT': (0,)}},
}


def _video(name: str, bona_fide: bool) -> Video:
  client, session, *_ = name.split('_')
  frames = _BONA_FIDE if bona_fide else _ATTACK
  made = Video(name, _DAYS[session], _GROUPS[client], frames)
  return made._replace(**_SPECIAL.get(name, {}))


VIDEOS = tuple(
  _video(name, category == 'bona_fide')
  for category, names in flexmodal.WMCA_VIDEOS.items()
  for name in names
)
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
  said = path_layouts.wmca_video(video.name)
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
  """Writes the preprocessed release: 17 videos of 2 to 4 frames, 39 frames in both halves."""
  for video in videos:
    write_video(root, video)


def group_of(video: Video, left_out: str = '') -> str:
  """The group of a video in a protocol, or '' where it has none.

  Args:
    video: one of `VIDEOS`.
    left_out: the category that train and dev go without, '' for grandtest.
  """
  category = path_layouts.wmca_video(video.name).attack_category
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
          said = path_layouts.wmca_video(video.name)
          label = int(said.label == 'attack')
          rows.writerow([f'face-station/{video.day}/{video.name}', label, said.subject, group])
