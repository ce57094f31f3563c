"""Chooses a model of a bundle and loads it with the library of its format."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError, FlexfasError, StateError
from flexfas_jax.prediction.card import Card

# images {modality: [B, S, S, C] float32}, present [B, M] bool -> logit [B] float32
ModelFunction = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]


class Runtime(NamedTuple):
  """The library that runs a format."""

  module: str  # name for import
  install: str  # names for pip


# In order of preference.
RUNTIMES = {
  'stablehlo': Runtime('jax', 'jax flatbuffers'),
  'onnx': Runtime('onnxruntime', 'onnxruntime'),
  'tflite': Runtime('ai_edge_litert', 'ai-edge-litert'),
}
# `weights` is never the default: it requires the model code.
FORMATS = RUNTIMES | {'weights': Runtime('flax', 'flexfas_jax')}
PRECISIONS = ('float32', 'float16', 'int8')


def choose_model(
  card: Card, format: str | None, precision: str = 'float32', modalities: tuple[str, ...] = ()
) -> dict:
  """Chooses a model by its format, precision and modalities.

  Args:
    card: of the bundle.
    format: one of `FORMATS`; None: the first of `RUNTIMES` whose library is installed.
    precision: one of `PRECISIONS`.
    modalities: of a model for exactly these; (): the model for any subset.

  Returns:
    Its entry in the card's `models`.

  Raises:
    ConfigError: no such format or model, or its library is not installed.
  """
  if format is not None and format not in FORMATS:
    raise ConfigError(f'unknown format {format!r}; choose one of: {", ".join(FORMATS)}')
  entries = {
    entry['format']: entry
    for entry in reversed(card.contents['models'])  # of equal ones the first
    if entry['format'] in FORMATS and _matches(card, entry, precision, modalities)
  }
  what = precision + (f' for {"+".join(modalities)} alone' if modalities else '')
  if format is None:
    candidates = [name for name in RUNTIMES if name in entries]
    format = next(filter(is_installed, candidates), None)
    if candidates and format is None:
      ways = ' or '.join(f'pip install {RUNTIMES[name].install}' for name in candidates)
      raise ConfigError(f'no installed library runs a model ({what}) of {card.folder}: {ways}')
  if format not in entries:
    kind = f'{format} model' if format else 'model'
    files = ', '.join(entry['file'] for entry in card.contents['models']) or 'none'
    raise ConfigError(f'{card.folder} has no {kind} ({what}); it has: {files}')
  if not is_installed(format):
    raise _not_installed(format)
  return entries[format]


def _matches(card: Card, entry: Mapping, precision: str, modalities: tuple[str, ...]) -> bool:
  if entry.get('precision', 'float32') != precision:
    return False
  own = tuple(entry.get('modalities', card.modalities))
  alone = not entry.get('present', True)
  return (alone and own == modalities) if modalities else not alone and own == card.modalities


def is_installed(format: str) -> bool:
  """Whether the library of a format is installed, without importing it."""
  return importlib.util.find_spec(FORMATS[format].module) is not None


def _not_installed(format: str, error: Exception | None = None) -> ConfigError:
  module, install = FORMATS[format]
  why = f' ({error})' if error else ''
  return ConfigError(
    f'{format} requires {module}, which is not installed{why}: pip install {install}'
  )


def load_model(card: Card, entry: Mapping) -> ModelFunction:
  """Loads a model from the bytes that were verified.

  Args:
    card: of the bundle.
    entry: of the card's `models`.

  Returns:
    The model's function; it raises StateError if the library fails or the logits have a wrong
    shape.

  Raises:
    ConfigError: the library of the format is not installed.
    StateError: the file is damaged or does not match the card.
  """
  path, format = card.folder / entry['file'], entry['format']
  content = card.read_file(entry['file'])
  runner = importlib.import_module(f'flexfas_jax.prediction.runners.{format}')
  try:
    # The runner of `weights` builds the model from the card's `model`.
    run = runner.load(content, {**entry, 'model': card.contents['model']})
  except ImportError as error:
    raise _not_installed(format, error) from error
  except FlexfasError:
    raise
  except Exception as error:  # the libraries share no class of errors
    raise StateError(f'{path} cannot be loaded as {format}: {error}') from error

  def checked(images: Mapping[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    try:
      logit = np.asarray(run(images, present), np.float32)
    except FlexfasError:
      raise
    except Exception as error:
      raise StateError(f'{path} failed when it ran: {error}') from error
    if logit.shape != (len(present),):
      raise StateError(f'{path} returned logits of shape {logit.shape} for {len(present)} samples')
    return logit

  return checked
