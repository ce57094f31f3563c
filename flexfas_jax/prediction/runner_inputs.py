"""Inputs of a model, checked by every runner: names, shapes, dtypes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def model_inputs(
  entry: Mapping[str, Any], images: Mapping[str, np.ndarray], present: np.ndarray | None
) -> dict[str, np.ndarray]:
  """Orders and checks the inputs of a model.

  Args:
    entry: of the card's `models`.
    images: {modality: [B, S, S, C] float32}; further modalities are ignored.
    present: [B, M] bool, in the order of the entry's modalities; None: all are present.

  Returns:
    {name: array} in the order of the model's inputs.

  Raises:
    ValueError: an image is missing or has another shape, or a modality is absent from a model of
      fixed modalities, which has no placeholder for it.
  """
  if missing := [m for m in entry['modalities'] if m not in images]:
    raise ValueError(f'{entry["file"]} requires {missing[0]}; if it is absent, give zeros')
  B = len(images[entry['modalities'][0]])
  if present is None:
    present = np.ones((B, len(entry['modalities'])), bool)
  arrays = {m: np.asarray(images[m], np.float32) for m in entry['modalities']}
  arrays['present'] = np.asarray(present, bool)
  if not entry['present'] and not arrays['present'].all():
    raise ValueError(
      f'{entry["file"]} requires all of {"+".join(entry["modalities"])}; use a model with the '
      'input present'
    )
  inputs = {}
  for described in entry['inputs']:
    name, shape = described['name'], (B, *described['shape'][1:])
    if arrays[name].shape != shape:
      raise ValueError(f'{name} has shape {arrays[name].shape}; expected {shape}')
    inputs[name] = np.ascontiguousarray(arrays[name])
  return inputs


def run_batch(
  call: Callable[[dict[str, np.ndarray]], np.ndarray],
  entry: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
) -> np.ndarray:
  """Logits [B] of a graph; a graph of batch size 1 is called once per sample."""
  if entry['inputs'][0]['shape'][0] != 1:
    return call(dict(arrays))
  B = len(next(iter(arrays.values())))
  return np.concatenate([call({k: v[i : i + 1] for k, v in arrays.items()}) for i in range(B)])
