"""Rendered faces for miniature trees: what a licensed set has of photographs.

The files beside this one lay them out as each data set is handed out, with the right names, sizes
and bit depths, so that builders are tested on what their users have.
"""

import functools

import cv2
import numpy as np

from flexfas_jax.data.rendered_faces import populations, render, scenes, sensors

# Category: (config of the rendered faces that has it, its species there).
_KINDS = {
  '': ('wmca_like', ''),
  'cut_photo': ('surf_like', 'eyes_nose_flat'),
  'print': ('wmca_like', 'print_matte'),
  'replay': ('wmca_like', 'replay_phone'),
  'papermask': ('wmca_like', 'paper_mask'),
  'rigidmask': ('wmca_like', 'resin_mask'),
  'flexiblemask': ('wmca_like', 'silicone_mask'),
  'fakehead': ('wmca_like', 'mannequin'),
  'glasses': ('wmca_like', 'paper_glasses'),
}
_PEOPLE = 3  # different ones of each kind; more of them share a face, with noise of their own


@functools.cache
def _take(category: str, person: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  config, species = _KINDS.get(category, _KINDS['rigidmask'])
  people = {}
  for videos in populations.plan(config).values():
    for video in videos:
      if video.species == species:
        people.setdefault(video.subject, video)
  video = list(people.values())[person % len(people)]
  return render.take(*scenes.draw(video), 0)


def triplet(
  category: str = '', person: int = 0, frame: int = 0, size: int = 64, depth_bits: int = 8
) -> dict[str, np.ndarray]:
  """RGB, depth and infrared of a rendered face, no two of them equal.

  Args:
    category: '' for bona fide, or one of the common vocabulary.
    person: any number.
    frame: any number.
    size: pixels along a side, of all three.
    depth_bits: 8 (a visualisation, near is bright) or 16 (mm).

  Returns:
    {'rgb': [size, size, 3] uint8, 'depth': [size, size] uint8 or uint16, 'ir': [size, size] uint8}
  """
  rgb, depth, ir = _take(category, person % _PEOPLE)
  if depth.dtype == np.uint16 and depth_bits == 8:
    depth = sensors.visualise(depth.astype(np.float32))
  elif depth.dtype == np.uint8 and depth_bits == 16:
    mm = 600 - (depth / 255.0 - 0.5) * sensors.WINDOW
    depth = np.where(depth > 0, np.rint(mm), 0).astype(np.uint16)
  rng = np.random.default_rng((person, frame, len(category)))

  def fit(image, how):
    return cv2.resize(image, (size, size), interpolation=how)

  images = {
    'rgb': fit(rgb, cv2.INTER_AREA),
    'depth': fit(depth, cv2.INTER_NEAREST),
    'ir': fit(ir, cv2.INTER_AREA),
  }
  for image in images.values():
    noise = rng.integers(-1, 2, image.shape)
    moved = image + np.where(image > 1, noise, 0)
    image[...] = np.clip(moved, 0, np.iinfo(image.dtype).max).astype(image.dtype)
  return images


def encode(image: np.ndarray, suffix: str = '.jpg') -> bytes:
  """A picture as a file's bytes: JPEG, or PNG for 16 bits.

  Args:
    image: [h, w, 3] red first, or [h, w]; uint8 or uint16.
    suffix: '.jpg' or '.png'.
  """
  if image.ndim == 3:
    image = image[..., ::-1]
  done, encoded = cv2.imencode(suffix, image)
  assert done
  return encoded.tobytes()
