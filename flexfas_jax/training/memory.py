"""Running out of memory, of a device or of the host, ends with the config fields that save some."""

import contextlib
import errno
import re
from collections.abc import Iterator

import cv2
import jax
from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, FlexfasError

# Every allocator's words: XLA's own, GPUs', the TPU compiler's. Quotas are "exhausted" as well.
_WORDS = re.compile(r'RESOURCE_EXHAUSTED.*(memory|alloc)', re.IGNORECASE | re.DOTALL)


@contextlib.contextmanager
def explain_exhaustion(config: ConfigDict) -> Iterator[None]:
  """Turns an error of an allocation that failed into a ConfigError with what to change.

  Args:
    config: of the run; the message has its values.
  """
  try:
    yield
  except Exception as error:
    if (cause := _exhaustion(error)) is None:
      raise
    raise ConfigError(_message(config, cause)) from error


def _exhaustion(error: BaseException | None) -> BaseException | None:
  """The failed allocation that led to an error of a library; None: there is none."""
  while error is not None and not isinstance(error, FlexfasError):
    if isinstance(error, MemoryError) or getattr(error, 'errno', None) == errno.ENOMEM:
      return error
    if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
      return error
    if isinstance(error, jax.errors.JaxRuntimeError) and _WORDS.search(str(error)):
      return error
    error = error.__cause__ or error.__context__
  return None


def _message(config: ConfigDict, cause: BaseException) -> str:
  reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]
  training = _present(config, _TRAINING)
  evaluation = _present(config, _EVALUATION)
  return (
    f'out of memory ({reason}). Training needs less with {training}; evaluation with {evaluation}. '
    'Rerun with --allow_config_change if the run has started'
  )


_TRAINING = (
  'a larger config.accumulate',
  'config.model.backbone.remat = True',
  'a larger config.mesh.fsdp',
  'a smaller config.batch_size',
)
_EVALUATION = ('a smaller config.eval_batch_size',)


def _present(config: ConfigDict, changes: tuple[str, ...]) -> str:
  """The changes, each with the present value of its field, which an old config may lack."""
  listed = []
  for change in changes:
    value = config
    for name in re.search(r'config\.([\w.]+)', change)[1].split('.'):
      value = value.get(name) if isinstance(value, ConfigDict) else None
    listed.append(change if value is None else f'{change} ({value} now)')
  return ', '.join(listed)
