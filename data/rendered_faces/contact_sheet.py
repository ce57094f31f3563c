"""Renders `examples.png`: a row per species, three modalities each, for visual inspection.

python -m flexfas_jax.data.rendered_faces.contact_sheet [--version=1] [--out=FILE]
"""

import argparse
import pathlib

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flexfas_jax.data.rendered_faces import populations, render, scenes
from flexfas_jax.data.rendered_faces.v2 import attacks, domains, scene

_TILE, _SUBJECTS, _GAP, _LABEL, _TITLE = 92, 4, 8, 16, 44
_HOLE = (58, 22, 74)  # colour of what a depth sensor did not measure


def show_depth(depth: np.ndarray) -> np.ndarray:
  """Depth [h, w] as stored -> grey [h, w, 3] uint8: 140 mm about the face, near is bright."""
  if depth.dtype == np.uint8:  # undo the visualisation's window
    value = (depth / 255.0 - 0.5) * render.sensors.WINDOW
  else:
    middle = depth[
      depth.shape[0] // 4 : -depth.shape[0] // 4, depth.shape[1] // 4 : -depth.shape[1] // 4
    ]
    value = (np.median(middle[middle > 0]) if middle.any() else 0) - depth.astype(float)
  grey = np.rint(255 * np.clip((value + 95) / 140, 0.05, 1) ** 1.7)[..., None]  # [h, w, 1]
  return np.where(depth[..., None] > 0, grey, _HOLE).astype(np.uint8)


def take(version: int, video: populations.Video) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """RGB, depth and infrared of a video's first frame."""
  if version == 1:
    return render.take(*scenes.draw(video), 0)
  return scene.take(scene.draw(video), 0, attacks.MAKERS[video.species])


def tiles(version: int, video: populations.Video) -> np.ndarray:
  """The three modalities of a video's first frame beside each other, [T, 3 T, 3] uint8."""
  rgb, depth, ir = take(version, video)
  size = (_TILE, _TILE)
  views = (
    cv2.resize(rgb, size, interpolation=cv2.INTER_AREA),
    cv2.resize(show_depth(depth), size, interpolation=cv2.INTER_NEAREST),
    cv2.cvtColor(cv2.resize(ir, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB),
  )
  return np.hstack(views)


def rows(plans) -> list[tuple[str, list[populations.Video]]]:
  """(label, videos of different subjects): bona fide of each data set, then each species.

  Args:
    plans: `populations` or `v2.domains`.
  """
  found = {}
  for dataset in plans.DATASETS:
    for videos in plans.plan(dataset).values():
      for video in videos:
        if video.species:
          label = f'{video.species.replace("_", " ")}  ({plans.CATEGORY[video.species]})'
          key = (1, list(plans.CATEGORY).index(video.species))
        else:
          label, key = 'bona fide', (0, plans.DATASETS.index(dataset))
        subjects = found.setdefault(key, (f'{dataset}: {label}', {}))[1]
        subjects.setdefault(video.subject, video)
  picked = []
  for _, (label, subjects) in sorted(found.items()):
    subjects = list(subjects.values())
    picked.append((label, subjects[:: max(1, len(subjects) // _SUBJECTS)][:_SUBJECTS]))
  return picked


def sheet(version: int) -> Image.Image:
  """The whole sheet, in two columns of rows."""
  content = rows(populations if version == 1 else domains)
  per_column = -(-len(content) // 2)
  width = _SUBJECTS * (3 * _TILE + 4)
  page = Image.new(
    'RGB',
    (2 * width + 3 * _GAP, _TITLE + per_column * (_TILE + _LABEL + 2) + _GAP),
    (250, 250, 250),
  )
  draw = ImageDraw.Draw(page)
  draw.text(
    (_GAP, 8),
    'RENDERED faces, not photographs: RGB, depth (near is bright, violet: not measured), infrared; '
    'four subjects a row',
    fill=(170, 0, 0),
    font=ImageFont.load_default(24),
  )
  small = ImageFont.load_default(13)
  for number, (label, videos) in enumerate(content):
    left = _GAP + (number // per_column) * (width + _GAP)
    top = _TITLE + (number % per_column) * (_TILE + _LABEL + 2)
    draw.text((left, top), label, fill=(20, 20, 20), font=small)
    for k, video in enumerate(videos):
      page.paste(Image.fromarray(tiles(version, video)), (left + k * (3 * _TILE + 4), top + _LABEL))
  return page


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--version', type=int, choices=(1, 2), default=2)
  parser.add_argument('--out', default=None, help='default: the image of the README')
  args = parser.parse_args()
  place = pathlib.Path(__file__).with_name(f'examples{"_v1" if args.version == 1 else ""}.png')
  # A palette keeps the file small; the noise of the sensors does not compress.
  page = sheet(args.version).quantize(256, dither=Image.Dither.NONE)
  page.save(args.out or place, optimize=True)


if __name__ == '__main__':
  main()
