"""The page's questions to a predictor, and the answers, as JSON."""

import base64
import dataclasses
import itertools
import json
import math
import time
from typing import Any, NamedTuple

import cv2
import numpy as np

from flexfas_jax.errors import DataError, StateError
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

_MOST = 200  # brackets, commas and quotes of a request: each may become an object of 64 bytes
_DUE = 'send {"pictures": {modality: base64}, "allow_absent": [modality]}'


class Asked(NamedTuple):
  """A question to the predictor."""

  images: dict[str, bytes]  # by modality: a JPEG or PNG
  allow_absent: tuple[str, ...]  # modalities that count as absent where they are unusable


class Answers:
  """The answers of one predictor."""

  def __init__(self, predictor: Predictor):
    self.predictor = predictor
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
      'require': list(predictor.require),
      'allow_absent': list(predictor.allow_absent),
      'subsets': [s for s in card.subsets if set(s.split('+')) <= set(predictor.modalities)],
      'thresholds': {
        name: {'value': _finite(about.get('value')), 'rule': about.get('rule', '')}
        for name, about in contents['thresholds'].items()
        if isinstance(about, dict)
      },
      'test': test,
      'acer': {name: _finite(values.get('acer')) for name, values in metrics.items()},
      'bits': {m: list(card.bits(m)) for m in predictor.modalities},
      'crop': framing.recipe.method if framing else '',
      'notes': list(contents.get('notes', contents.get('remarks', []))),
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
    return self.predictor.card.read_file(name)

  def decide(self, asked: Asked) -> dict[str, Any]:
    """The decision about some images, and the decision that each subset of them leads to.

    Args:
      asked: by `parse`.

    Returns:
      'decision' and 'subsets' {name: decision}, as `Decision.as_json` has them, no subset where a
      sensor is unusable and may not be absent; 'present'; 'unusable'; 'seen' {modality: the image
      that the model saw, as a data URL}; 'milliseconds'.

    Raises:
      FlexfasError: what is wrong with the images.
    """
    predictor, allowed = self.predictor, asked.allow_absent
    if unknown := set(asked.images) - set(predictor.modalities):
      raise DataError(f'there is no modality {sorted(unknown)[0]!r} in this model')
    start = time.perf_counter()
    acquired = predictor.acquire(asked.images)
    used = predictor.used(acquired)
    whole = predictor.decide(acquired, used, allowed)
    seconds = time.perf_counter() - start
    subsets = {}
    if used and set(acquired.unusable) <= set(allowed):
      subsets['+'.join(used)] = whole
      for n in range(1, len(used)):
        for subset in itertools.combinations(used, n):
          subsets['+'.join(subset)] = self._decide(acquired, subset, allowed)
    return {
      'decision': dataclasses.replace(whole, seconds=seconds).as_json(),
      'subsets': {name: one.as_json() for name, one in subsets.items()},
      'present': list(used),
      'unusable': list(acquired.unusable),
      'seen': {m: _data_url(acquired.arrays[m]) for m in used},
      'milliseconds': 1000 * seconds,
    }

  def _decide(self, acquired, subset, allowed) -> Decision:
    """The decision of a subset; a failure to acquire where it has no threshold.

    A model that fails raises: its failure is no decision.
    """
    if not self.predictor.refusal(subset, acquired.unusable, allowed):
      try:
        self.predictor.card.threshold('+'.join(subset))
      except StateError as error:
        return Decision(decisions.FTA, used=tuple(subset), reasons=(str(error),))
    return self.predictor.decide(acquired, subset, allowed)


def parse(content: bytes | bytearray) -> Asked:
  """What a request's content asks.

  Args:
    content: JSON, {'pictures': {modality: base64 of a JPEG or PNG}, 'allow_absent': [modality]};
      'allow_absent' may be missing: none.

  Raises:
    DataError: it is something else; a key comes twice, which readers understand differently.
  """
  if sum(map(content.count, (b'[', b'{', b',', b'"'))) > _MOST:
    raise DataError(f'the JSON is nested too deep or has too many values; {_DUE}')
  try:
    found = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
  except ValueError as error:  # of JSON, of UTF-8, of an int with too many digits
    raise DataError(f'the content is not JSON in UTF-8: {error}') from None
  if not isinstance(found, dict) or not {'pictures'} <= set(found) <= {'pictures', 'allow_absent'}:
    raise DataError(_DUE)
  texts, allowed = found['pictures'], found.get('allow_absent', [])
  if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
    raise DataError(_DUE)
  if not isinstance(allowed, list) or not all(isinstance(name, str) for name in allowed):
    raise DataError(_DUE)
  try:
    images = {m: base64.b64decode(text, validate=True) for m, text in texts.items()}
  except ValueError:
    raise DataError('the images are not in base64') from None
  return Asked(images, tuple(allowed))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise DataError('a key of the JSON comes twice')
  return found


def _no_constant(name: str):
  raise DataError(f'{name} is not JSON')


def _finite(number: Any) -> float | None:
  """What JSON can hold: a card may have NaN where a rate is undefined."""
  usable = isinstance(number, int | float) and math.isfinite(number)
  return number if usable else None


def _data_url(array: np.ndarray) -> str:
  """[S, S, C] float32 in [-1, 1] as a PNG that a page can show."""
  levels = np.clip(np.rint(array * 128 + 127.5), 0, 255).astype(np.uint8)
  encoded = cv2.imencode('.png', np.ascontiguousarray(levels[..., ::-1]))[1]
  return 'data:image/png;base64,' + base64.b64encode(encoded.tobytes()).decode()


def _samples(predictor: Predictor) -> list[dict]:
  """Those of the bundle, with the files of the modalities that the predictor has."""
  samples = predictor.card.samples()
  for one in samples:
    one['files'] = {m: one['files'][m] for m in predictor.modalities if m in one['files']}
  return samples
