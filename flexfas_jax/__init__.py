"""Flexible-modal face anti-spoofing in JAX: one model for any subset of RGB, depth and infrared.

The public names are imported on first use: `import flexfas_jax` imports neither NumPy nor JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from flexfas_jax.evaluation.evaluate import evaluate
  from flexfas_jax.models.flexmodal import build as build_model
  from flexfas_jax.models.weights.conversion import load as load_pretrained
  from flexfas_jax.prediction import Predictor

__version__ = '0.1.0'

__all__ = ['Predictor', '__version__', 'build_model', 'evaluate', 'load_pretrained']

_SOURCES = {  # public name: (module, attribute)
  'Predictor': ('flexfas_jax.prediction', 'Predictor'),
  'build_model': ('flexfas_jax.models.flexmodal', 'build'),
  'evaluate': ('flexfas_jax.evaluation.evaluate', 'evaluate'),
  'load_pretrained': ('flexfas_jax.models.weights.conversion', 'load'),
}


def __getattr__(name: str) -> object:
  if name not in _SOURCES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _SOURCES[name]
  value: object = getattr(importlib.import_module(module), attribute)
  globals()[name] = value  # so that the next access skips this function
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
