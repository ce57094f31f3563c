"""Answers the requests of the page with a predictor; requests and responses are JSON."""

import base64
import dataclasses
import importlib.util
import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from flexfas_jax.errors import DataError, StateError
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction.card import Card
from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Predictor

_MOST_TOKENS = 200  # brackets, commas and quotes: each may become an object of 64 bytes
_EXPECTED = 'send {"images": {modality: base64}, "allow_absent": [modality]}'


class Request(NamedTuple):
  """A request for a decision."""

  images: dict[str, bytes]  # by modality, the bytes of an image file
  allow_absent: tuple[str, ...]  # modalities that count as absent if they are unusable


class Backend:
  """Serves the page with a predictor."""

  def __init__(self, predictor: Predictor):
    self.predictor = predictor
    self.modalities = _recorded(predictor)
    self.samples = _samples(predictor.card, self.modalities)

  def page_data(self) -> dict[str, Any]:
    """The data of the page before the first request."""
    card, predictor = self.predictor.card, self.predictor
    contents = card.contents
    test, metrics = next(iter(contents.get('metrics', {}).items()), ('', {}))
    cropper = predictor.cropper
    return {
      'name': card.name,
      'model': predictor.entry['file'],
      'modalities': list(self.modalities),
      'never_recorded': [m for m in predictor.modalities if m not in self.modalities],
      'require': list(predictor.require),
      'allow_absent': list(predictor.allow_absent),
      'subsets': [s for s in card.subsets if self._is_shown(s)],
      'thresholds': {
        name: {'value': _finite(entry.get('value')), 'rule': entry.get('rule', '')}
        for name, entry in contents['thresholds'].items()
        if isinstance(entry, dict) and self._is_shown(name)
      },
      'test': test,
      'acer': {
        name: _finite(values.get('acer'))
        for name, values in metrics.items()
        if self._is_shown(name)
      },
      'bits': {m: list(card.bits(m)) for m in self.modalities},
      'formats': _file_suffixes(),
      'crop': cropper.recipe.method if cropper else '',
      'notes': card.notes,
      'failed': card.failed,
      'rendered': card.is_rendered,
      'card_sha256': card.sha256,
      'licence': str(contents.get('licence', '')),
      'samples_licence': _licence_of_samples(card) if self.samples else '',
      'samples': [
        {'id': one['id'], 'label': one.get('label') or '', 'files': one['files']}
        for one in self.samples
      ],
    }

  def _is_shown(self, subset: str) -> bool:
    return set(subset.split('+')) <= set(self.modalities)

  def sample_file(self, name: str) -> bytes | None:
    """The bytes of an image of the bundle's samples; None if there is no such file.

    Raises:
      StateError: the file is not the exported one.
    """
    if not any(name in one['files'].values() for one in self.samples):
      return None
    return self.predictor.card.read_file(name)

  def decide(self, request: Request) -> dict[str, Any]:
    """Decides about images, and about each subset of them.

    Args:
      request: from `parse_request`.

    Returns:
      'decision' and 'subsets' {name: decision}, as `Decision.as_json` has them, without subsets if
      a sensor is unusable and may not be absent; 'present'; 'unusable'; 'inputs' {modality: the
      input of the model, as a data URL}; 'milliseconds'.

    Raises:
      FlexfasError: the images are unusable, or the model fails.
    """
    predictor, allowed = self.predictor, request.allow_absent
    if unknown := set(request.images) - set(predictor.modalities):
      raise DataError(f'this model has no modality {sorted(unknown)[0]!r}')
    if untrained := set(request.images) - set(self.modalities):
      raise DataError(
        f'{sorted(untrained)[0]} was never recorded in the data of this model: send images of '
        f'{", ".join(self.modalities)}'
      )
    start = time.perf_counter()
    acquired = predictor.acquire(request.images)
    used = predictor.used(acquired)
    decision = predictor.decide(acquired, used, allowed)
    seconds = time.perf_counter() - start
    subsets = {}
    if blocked := set(acquired.unusable) - set(allowed):
      # The page has a button for the way out, which the last reason names as an option.
      decision = dataclasses.replace(decision, reasons=acquired.reasons)
    if used and not blocked:
      subsets['+'.join(used)] = decision
      for n in range(1, len(used)):
        for subset in itertools.combinations(used, n):
          subsets['+'.join(subset)] = self._decide(acquired, subset, allowed)
    return {
      'decision': dataclasses.replace(decision, seconds=seconds).as_json(),
      'subsets': {name: one.as_json() for name, one in subsets.items()},
      'present': list(used),
      'unusable': list(acquired.unusable),
      'inputs': {m: _data_url(acquired.arrays[m]) for m in used},
      'milliseconds': 1000 * seconds,
    }

  def _decide(self, acquired, subset, allowed) -> Decision:
    """The decision of a subset; a failure to acquire if it has no threshold."""
    if not self.predictor.refusal(subset, acquired.unusable, allowed):
      try:
        self.predictor.card.threshold('+'.join(subset))
      except StateError as error:
        return Decision(decisions.FTA, used=tuple(subset), reasons=(str(error),))
    return self.predictor.decide(acquired, subset, allowed)


