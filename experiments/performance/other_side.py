"""PyTorch in a process of its own, asked for one thing after the other."""

import contextlib
import pathlib
import subprocess

from flexfas_jax.errors import ConfigError

SIDE = pathlib.Path(__file__).with_name('torch_side.py')


@contextlib.contextmanager
def other_side(python: str, name: str, way: str, threads: int, *gpu: int):
  """A function: what to do, 'train' or 'infer', to the seconds that PyTorch took.

  Args:
    python: with PyTorch installed.
    name, way, threads, gpu: as `torch_side.py` has them; `gpu` are images and turns.

  Raises:
    ConfigError: it cannot be run, or ended before it had answered.
  """
  command = [python, '-W', 'ignore', str(SIDE), name, way, *map(str, (threads, *gpu))]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  try:
    process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
  except OSError as error:
    raise ConfigError(f'--torch_python={python} cannot be run: {error.strerror}') from None

  def ask(what: str) -> float:
    try:
      print(what, file=process.stdin, flush=True)
      return float(process.stdout.readline())
    except (BrokenPipeError, ValueError):
      raise ConfigError(
        f'--torch_python={python} ended before it told of {name}, {what}; what it said stands '
        'above. Is PyTorch installed there? (pip install torch==2.13.0)'
      ) from None

  with process:
    try:
      yield ask
    finally:
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
