"""Damages a bundle's card in many ways, and loads each: it must be refused, or remain valid.

  python -m experiments.reliability.fuzz_card BUNDLE -n 2000

Half of the mutants change the bytes of card.json, half its structure: values of another type,
hostile numbers, names and paths, keys that are missing, renamed or duplicate. Each is loaded as the
demo loads a bundle; every threshold is read, and one decision made. The model's bytes are verified
and its inputs checked; the graph does not run. The run fails (exit code 1) if an exception is not
one of flexfas_jax, if a threshold outside (0, 1) is accepted, or if memory grows by more than
200 MB. The same seed makes the same mutants.
"""

import argparse
import collections
import json
import pathlib
import resource
import shutil
import sys
import tempfile
import unittest.mock as mock
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import FlexfasError, StateError
from flexfas_jax.prediction import Predictor, model_loader, runner_inputs
from flexfas_jax.prediction.page import backend

DOCUMENTED = (0, 2, 3, 4)  # 2: the bundle has no model of the requested format
MOST_GROWTH = 200 << 20  # bytes
_RAW, _TWICE = '@raw@', '@twice@'
_VALUES = (
  None, True, False, 0, 1, 2, -1, -5, 0.5, 1.5, -0.0, 1e308, 2**31, 2**63, 10**17, '', '0', '0.5',
  'x' * 10_000, 'rgb', 'depth+rgb', '../../etc/passwd', '/dev/zero', 'a\0b', '\x1b[2J', 'nul',
  '\ud800', [], {}, [[]], [None], [1, 'a'], {'': None}, {'value': 0}, ['rgb', 'rgb'],
)  # fmt: skip
_LITERALS = (
  'NaN', 'Infinity', '-Infinity', '1e999', '1' + '0' * 400, '1' + '0' * 5000,
  '[' * 5000 + ']' * 5000, '{"a":' * 5000 + '1' + '}' * 5000, '"\\ud800"', '01', "'a'",
  'undefined', '',
)  # fmt: skip


class Outcome(NamedTuple):
  """What became of the mutants."""

  codes: dict[int, int]  # exit code: how often
  faults: list[str]  # mutants with an undocumented end, in words
  growth: int  # of the largest resident memory, bytes


def mutants(text: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
  """Yields n damaged versions of a card's text."""
  rng = np.random.default_rng(seed)
  for i in range(n):
    yield _of_structure(json.loads(text), rng) if i % 2 else _of_bytes(text, rng)


def _of_bytes(text: bytes, rng: np.random.Generator) -> bytes:
  # Near the start as often as anywhere: most of a card is parity, which no prediction reads.
  at = int(rng.integers(len(text) if rng.random() < 0.5 else min(len(text), 4000)))
  length = int(rng.integers(1, 40))
  kind = rng.integers(6)
  if kind == 0:
    return text[:at] + bytes([text[at] ^ 1 << int(rng.integers(8))]) + text[at + 1 :]
  if kind == 1:
    return text[:at] + text[at + length :]
  if kind == 2:
    return text[: at + length] + text[at:]
  if kind == 3:
    return text[:at] + rng.bytes(length) + text[at:]
  if kind == 4:
    return text[:at]
  literal = _LITERALS[rng.integers(len(_LITERALS))].encode()
  return text[:at] + literal + text[at + length :]


def _of_structure(card: dict, rng: np.random.Generator) -> bytes:
  owner, key = _place(card, rng)
  raw, kind = '', rng.integers(6)
  if kind == 0:
    del owner[key]
  elif kind == 1:
    other, other_key = _place(card, rng)
    owner[key] = json.loads(json.dumps(other[other_key]))
  elif kind == 2 and isinstance(owner, dict):
    owner[_TWICE] = _value(rng)
  elif kind == 3:
    owner[key], raw = _RAW, _LITERALS[rng.integers(len(_LITERALS))]
  else:
    owner[key] = _value(rng)
  text = json.dumps(card).replace(f'"{_RAW}"', raw)
  return text.replace(f'"{_TWICE}"', json.dumps(str(key))).encode()


def _place(card: dict, rng: np.random.Generator) -> tuple[Any, Any]:
  """(a container, a key or index of it), every field of the card as often as another."""
  owner: Any = card
  while True:
    keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
    key = keys[rng.integers(len(keys))]
    inner = owner[key]
    if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
      return owner, key
    owner = inner


def _value(rng: np.random.Generator) -> Any:
  return _VALUES[rng.integers(len(_VALUES))]


def _without_graph(card, entry):
  """Replaces `model_loader.load_model`: verifies and checks, and computes nothing."""
  card.read_file(entry['file'])

  def run(images, present):
    try:
      runner_inputs.model_inputs(entry, images, present)
    except Exception as error:  # as `model_loader.load_model` has it
      raise StateError(str(error)) from error
    return np.zeros(len(present), np.float32)

  return run


def load(folder: pathlib.Path, format: str, images: dict[str, np.ndarray]) -> None:
  """Uses all of a bundle's card that prediction and the demo use.

  Raises:
    FlexfasError: it is refused.
  """
  with mock.patch.object(model_loader, 'load_model', _without_graph):
    predictor = Predictor.load(folder, format)
  json.dumps(backend.Backend(predictor).page_data(), allow_nan=False).encode()
  for subset in predictor.card.subsets:
    try:
      threshold = predictor.card.threshold(subset)
    except FlexfasError:  # refused with this subset
      continue
    if not 0 < threshold < 1:
      raise AssertionError(f'a threshold of {threshold} for {subset} is accepted')
  predictor(**{m: images[m] for m in predictor.modalities if m in images})


def fuzz(bundle: pathlib.Path, n: int, seed: int = 0, format: str = 'onnx') -> Outcome:
  """Loads n mutants of a bundle's card; the bundle itself is not changed.

  Args:
    bundle: the folder.
    n: mutants.
    seed: of the mutations.
    format: of the model that runs.
  """
  text = (bundle / 'card.json').read_bytes()
  rng = np.random.default_rng(0)
  images = {
    m: rng.integers(60, 200, (64, 64, schema.channels(m)), np.uint8) for m in ('rgb', 'depth', 'ir')
  }
  images['depth'] = images['depth'].astype(np.uint16) + 500
  codes, faults = collections.Counter(), []
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / bundle.name
    shutil.copytree(bundle, folder)
    for number, mutant in enumerate([text, *mutants(text, n, seed)]):
      (folder / 'card.json').write_bytes(mutant)
      try:
        load(folder, format, images)
        code = 0
      except FlexfasError as error:
        code = error.exit_code
        if number == 0 and code != 3:  # noise is no face: its images may be refused
          raise
      except Exception as error:
        code = -1
        faults.append(f'mutant {number}: {type(error).__name__}: {error}'[:200])
      if code not in (*DOCUMENTED, -1):
        faults.append(f'mutant {number}: exit code {code}')
      if number == 0:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
      else:
        codes[code] += 1
  growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
  return Outcome(dict(codes), faults, growth)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('bundle', type=pathlib.Path)
  parser.add_argument('-n', type=int, default=2000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--format', default='onnx')
  args = parser.parse_args()
  found = fuzz(args.bundle, args.n, args.seed, args.format)
  for fault in found.faults[:20]:
    print(fault)
  ends = ', '.join(f'{n} with {code}' for code, n in sorted(found.codes.items()) if code >= 0)
  print(f'{args.n} mutants: {ends}; {len(found.faults)} faults; {found.growth / 1e6:.0f} MB more')
  return int(bool(found.faults) or found.growth > MOST_GROWTH)


if __name__ == '__main__':
  sys.exit(main())
