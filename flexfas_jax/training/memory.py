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
  training = [
    f'a larger config.accumulate ({config.accumulate} now)',
    f'a larger config.mesh.fsdp ({config.mesh.fsdp} now)',
    f'a smaller config.batch_size ({config.batch_size} now)',
  ]
  if 'remat' in config.model.backbone:
    remat = config.model.backbone.remat
    training.insert(1, f'config.model.backbone.remat = True ({remat} now)')
  return (
    f'out of memory ({reason}). Training needs less with {", ".join(training)}; evaluation with a '
    f'smaller config.eval_batch_size ({config.eval_batch_size} now). Rerun with '
    '--allow_config_change if the run has started'
  )
