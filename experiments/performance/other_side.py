"""PyTorch in a process of its own, asked for one thing after the other."""

import contextlib
import pathlib
import subprocess

SIDE = pathlib.Path(__file__).with_name('torch_side.py')


@contextlib.contextmanager
def other_side(python: str, name: str, way: str, threads: int, *gpu: int):
  """A function: what to do, 'train' or 'infer', to the seconds that PyTorch took.

  Args:
    python: with PyTorch installed.
    name, way, threads, gpu: as `torch_side.py` has them; `gpu` are images and turns.
  """
  command = [python, '-W', 'ignore', str(SIDE), name, way, *map(str, (threads, *gpu))]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
  with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:

    def ask(what: str) -> float:
      print(what, file=process.stdin, flush=True)
      return float(process.stdout.readline())

    try:
      yield ask
    finally:
      process.stdin.close()
