"""Starts runs of the small config in processes, and compares what two runs have written."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
from etils import epath

from experiments.reliability import small
from flexfas_jax.training import setup
from flexfas_jax.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]


def start(
  workdir: str,
  steps: int,
  data_dir: str,
  processes: int = 1,
  environments: tuple[dict, ...] = ({}, {}),
  more: tuple[str, ...] = (),
  **pipes,
) -> list[subprocess.Popen]:
  """Starts the main command on the small config.

  Args:
    workdir: local or at gs://.
    steps: of the training.
    data_dir: of the prepared data.
    processes: how many train together, with a device each.
    environments: what each process has in its environment besides that of this one.
    more: further flags.
    **pipes: arguments of `Popen`.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  command = [sys.executable, '-m', 'flexfas_jax.main']
  command += ['--config=experiments/reliability/small.py', f'--workdir={workdir}']
  command += [f'--config.steps={steps}', f'--config.data_dir={data_dir}', *more]
  if processes > 1:
    command += ['--distributed', f'--coordinator=localhost:{port}', f'--num_processes={processes}']
  cheap = (
    '--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true'
  )
  started = []
  for i in range(processes):
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': cheap, **environments[i]}
    number = [f'--process_id={i}'] if processes > 1 else []
    started.append(subprocess.Popen([*command, *number], cwd=ROOT, env=environment, **pipes))
  return started


def losses(workdir: str) -> dict[int, float]:
  """{step: loss}, without a line that is still being written."""
  file = epath.Path(workdir) / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith('\n')]
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def stepping_seconds(workdir: str) -> float:
  """How long a training took without compiling."""
  rows = map(json.loads, (epath.Path(workdir) / 'metrics.jsonl').read_text().splitlines())
  (row,) = [row for row in rows if 'time/total' in row]
  return row['time/total'] - row['time/compile']


def compare(one: str, other: str, steps: int) -> list[str]:
  """Compares two finished runs bit by bit: losses, the whole last state, score files.

  Returns:
    A line for each part that differs.
  """
  different = []
  a, b = losses(one), losses(other)
  if steps_with := [step for step in sorted(a | b) if a.get(step) != b.get(step)]:
    different.append(f'losses of the steps {steps_with[:10]}')
  if sorted(a) != list(range(1, steps + 1)):
    different.append(f'losses: {len(a)} of {steps} steps')
  states = [_last_state(workdir, steps) for workdir in (one, other)]
  leaves = jax.tree_util.tree_leaves_with_path(states[0])
  for (path, x), y in zip(leaves, jax.tree.leaves(states[1]), strict=True):
    if not np.array_equal(x, y):
      different.append(f'state{jax.tree_util.keystr(path)}')
  for name in ('val.csv', 'intra.csv'):
    texts = [(epath.Path(workdir) / 'scores' / name).read_bytes() for workdir in (one, other)]
    if texts[0] != texts[1]:
      different.append(f'scores/{name}')
  return different


def _last_state(workdir: str, steps: int):
  config = small.get_config()
  config.steps = steps
  experiment = setup.build(config, devices=jax.devices()[:1])
  folder = epath.Path(workdir) / 'checkpoints'
  return Checkpoints(folder, 'eer', read_only=True).restore(steps, experiment.abstract)
