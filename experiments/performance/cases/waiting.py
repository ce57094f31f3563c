"""The share of a training run that waits for input: the quickstart, with its data."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from experiments.performance import timing

STEPS, EVERY = 120, 20
ROOT = pathlib.Path(__file__).parents[3]


def measure(options) -> list[dict]:
  """A step without its wait for input, against a whole step; 1 is no wait. One run, many laps."""
  with tempfile.TemporaryDirectory() as workdir:
    changes = {'steps': STEPS, 'log_every': EVERY, 'eval_every': STEPS, 'checkpoint_every': STEPS}
    changes['data_dir'] = options.data_dir
    subprocess.run(
      [sys.executable, '-m', 'flexfas_jax.main', '--config=configs/vit_fusion.py']
      + [f'--workdir={workdir}', *(f'--config.{k}={v}' for k, v in changes.items())],
      cwd=ROOT,
      env=os.environ | {'XLA_FLAGS': ''},
      stdout=subprocess.DEVNULL,
      check=True,
    )
    lines = map(json.loads, (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines())
    laps = [line for line in lines if 'speed/input_wait' in line]
  step = [lap['speed/step_seconds'] for lap in laps[1:]]  # the first one fills the pipeline
  at_hand = [lap['speed/step_seconds'] * (1 - lap['speed/input_wait']) for lap in laps[1:]]
  return [timing.row("the quickstart's step, input at hand against as it is", at_hand, step)]


measure.needs_data = True
CASES = {'waiting': measure}
