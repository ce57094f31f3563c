"""PADISI-Face in miniature: npz files of 22 channels, their ground truth, and three folds."""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tests.miniatures import faces

SIZE = (320, 256)  # height and width, as in the release
CODES = {  # what the faces of the miniature show; the real set's table is handed out with it
  'm501': 'print',
  'm502': 'replay',
  'm503': 'rigidmask',
  'm506': 'makeup',
  'm509': 'glasses',
}


class Sample(NamedTuple):
  """One sample: who, of which session and capture, and its ground truth."""

  participant: int
  session: int
  trial: int
  code: str  # m00000, or m5 with two digits of a code and two of a species

  @property
  def cells(self) -> tuple[str, str, str]:
    """Transaction, trial and name of the trial."""
    transaction = hashlib.sha1(f'{self.participant}/{self.session}'.encode()).hexdigest()
    trial = hashlib.sha1(f'{transaction}/{self.trial}'.encode()).hexdigest()[:8]
    return transaction, trial, ('FACE_FROWN_WITHOUT_GLASS', 'FACE_NEUTRAL')[self.trial % 2]

  @property
  def name(self) -> str:
    """Of the file, without .npz."""
    return '_'.join(('ID', *self.cells))


# Six people, everyone bona fide and an attacker; one came twice.
SAMPLES = (
  Sample(0, 0, 0, 'm00000'),
  Sample(0, 0, 1, 'm50101'),
  Sample(0, 1, 0, 'm50602'),
  Sample(1, 0, 0, 'm00000'),
  Sample(1, 0, 1, 'm50203'),
  Sample(2, 0, 0, 'm00000'),
  Sample(2, 0, 1, 'm50301'),
  Sample(3, 0, 0, 'm00000'),
  Sample(3, 0, 1, 'm50102'),
  Sample(4, 0, 0, 'm00000'),
  Sample(4, 0, 1, 'm50901'),
  Sample(5, 0, 0, 'm00000'),
  Sample(5, 0, 1, 'm50601'),
)
_PARTS = ('train', 'train', 'train', 'valid', 'test', 'test')


def part_of(sample: Sample, fold: int) -> str:
  """'train', 'valid' or 'test'; people are not in two parts."""
  return _PARTS[(sample.participant + 2 * fold) % 6]


def array(sample: Sample, size: tuple[int, int] = SIZE) -> np.ndarray:
  """The sample's array, [1, 22, h, w] float32 of 0 to 1: blue, green, red, NIR, depth, and more."""
  category = CODES.get(sample.code[:4], '')
  images = faces.triplet(category, sample.participant, sample.trial, 64)
  large = {
    modality: cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
    for modality, image in images.items()
  }
  data = np.zeros((22, *size), np.float32)
  data[:3] = np.moveaxis(large['rgb'][..., ::-1], 2, 0) / 255
  data[3], data[4] = large['ir'] / 255, large['depth'] / 255
  data[5] = 1 - data[3]
  data[6:] = 0.5
  return data[None]


def write_tables(folder: Path, samples: Iterable[Sample] = SAMPLES) -> None:
  """Writes the ground truth and the three folds."""
  folder.mkdir(parents=True, exist_ok=True)
  samples = list(samples)
  columns = ('transaction_id', 'trial_id', 'trial_name')
  truth = [
    (*one.cells, 'FACE', one.code, f'p{one.participant}', 'F', 'A', 'B', '30') for one in samples
  ]
  names = (*columns, 'modality', 'ground_truth', 'participant_id')
  names += ('gender', 'ethnicity', 'race', 'age')
  write_table(folder / 'padisi_USC_FACE_ground_truth.csv', [names, *truth])
  for fold in range(3):
    parts = [(*one.cells, part_of(one, fold)) for one in samples]
    name = f'padisi_USC_FACE_dataset_partition_3folds_part{fold}.csv'
    write_table(folder / name, [(*columns, 'partition_name'), *parts])


def write_table(path: Path, rows: Iterable[Iterable[str]]) -> None:
  """Writes a CSV file, its columns' names being the first row."""
  with open(path, 'w', encoding='utf-8', newline='') as file:
    csv.writer(file, lineterminator='\n').writerows(rows)


def write(root: Path, samples: Iterable[Sample] = SAMPLES) -> None:
  """Writes 13 samples of six people, and their tables into face_partitions."""
  samples = list(samples)
  (root / 'padisi_face').mkdir(parents=True, exist_ok=True)
  for one in samples:
    np.savez_compressed(root / 'padisi_face' / f'{one.name}.npz', data=array(one))
  write_tables(root / 'face_partitions', samples)
