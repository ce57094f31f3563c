"""Flexible-modal face anti-spoofing in JAX: one model for RGB, depth and infrared, any subset.

The names below are imported when they are first used: `import flexfas_jax` imports neither NumPy
nor JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from flexfas_jax.evaluation.judgement import judge as evaluate
  from flexfas_jax.models.flexmodal import build as build_model
  from flexfas_jax.models.pretrained import load as load_pretrained
  from flexfas_jax.prediction import Predictor

__version__ = '0.1.0'

__all__ = ['Predictor', '__version__', 'build_model', 'evaluate', 'load_pretrained']

_WHERE = {
  'Predictor': ('flexfas_jax.prediction', 'Predictor'),
  'build_model': ('flexfas_jax.models.flexmodal', 'build'),
  'evaluate': ('flexfas_jax.evaluation.judgement', 'judge'),
  'load_pretrained': ('flexfas_jax.models.pretrained', 'load'),
}


def __getattr__(name: str) -> object:
  if name not in _WHERE:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _WHERE[name]
  value: object = getattr(importlib.import_module(module), attribute)
  globals()[name] = value  # found at once the next time
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
