"""Pattern of local gravitational force: a map of contrast that depends little on illumination.

Bhattacharjee & Roy, "Pattern of Local Gravitational Force (PLGF): A Novel Local Image Descriptor",
TPAMI 2021; a plane of infrared images in AMA and MMDG (DADM: data_preprocess/save.py).
"""

import cv2
import numpy as np

_RADIUS = 2


def _kernels() -> tuple[np.ndarray, np.ndarray]:
  """cos(a) / r^2 and sin(a) / r^2 of the offsets from the centre, [5, 5] each; 0 in the centre."""
  right = np.arange(-_RADIUS, _RADIUS + 1.0)[None]  # [1, 5]
  up = -right.T  # [5, 1]
  square = up**2 + right**2
  square[_RADIUS, _RADIUS] = np.inf
  return right / square**1.5, up / square**1.5


def plgf(grey: np.ndarray) -> np.ndarray:
  """The force that acts on each pixel from those around it, over its own brightness.

  Args:
    grey: [H, W] in [0, 255], of any type.

  Returns:
    [H, W] float32, stretched to [1, 255]; 1 everywhere if there is no contrast.
  """
  brightness = np.maximum(grey.astype(np.float64), 2)
  forces = [  # correlations, with zeros beyond the border
    cv2.filter2D(brightness, cv2.CV_64F, kernel, borderType=cv2.BORDER_CONSTANT)
    for kernel in _kernels()
  ]
  angle = np.arctan(np.hypot(*forces) / (brightness + 1e-4))
  span = angle.max() - angle.min()
  unit = (angle - angle.min()) / span if span > 0 else np.zeros_like(angle)
  return (1 + 254 * unit).astype(np.float32)
