"""Kills a training with SIGKILL at ten random moments, some during a save, and compares its result.

  python -m experiments.reliability.kill --workdir=runs/kill --data_dir=prepared

Trains twice with the main command: once uninterrupted, once killed and restarted ten times. The
losses of every step and the whole state must be bit-identical. It takes about ten minutes on two
CPU cores.
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
  """The main command of a run."""
  changed = {**CHANGED, 'data_dir': data_dir}
  return [
    *(sys.executable, '-m', 'flexfas_jax.main', '--config=configs/vit_fusion.py', '--mode=train'),
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in changed.items()),
  ]


def losses(workdir: pathlib.Path) -> dict[int, float]:
  """{step: loss}, without a line that is still being written."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith('\n')]
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def saving(workdir: pathlib.Path) -> bool:
  """Whether a checkpoint is being written."""
  return any((workdir / 'checkpoints').glob('*tmp*'))


def kill_once(workdir, data_dir, rng, within_a_save: bool) -> str:
  """Starts or resumes the run, kills it, and describes the moment."""
  before = max(losses(workdir), default=0)
  process = subprocess.Popen(command(workdir, data_dir), stderr=subprocess.DEVNULL)
  # A few steps after it resumes, so that ten kills fit in.
  target = before + rng.randint(1, STEPS // 10 - 1)
  while process.poll() is None and max(losses(workdir), default=0) < target:
    time.sleep(0.01)
  if within_a_save:
    while process.poll() is None and not saving(workdir):
      time.sleep(0.0005)
  else:
    time.sleep(rng.uniform(0, 0.2))
  was_saving = saving(workdir)
  process.send_signal(signal.SIGKILL)
  code = process.wait()
  reached = max(losses(workdir), default=0)
  return f'killed ({code}) after step {reached}' + (', during a save' if was_saving else '')


def state_of(workdir: pathlib.Path, data_dir: str):
  """The state of the last checkpoint."""
  config = vit_fusion.get_config()
  config.update_from_flattened_dict({**CHANGED, 'data_dir': data_dir})
  experiment = setup.build(config)
  return Checkpoints(workdir / 'checkpoints', 'eer', read_only=True).restore(
    STEPS, experiment.abstract
  )


def main() -> int:
  """Returns 0 if nothing differs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args()
  shutil.rmtree(arguments.workdir, ignore_errors=True)
  uninterrupted, killed = arguments.workdir / 'uninterrupted', arguments.workdir / 'killed'
  subprocess.run(command(uninterrupted, arguments.data_dir), check=True, stderr=subprocess.DEVNULL)
  print(f'uninterrupted: {len(losses(uninterrupted))} steps', flush=True)
  rng = random.Random(arguments.seed)
  for i in range(10):
    line = kill_once(killed, arguments.data_dir, rng, within_a_save=i % 3 == 1)
    print(f'{i + 1}: {line}', flush=True)
  subprocess.run(command(killed, arguments.data_dir), check=True, stderr=subprocess.DEVNULL)
  one, other = losses(uninterrupted), losses(killed)
  differ = [step for step in sorted(one | other) if one.get(step) != other.get(step)]
  print(f'losses: {len(one)} and {len(other)} steps, different at {differ or "none"}')
  states = [state_of(d, arguments.data_dir) for d in (uninterrupted, killed)]
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
