"""What every runner checks before a model sees it: names, shapes, dtypes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def feed(
  entry: Mapping[str, Any], images: Mapping[str, np.ndarray], present: np.ndarray | None
) -> dict[str, np.ndarray]:
  """{name: array} of a model's inputs, in its order.

  Args:
    entry: of the card's `models`.
    images: {modality: [B, S, S, C] float32}; of modalities that the model does not take, ignored.
    present: [B, M] bool, in the order of the entry's modalities; None: all are there.

  Raises:
    ValueError: an image is missing or of another shape, or something is absent that the model
      cannot do without: a graph of fixed modalities has no stand-in for them.
  """
  names = [one['name'] for one in entry['inputs']]
  if missing := [m for m in entry['modalities'] if m not in images]:
    raise ValueError(f'{entry["file"]} needs {missing[0]}; where it is absent, give zeros')
  B = len(images[entry['modalities'][0]])
  if present is None:
    present = np.ones((B, len(entry['modalities'])), bool)
  arrays = {m: np.asarray(images[m], np.float32) for m in entry['modalities']}
  arrays['present'] = np.asarray(present, bool)
  if not entry['present'] and not arrays['present'].all():
    raise ValueError(
      f'{entry["file"]} is for {"+".join(entry["modalities"])}, all of them present; take a model '
      'with the input present'
    )
  for one in entry['inputs']:
    wanted = (B, *one['shape'][1:])
    if arrays[one['name']].shape != wanted:
      raise ValueError(f'{one["name"]} has shape {arrays[one["name"]].shape}, not {wanted}')
  return {name: np.ascontiguousarray(arrays[name]) for name in names}


def run(
  call: Callable[[dict[str, np.ndarray]], np.ndarray],
  entry: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
) -> np.ndarray:
  """A graph's logits [B]; one of batch 1 is called for every sample."""
  if entry['inputs'][0]['shape'][0] != 1:
    return call(dict(arrays))
  B = len(next(iter(arrays.values())))
  return np.concatenate([call({k: v[i : i + 1] for k, v in arrays.items()}) for i in range(B)])
