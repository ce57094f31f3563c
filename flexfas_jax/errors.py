"""Errors, and the exit code of each kind (0: done; 1: a bug in this package).

A message states what is wrong, where (file, row) and what to do, on one screen. Commands print it
without a traceback, unless `--debug` is given.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

INTERRUPTED = 130  # as shells report Ctrl-C
STOPPED = 143  # as shells report SIGTERM
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h

# Packages whose name differs from that of their module.
_PACKAGES = {
  'PIL': 'pillow',
  'absl': 'absl-py',
  'array_record': 'array-record',
  'cv2': 'opencv-python-headless',
  'ml_collections': 'ml-collections',
  'orbax': 'orbax-checkpoint',
  'sklearn': 'scikit-learn',
  'tensorflow_datasets': 'tensorflow-datasets',
}


class FlexfasError(Exception):
  """An error that a user can act on; `exit_code` is that of the command."""

  exit_code = 1


class ConfigError(FlexfasError):
  """Wrong usage or config."""

  exit_code = 2


class DataError(FlexfasError):
  """Data that is missing, damaged or inconsistent."""

  exit_code = 3


class StateError(FlexfasError):
  """A checkpoint, workdir or threshold that is missing, damaged or of another model or config."""

  exit_code = 4


class ExportError(FlexfasError):
  """An exported model that does not reproduce the checkpoint's decisions."""

  exit_code = 5


class TemporaryError(FlexfasError):
  """What may succeed later: processes that did not all start, a bucket that does not answer."""

  exit_code = TEMPORARY


class Stopped(FlexfasError):
  """The run stopped on SIGTERM after `step` of `steps`; everything is saved."""

  exit_code = STOPPED

  def __init__(self, step: int, steps: int):
    super().__init__(
      f'stopped by SIGTERM after step {step} of {steps}, which is saved; rerun the same command to '
      'resume'
    )


def attempt(
  problems: list[FlexfasError], where: str, function: Callable[..., Any], *args: Any, **fields: Any
) -> Any:
  """Calls a function and collects its FlexfasError, so that one run reports all problems.

  Args:
    found: the error is appended here; its message names a field of the config.
    where: that field, for a message that names none.
    function: called with `args` and `fields`.

  Returns:
    What the function returns; None if it raised.
  """
  try:
    return function(*args, **fields)
  except FlexfasError as error:
    text = str(error)
    problems.append(error if 'config.' in text else type(error)(f'{where}: {text}'))
    return None


def raise_all(problems: Sequence[FlexfasError]) -> None:
  """Raises the errors that `attempt` collected, if any: a single error, or one that lists all.

  Raises:
    FlexfasError: of the errors' kind; a ConfigError if their kinds differ.
  """
  if not problems:
    return
  if len(problems) == 1:
    raise problems[0]
  kinds = {type(error) for error in problems}
  kind = kinds.pop() if len(kinds) == 1 else ConfigError
  raise kind(f'{len(problems)} problems:\n' + '\n'.join(f'- {error}' for error in problems))


@contextlib.contextmanager
def required_imports(module: str) -> Iterator[None]:
  """Ends a command with a message if a library that its imports need is not installed.

    with errors.required_imports(__name__):
      from flexfas_jax.prediction import Predictor

  Args:
    module: `__name__` of the command; only a process whose program it is ends.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    if module != '__main__' or '--debug' in sys.argv or _is_ours(error):
      raise
    print(f'error: {_not_installed(error)}', file=sys.stderr)
    sys.exit(ConfigError.exit_code)


def _is_ours(error: ModuleNotFoundError) -> bool:
  return not error.name or error.name.partition('.')[0] == __name__.partition('.')[0]


def _not_installed(error: ModuleNotFoundError) -> str:
  module = (error.name or '').partition('.')[0]
  package = _PACKAGES.get(module, module)
  return (
    f'this command requires {package}, which is not installed: pip install {package} (all that the '
    'commands require: pip install flexfas_jax)'
  )


def exit_code_of(command: Callable[[], None], debug: bool = False, broken_pipe: int = 0) -> int:
  """Runs a command's body and turns its errors into one message on stderr and an exit code.

  Args:
    command: what to run; called without arguments.
    debug: let the traceback through.
    broken_pipe: the code when the reader of stdout has gone; 0 for commands that only print.

  Returns:
    0, the exit code of the `FlexfasError` that was raised, or 130 after Ctrl-C.
  """
  for name in ('stdout', 'stderr'):
    if getattr(sys, name) is None:  # closed: `>&-`
      setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):  # a terminal may not support every character
      stream.reconfigure(errors='backslashreplace')
  try:
    command()
    sys.stdout.flush()
  except Stopped as stop:
    print(stop, file=sys.stderr)
    return stop.exit_code
  except FlexfasError as error:
    if debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    return error.exit_code
  except ModuleNotFoundError as error:  # an installation without all dependencies
    if debug or _is_ours(error):
      raise
    print(f'error: {_not_installed(error)}', file=sys.stderr)
    return ConfigError.exit_code
  except MemoryError as error:
    if debug:
      raise
    print(f'error: out of memory ({error or "of this machine"})', file=sys.stderr)
    return ConfigError.exit_code
  except BrokenPipeError:  # e.g. `... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return broken_pipe
  except OSError as error:
    if debug or error.filename is not None or error.errno != errno.ENOSPC:
      raise
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f'error: the output cannot be written: {error.strerror}', file=sys.stderr)
    return ConfigError.exit_code
  except KeyboardInterrupt:
    if debug:
      raise
    print('interrupted; rerun the same command to resume from what was saved', file=sys.stderr)
    return INTERRUPTED
  return 0
