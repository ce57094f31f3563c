"""The identity of a model's weights, as score files and bundles record it."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np


def of(variables, fetch: Callable = np.asarray) -> str:
  """SHA-256 of a model's names and numbers, 64 hexadecimal digits.

  Args:
    variables: a tree of arrays.
    fetch: gives the whole of a leaf as a NumPy array.
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(fetch(leaf).tobytes())
  return digest.hexdigest()
