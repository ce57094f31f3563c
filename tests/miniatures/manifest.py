"""A set of somebody's own, in miniature: a CSV, and pictures in which the face is a part.

The wall behind is grey and uneven; depth and infrared have half the pixels of RGB. Where the face
is, the CSV says: a box about it, and eyes that stand for the rendered ones.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from tests.miniatures import faces

WIDTH, HEIGHT, FACE = 128, 96, 48  # of RGB, in pixels
WALL = 900  # mm
FOLDER = '照片'
_SPLITS = {'train': 'ABC', 'val': 'DE', 'test': 'FG'}  # people
_CLIPS = {'live': ('', ''), 'print': ('matte', 'print'), 'mask': ('resin', 'rigidmask')}
EYES = (0.34, 0.42), (0.66, 0.42)  # in shares of the face's box


def picture(category: str, person: int, frame: int) -> tuple[dict[str, np.ndarray], tuple]:
  """A triplet with background: ({modality: array}, (left, top) of the face in pixels of RGB)."""
  rng = np.random.default_rng((person, frame, len(category)))
  # Even, so that the pixels of the smaller modalities fall onto those of RGB.
  left, top = (2 * int(rng.integers(3, side // 2 - FACE // 2 - 3)) for side in (WIDTH, HEIGHT))
  wall = cv2.resize(rng.integers(70, 150, (4, 5, 3)).astype(np.uint8), (WIDTH, HEIGHT))
  half = (HEIGHT // 2, WIDTH // 2)
  grain = rng.integers(-20, 20, half)
  images = {
    'rgb': wall,
    'depth': (WALL + grain).astype(np.uint16),
    'ir': (90 + 2 * grain).astype(np.uint8),
  }
  for modality, image in images.items():
    step = 1 if modality == 'rgb' else 2
    face = faces.triplet(category, person, frame, FACE // step, depth_bits=16)[modality]
    image[top // step : (top + FACE) // step, left // step : (left + FACE) // step] = face
  return images, (left, top)


def write(root: Path) -> list[dict[str, str]]:
  """Writes pictures and manifest.csv; returns its rows.

  Seven people in three splits, each bona fide, as a print and in a mask, two frames of each. The
  prints of train have no depth, the masks of test no infrared.
  """
  rows, person = [], 0
  for split, people in _SPLITS.items():
    for name in people:
      for clip, (species, category) in _CLIPS.items():
        for frame in (1, 2):
          images, place = picture(category, person, frame)
          if (split, clip) == ('train', 'print'):
            del images['depth']
          if (split, clip) == ('test', 'mask'):
            del images['ir']
          row = _facts(split, name, clip, species, category, frame) | _places(*place)
          for modality, image in images.items():
            suffix = '.jpg' if modality == 'rgb' else '.png'
            path = f'{FOLDER}/{name}/{clip}/{modality}/{frame:04d}{suffix}'
            content = faces.encode(image, suffix)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            row |= {modality: path, f'{modality}_sha256': hashlib.sha256(content).hexdigest()}
          rows.append(row)
      person += 1
  write_csv(root / 'manifest.csv', rows)
  return rows


def _facts(split, name, clip, species, category, frame) -> dict[str, str]:
  return {
    'label': 'attack' if species else 'bona_fide',
    'attack_type': species,
    'attack_category': category,
    'subject': name,
    'video': clip,
    'frame': str(frame),
    'split': split,
    'ethnicity': 'x' if name in 'ACEG' else 'y',
    'lighting': 'lamp' if frame == 1 else 'window',
  }


def _places(left: int, top: int) -> dict[str, str]:
  """Box and eyes, as the columns of a manifest."""
  places = {'left': left, 'top': top, 'right': left + FACE, 'bottom': top + FACE}
  for eye, (x, y) in zip(('left_eye', 'right_eye'), EYES, strict=True):
    places |= {f'{eye}_x': left + x * FACE, f'{eye}_y': top + y * FACE}
  return {column: f'{value:g}' for column, value in places.items()}


def write_csv(path: Path, rows: Iterable[Mapping[str, str]], **form) -> None:
  """Writes rows as a CSV with a header; cells of columns that a row does not have are empty.

  Args:
    path: where.
    rows: {column: text} each.
    **form: of `csv.DictWriter`.
  """
  rows = list(rows)
  columns = list(dict.fromkeys(column for row in rows for column in row))
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='', **{'lineterminator': '\n', **form})
    writer.writeheader()
    writer.writerows(rows)


def write_detector(path: Path, tilt: float = 0.0) -> str:
  """Writes an ONNX graph with YuNet's inputs and outputs that finds white squares; its SHA-256.

  A square of `FACE` pixels is a face whose eyes are a quarter of it to the left and the right of
  its middle, and a sixth above.

  Args:
    path: of the file.
    tilt: pixels by which the right eye is lower, and the left one higher.
  """
  import onnx
  from onnx import helper, numpy_helper

  nodes = [helper.make_node('ReduceMean', ['input'], ['grey'], axes=[1], keepdims=1)]
  weights, outputs = [], []
  # Eyes, nose, corners of the mouth, from the middle of the square.
  points = (-12, -8 - tilt, 12, -8 + tilt, 0, 2, -8, 12, 8, 12)
  for stride in (8, 16, 32):
    pads = [(FACE - stride) // 2] * 4
    nodes.append(
      helper.make_node(
        'AveragePool', ['grey'], [f'mean_{stride}'], kernel_shape=[FACE, FACE],
        strides=[stride, stride], pads=pads, count_include_pad=1,
      )
    )  # fmt: skip
    # White (255) all over is sure, and three quarters of it is nothing.
    sure = (1 / 64, -3.0) if stride == 8 else (0.0, 0.0)
    for name, weight, bias in (
      ('cls', sure[0], [sure[1]]),
      ('obj', sure[0], [sure[1]]),
      ('bbox', 0.0, [0.5, 0.5, *[np.log(FACE / stride)] * 2]),
      ('kps', 0.0, [0.5 + point / stride for point in points]),
    ):
      n, output = len(bias), f'{name}_{stride}'
      for part, array in (
        ('w', np.full((n, 1, 1, 1), weight, np.float32)),
        ('b', np.array(bias, np.float32)),
        ('s', np.array([1, -1, n])),
      ):
        weights.append(numpy_helper.from_array(array, f'{output}_{part}'))
      inputs = [f'mean_{stride}', f'{output}_w', f'{output}_b']
      nodes += [
        helper.make_node('Conv', inputs, [f'{output}_c'], kernel_shape=[1, 1]),
        helper.make_node('Transpose', [f'{output}_c'], [f'{output}_t'], perm=[0, 2, 3, 1]),
        helper.make_node('Reshape', [f'{output}_t', f'{output}_s'], [output]),
      ]
      outputs.append(
        helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [1, f'n{stride}', n])
      )
  picture_ = helper.make_tensor_value_info('input', onnx.TensorProto.FLOAT, [1, 3, 'h', 'w'])
  graph = helper.make_graph(nodes, 'white_squares', [picture_], outputs, weights)
  opset = helper.make_opsetid('', 11)
  path.write_bytes(
    helper.make_model(graph, opset_imports=[opset], ir_version=7).SerializeToString()
  )
  return hashlib.sha256(path.read_bytes()).hexdigest()
