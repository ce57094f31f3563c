"""Runs PyTorch in a separate process, one measurement at a time."""

import contextlib
import pathlib
import subprocess

from flexfas_jax.errors import ConfigError

SIDE = pathlib.Path(__file__).with_name('torch_side.py')


@contextlib.contextmanager
def torch_process(python: str, name: str, way: str, threads: int, *gpu: int):
  """A function that runs 'train' or 'infer' and returns the seconds that PyTorch took.

  Args:
    python: an interpreter with PyTorch.
    name, way, threads, gpu: arguments of `torch_side.py`; `gpu` are images and turns.

  Raises:
    ConfigError: the interpreter cannot be run, or ended without an answer.
  """
  command = [python, '-W', 'ignore', str(SIDE), name, way, *map(str, (threads, *gpu))]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  try:
    process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
  except OSError as error:
    raise ConfigError(f'--torch_python={python} cannot be run: {error.strerror}') from None

  def measure(what: str) -> float:
    try:
      print(what, file=process.stdin, flush=True)
      return float(process.stdout.readline())
    except (BrokenPipeError, ValueError):
      raise ConfigError(
        f'--torch_python={python} ended before it measured {name}, {what}; its output is above. Is '
        'PyTorch installed there? (pip install torch==2.13.0)'
      ) from None

  with process:
    try:
      yield measure
    finally:
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