def _file_suffixes() -> dict[str, list[str]]:
  """Suffixes of the image files that are read, by format."""
  suffixes = {
    'JPEG': ['.jpg', '.jpeg'],
    'PNG': ['.png'],
    'TIFF': ['.tif', '.tiff'],
    'WebP': ['.webp'],
    'NPY': ['.npy'],
  }
  if importlib.util.find_spec('pillow_heif'):
    suffixes['HEIC'] = ['.heic', '.heif']
  return suffixes


def parse_request(content: bytes | bytearray) -> Request:
  """Parses the content of a request.

  Args:
    content: JSON, {'images': {modality: base64 of an image file}, 'allow_absent': [modality]};
      'allow_absent' is optional.

  Raises:
    DataError: another content, or a repeated key.
  """
  if sum(map(content.count, (b'[', b'{', b',', b'"'))) > _MOST_TOKENS:
    raise DataError(f'the JSON is nested too deeply or has too many values; {_EXPECTED}')
  try:
    value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
  except ValueError as error:  # of JSON, UTF-8, or an integer with too many digits
    raise DataError(f'the content is not JSON in UTF-8: {error}') from None
  if not isinstance(value, dict) or not {'images'} <= set(value) <= {'images', 'allow_absent'}:
    raise DataError(_EXPECTED)
  texts, allowed = value['images'], value.get('allow_absent', [])
  if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
    raise DataError(_EXPECTED)
  if not isinstance(allowed, list) or not all(isinstance(name, str) for name in allowed):
    raise DataError(_EXPECTED)
  try:
    images = {m: base64.b64decode(text, validate=True) for m, text in texts.items()}
  except ValueError:
    raise DataError('the images are not in base64') from None
  return Request(images, tuple(allowed))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) < len(pairs):
    raise DataError('a key of the JSON is repeated')
  return value


def _no_constant(name: str):
  raise DataError(f'{name} is not JSON')


def _finite(number: Any) -> float | None:
  """A number for JSON; None for anything else, such as an undefined rate."""
  usable = isinstance(number, int | float) and math.isfinite(number)
  return number if usable else None


def _data_url(array: np.ndarray) -> str:
  """Converts [S, S, C] float32 in [-1, 1] to the data URL of a PNG."""
  levels = np.clip(np.rint(array * 128 + 127.5), 0, 255).astype(np.uint8)
  encoded = cv2.imencode('.png', np.ascontiguousarray(levels[..., ::-1]))[1]
  return 'data:image/png;base64,' + base64.b64encode(encoded.tobytes()).decode()


def _recorded(predictor: Predictor) -> tuple[str, ...]:
  """The modalities of the model without those that its data never had.

  The card states no bit depth of such a modality, and has no threshold with it.
  """
  card = predictor.card
  fitted = set('+'.join(card.contents['thresholds']).split('+'))
  kept = {*fitted, *predictor.require, *(m for m in predictor.modalities if card.bits(m))}
  return tuple(m for m in predictor.modalities if m in kept) or predictor.modalities


def _licence_of_samples(card: Card) -> str:
  """What may be done with the images of the samples: not the licence of the weights."""
  if card.is_rendered:
    return 'The samples are rendered with flexfas_jax (Apache-2.0): they show no real subject.'
  return (
    'The samples are images of the data set that card.json names; its licence applies to them. Do '
    'not pass them on without its owner.'
  )


def _samples(card: Card, modalities: Sequence[str]) -> list[dict]:
  """The samples of the bundle that show a face, with the files of the modalities, if any.

  A bundle of data that may not be copied has patterns instead, which have no label: they check an
  implementation, and a decision about them means nothing to a reader.
  """
  samples = [one for one in card.samples() if one.get('label')]
  for one in samples:
    one['files'] = {m: one['files'][m] for m in modalities if m in one['files']}
  return [one for one in samples if one['files']]
