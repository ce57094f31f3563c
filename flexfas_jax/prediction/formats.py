"""Which of a bundle's models runs here, and by which library."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError, FlexfasError, StateError
from flexfas_jax.prediction.card import Card

# images {modality: [B, S, S, C] float32}, present [B, M] bool -> logit [B] float32
Run = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]


class Runtime(NamedTuple):
  """What runs a format."""

  module: str  # that must be there
  install: str  # what pip is to install


# The first whose library is there is taken where nobody says which.
RUNTIMES = {
  'stablehlo': Runtime('jax', 'jax flatbuffers'),
  'onnx': Runtime('onnxruntime', 'onnxruntime'),
  'tflite': Runtime('ai_edge_litert', 'ai-edge-litert'),
}
# Asked for by name alone: it brings the whole model code along.
ALL = RUNTIMES | {'weights': Runtime('flax', 'flexfas_jax')}
PRECISIONS = ('float32', 'float16', 'int8')


def choose(
  card: Card, format: str | None, precision: str = 'float32', modalities: tuple[str, ...] = ()
) -> dict:
  """The entry of the model that is meant, in the card's `models`.

  Args:
    card: of the bundle.
    format: one of `ALL`; None: the first whose library is installed.
    precision: one of `PRECISIONS`.
    modalities: of a model for these alone; (): the one for any of them.

  Raises:
    ConfigError: no such format or model, or its library is not installed.
  """
  if format is not None and format not in ALL:
    raise ConfigError(f'no format {format!r}; choose one of: {", ".join(ALL)}')
  entries = [m for m in card.contents['models'] if _fits(card, m, precision, modalities)]
  offered = [m['format'] for m in entries if m['format'] in ALL]
  what = precision + (f' for {"+".join(modalities)} alone' if modalities else '')
  if format is None:
    format = next((f for f in RUNTIMES if f in offered and installed(f)), None)
    if format is None:
      ways = ' or '.join(f'pip install {RUNTIMES[f].install}' for f in RUNTIMES if f in offered)
      raise ConfigError(
        f'nothing that is installed runs a model ({what}) of {card.folder}: {ways}'
        if ways
        else f'{card.folder} has no model ({what}); {_offers(card)}'
      )
  for entry in entries:
    if entry['format'] == format:
      if not installed(format):
        raise _missing(format)
      return entry
  raise ConfigError(f'{card.folder} has no {format} model ({what}); {_offers(card)}')


def _fits(card: Card, entry: Mapping, precision: str, modalities: tuple[str, ...]) -> bool:
  if entry.get('precision', 'float32') != precision:
    return False
  own = tuple(entry.get('modalities', card.modalities))
  alone = not entry.get('present', True)
  return (alone and own == modalities) if modalities else not alone and own == card.modalities


def _offers(card: Card) -> str:
  return 'it has: ' + (', '.join(m['file'] for m in card.contents['models']) or 'none')


def installed(format: str) -> bool:
  """Whether a format's library is there; it is not imported."""
  return importlib.util.find_spec(ALL[format].module) is not None


def _missing(format: str, error: Exception | None = None) -> ConfigError:
  module, install = ALL[format]
  why = f' ({error})' if error else ''
  return ConfigError(f'{format} needs {module}, which is not installed{why}: pip install {install}')


def load(card: Card, entry: Mapping) -> Run:
  """The function of a model: the bytes that were verified are the bytes that run.

  Raises:
    ConfigError: its library is not installed.
    StateError: the file is damaged, or does not do what the card says.
  """
  path, format = card.folder / entry['file'], entry['format']
  content = card.read_file(entry['file'])
  runner = importlib.import_module(f'flexfas_jax.prediction.runners.{format}')
  try:
    # Weights alone are no graph: what runs them is the model that the card describes.
    run = runner.load(content, {**entry, 'model': card.contents['model']})
  except ImportError as error:
    raise _missing(format, error) from error
  except FlexfasError:
    raise
  except Exception as error:  # each library raises what it likes
    raise StateError(f'{path} cannot be loaded as {format}: {error}') from error

  def checked(images: Mapping[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    try:
      logit = np.asarray(run(images, present), np.float32)
    except FlexfasError:
      raise
    except Exception as error:
      raise StateError(f'{path} failed when it was run: {error}') from error
    if logit.shape != (len(present),):
      raise StateError(f'{path} gave logits of shape {logit.shape} for {len(present)} samples')
    return logit

  return checked
