"""A main job that is small to compile, started in as many processes as a test wants."""

import json
import os
import pathlib
import socket
import subprocess

from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 8
# Two sensors, concatenated. Neither val (36 samples) nor the test is divided by the batch, and of
# the last batch some of several processes have padding alone.
CONFIG = """
from ml_collections import ConfigDict
from configs import vit_fusion

def get_config():
  c = vit_fusion.get_config()
  c.data_dir = {data_dir!r}
  c.train = 'rendered_faces/surf_like_tiny:train'
  c.val = 'rendered_faces/surf_like_tiny:val'
  c.test = ConfigDict({{'intra': 'rendered_faces/surf_like_tiny:test'}})
  c.threshold = ConfigDict({{'intra': 'dev_eer'}})
  c.photometric = ConfigDict()
  c.model = ConfigDict({{'modalities': ('rgb', 'ir'), 'image_size': 16}})
  c.model.backbone = ConfigDict({{'name': 'vit', 'variant': 'mu', 'patch_size': 8}})
  c.model.fusion = ConfigDict({{'name': 'concat'}})
  c.model.head = ConfigDict({{'name': 'binary_logit', 'dropout': 0.1}})
  c.modality_dropout = ConfigDict({{'ir': 0.5}})
  c.schedule.warmup = 2
  c.report = False
  c.batch_size, c.eval_batch_size, c.steps = 8, 24, {steps}
  c.eval_every, c.checkpoint_every, c.log_every = 8, 2, 1
  return c
"""


def write_config(path, data_dir):
  """The config as a file, which any process can read."""
  path.write_text(CONFIG.format(data_dir=data_dir, steps=STEPS))
  return path


def start(config, workdir, processes, devices, *more):
  """The main job in so many processes of so many devices each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  environment = {
    **os.environ,
    # As in this process, but for the devices: of a flag given twice the last counts.
    'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}',
  }
  started = []
  for i in range(processes):
    flags = [f'--config={config}', f'--workdir={workdir}', *more]
    if processes > 1:
      flags += ['--distributed', f'--coordinator=localhost:{port}', f'--process_id={i}']
      flags += [f'--num_processes={processes}']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    started.append(forked.start('flexfas_jax.main', *flags, env=environment, **pipes))
  return started


def finish(started):
  """[(exit code, stdout, stderr)]."""
  said = [process.communicate(timeout=300) for process in started]
  return [(process.returncode, *text) for process, text in zip(started, said, strict=True)]


def losses(workdir):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}
