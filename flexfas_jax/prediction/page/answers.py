"""What the page asks a predictor, and what it is told, as JSON."""

import base64
import binascii
import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from flexfas_jax.errors import DataError, FlexfasError, StateError
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

_SAMPLES = 'samples/samples.json'


class Answers:
  """Answers of one predictor; one at a time, for not every runtime can be asked by two at once."""

  def __init__(self, predictor: Predictor):
    self.predictor = predictor
    self._lock = threading.Lock()
    self.samples = _samples(predictor)

  def facts(self) -> dict[str, Any]:
    """What the page shows before anything is asked."""
    card, predictor = self.predictor.card, self.predictor
    contents = card.contents
    test, metrics = next(iter(contents.get('metrics', {}).items()), ('', {}))
    framing = predictor.framing
    return {
      'name': card.name,
      'model': predictor.entry['file'],
      'modalities': list(predictor.modalities),
      'subsets': [s for s in card.subsets if set(s.split('+')) <= set(predictor.modalities)],
      'thresholds': {
        name: {'value': about.get('value'), 'rule': about.get('rule', '')}
        for name, about in contents['thresholds'].items()
        if isinstance(about, dict)
      },
      'test': test,
      'acer': {name: values.get('acer') for name, values in metrics.items()},
      'bits': {m: list(card.bits(m)) for m in predictor.modalities},
      'crop': framing.recipe.method if framing else '',
      'remarks': list(contents.get('remarks', [])),
      'licence': str(contents.get('licence', '')),
      'samples': [
        {'id': one['id'], 'label': one.get('label') or '', 'files': one['files']}
        for one in self.samples
      ],
    }

  def sample_file(self, name: str) -> bytes | None:
    """The bytes of a sample's picture; None: there is no such sample.

    Raises:
      StateError: they are not what was exported.
    """
    if not any(name in one['files'].values() for one in self.samples):
      return None
    return self.predictor.card.path(name).read_bytes()

  def decide(self, asked: Any) -> dict[str, Any]:
    """The decision about some pictures, and what each subset of them would have led to.

    Args:
      asked: {'pictures': {modality: base64 of a JPEG or PNG}}.

    Returns:
      'decision' and 'subsets' {name: decision} as `Decision.as_json` has them; 'present'; 'seen'
      {modality: the picture that the model saw, as a data URL}; 'milliseconds'.

    Raises:
      FlexfasError: what is wrong with them.
    """
    given = _pictures(asked, self.predictor.modalities)
    with self._lock:
      start = time.perf_counter()
      acquired = self.predictor.acquire(given)
      used = self.predictor.used(acquired)
      whole = self.predictor.decide(acquired, used)
      seconds = time.perf_counter() - start
      found = {'+'.join(used): whole} if used else {}
      for n in range(1, len(used)):
        for subset in itertools.combinations(used, n):
          found['+'.join(subset)] = self._decide(acquired, subset)
    return {
      'decision': dataclasses.replace(whole, seconds=seconds).as_json(),
      'subsets': {name: one.as_json() for name, one in found.items()},
      'present': list(used),
      'seen': {m: _data_url(acquired.arrays[m]) for m in used},
      'milliseconds': 1000 * seconds,
    }

  def _decide(self, acquired, subset) -> Decision:
    try:
      return self.predictor.decide(acquired, subset)
    except FlexfasError as error:  # of this subset alone: no threshold
      return Decision(decisions.FTA, used=tuple(subset), reasons=(str(error),))


def _pictures(asked: Any, modalities) -> dict[str, bytes]:
  texts = asked.get('pictures') if isinstance(asked, Mapping) else None
  if not isinstance(texts, Mapping) or not all(isinstance(t, str) for t in texts.values()):
    raise DataError('due is {"pictures": {modality: base64}}')
  if unknown := set(texts) - set(modalities):
    raise DataError(f'there is no modality {sorted(unknown)[0]!r} in this model')
  try:
    return {m: base64.b64decode(text, validate=True) for m, text in texts.items()}
  except (binascii.Error, ValueError):
    raise DataError('the pictures are not in base64') from None


def _data_url(array: np.ndarray) -> str:
  """[S, S, C] float32 in [-1, 1] as a PNG that a page can show."""
  levels = np.clip(np.rint(array * 128 + 127.5), 0, 255).astype(np.uint8)
  encoded = cv2.imencode('.png', np.ascontiguousarray(levels[..., ::-1]))[1]
  return 'data:image/png;base64,' + base64.b64encode(encoded.tobytes()).decode()


def _samples(predictor: Predictor) -> list[dict]:
  """Those of the bundle, with the files of the modalities that the predictor has."""
  if _SAMPLES not in predictor.card.contents['files']:
    return []
  path = predictor.card.path(_SAMPLES)
  try:
    found = json.loads(path.read_bytes())['samples']
    for one in found:
      one['files'] = {m: one['files'][m] for m in predictor.modalities if m in one['files']}
      one['id'] = str(one['id'])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise StateError(f'{path} is damaged: {error!r}') from None
  return found
