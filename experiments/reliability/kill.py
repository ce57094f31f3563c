"""Kills a training with SIGKILL at ten random moments, some within a save, and compares its end.

  python -m experiments.reliability.kill --workdir=runs/kill --data_dir=prepared

Trains twice by the main command: once unbroken, once killed and started again ten times. Then the
losses of every step and all of the state must be equal, bit for bit. On two CPU cores about ten
minutes; what it prints is the log.
"""

import argparse
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from configs import vit_fusion
from flexfas_jax.training import setup
from flexfas_jax.training.checkpoints import Checkpoints

STEPS, EVERY = 80, 4
CHANGED = {
  'steps': STEPS,
  'eval_every': STEPS // 2,
  'checkpoint_every': EVERY,
  'log_every': 1,
  'model.image_size': 32,
  'model.backbone.patch_size': 8,
}


def command(workdir: pathlib.Path, data_dir: str) -> list[str]:
  """The main command of one of the two runs."""
  changed = {**CHANGED, 'data_dir': data_dir}
  return [
    *(sys.executable, '-m', 'flexfas_jax.main', '--config=configs/vit_fusion.py', '--mode=train'),
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in changed.items()),
  ]


def losses(workdir: pathlib.Path) -> dict[int, float]:
  """By step; a line that is being written is not yet one."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith('\n')]
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def saving(workdir: pathlib.Path) -> bool:
  """Whether a checkpoint is half written."""
  return any((workdir / 'checkpoints').glob('*tmp*'))


def killed_once(workdir, data_dir, rng, within_a_save: bool) -> str:
  """Starts or goes on, kills, and says when that was."""
  before = max(losses(workdir), default=0)
  process = subprocess.Popen(command(workdir, data_dir), stderr=subprocess.DEVNULL)
  # So that ten kills fit in: a few steps after it went on.
  target = before + rng.randint(1, STEPS // 10 - 1)
  while process.poll() is None and max(losses(workdir), default=0) < target:
    time.sleep(0.01)
  if within_a_save:
    while process.poll() is None and not saving(workdir):
      time.sleep(0.0005)
  else:
    time.sleep(rng.uniform(0, 0.2))
  half = saving(workdir)
  process.send_signal(signal.SIGKILL)
  code = process.wait()
  reached = max(losses(workdir), default=0)
  return f'killed ({code}) after step {reached}' + (', within a save' if half else '')


def state_of(workdir: pathlib.Path, data_dir: str):
  """The last checkpoint's state."""
  config = vit_fusion.get_config()
  config.update_from_flattened_dict({**CHANGED, 'data_dir': data_dir})
  experiment = setup.build(config)
  return Checkpoints(workdir / 'checkpoints', 'eer', read_only=True).restore(
    STEPS, experiment.abstract
  )


def main() -> int:
  """0 if nothing differs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  shutil.rmtree(arguments.workdir, ignore_errors=True)
  unbroken, killed = arguments.workdir / 'unbroken', arguments.workdir / 'killed'
  subprocess.run(command(unbroken, arguments.data_dir), check=True, stderr=subprocess.DEVNULL)
  print(f'unbroken: {len(losses(unbroken))} steps', flush=True)
  rng = random.Random(arguments.seed)
  for i in range(10):
    said = killed_once(killed, arguments.data_dir, rng, within_a_save=i % 3 == 1)
    print(f'{i + 1}: {said}', flush=True)
  subprocess.run(command(killed, arguments.data_dir), check=True, stderr=subprocess.DEVNULL)
  one, other = losses(unbroken), losses(killed)
  differ = [step for step in sorted(one | other) if one.get(step) != other.get(step)]
  print(f'losses: {len(one)} and {len(other)} steps, different at {differ or "none"}')
  states = [state_of(d, arguments.data_dir) for d in (unbroken, killed)]
  unequal = [
    jax.tree_util.keystr(path)
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True
    )
    if not np.array_equal(a, b)
  ]
  n = len(jax.tree.leaves(states[0]))
  print(f'state: {n} tensors, different: {", ".join(unequal) or "none"}')
  return int(bool(differ or unequal))


if __name__ == '__main__':
  sys.exit(main())
