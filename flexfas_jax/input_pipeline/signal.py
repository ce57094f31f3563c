"""Whether an image carries signal: the one rule by which a modality counts as absent.

Training, evaluation, lint, `prepare`, export and prediction all ask here.
"""

import numpy as np


def no_signal(image: np.ndarray, modality: str) -> str:
  """Why an image carries no signal; '' where it carries one.

  Args:
    image: [h, w] or [h, w, C] uint8 or uint16, decoded.
    modality: 'rgb', 'depth' or 'ir'.
  """
  return 'is one colour throughout' if constant(image) else ''


def constant(image: np.ndarray) -> bool:
  """Whether all pixels of [h, w] or [h, w, C] are the same."""
  corner = image[0, 0]
  # A few pixels show of nearly every image that it is not.
  return bool((image[::16, ::16] == corner).all() and (image == corner).all())
