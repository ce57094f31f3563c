"""The hash that identifies a model's weights in score files and bundles."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np


def hash_weights(variables, fetch: Callable = np.asarray) -> str:
  """SHA-256 of the names and bytes of a model's variables, 64 hexadecimal digits.

  Args:
    variables: a tree of arrays.
    fetch: returns a leaf as one NumPy array, also where it is sharded over processes.
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(fetch(leaf).tobytes())
  return digest.hexdigest()
