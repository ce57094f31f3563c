"""Estimates of training steps of single networks with the TPU compiler, on a machine without a TPU.

  pip install '.[tpu]'
  python -m experiments.performance.tpu [--only=vit] [--topology=v5e:2x2,v5e:16x16]

RGB alone, 64 images on each chip, bfloat16, the optimiser of the paper's recipes
(`configs/*_fusion.py:flexmodal`). It reports the estimates of `--mode=preflight`, and the
operations of the model that the compiler expects to take most time. Each new row replaces the
earlier one in tpu.csv.
"""

import argparse
import collections
import importlib
import pathlib
import re
import sys
import time

import jax
from ml_collections import ConfigDict

from experiments.performance import results
from flexfas_jax.errors import ConfigError, exit_code_of
from flexfas_jax.preflight import run as preflight
from flexfas_jax.preflight.chips import CHIPS
from flexfas_jax.training import setup

HERE = pathlib.Path(__file__).parent
NETWORKS = {'vit': 'vit_fusion', 'resnet': 'resnet_fusion', 'cdcn': 'cdcn_fusion'}
BATCH = 64  # images on a chip
KEY = ('network', 'topology', 'dtype', 'images_per_chip', 'remat')
COLUMNS = (
  *KEY,
  *('images_per_second_per_chip', 'mfu'),
  *('step_ms', 'GiB_per_chip', 'compile_s', 'operations'),
)


def config_of(network: str, dtype: str, batch: int, remat: bool = False) -> ConfigDict:
  """The paper's recipe with one sensor."""
  config = importlib.import_module(f'configs.{NETWORKS[network]}').get_config('flexmodal')
  with config.unlocked():
    config.model.update({'modalities': ('rgb',), 'dtype': dtype})
    config.model.fusion = ConfigDict({'name': 'single'})
    config.modality_dropout = ConfigDict()
    config.model.backbone.remat = remat
    config.batch_size = batch
    for modality in set(config.photometric) - {'rgb'}:
      del config.photometric[modality]
  return config


def operations(text: str, most: int = 6) -> str:
  """'share name, ...': the operations with most estimated cycles, by their names in the model."""
  cycles = collections.Counter()
  for line in text.splitlines():
    if found := re.search(r'"estimated_cycles":"(\d+)"', line):
      name = re.search(r'op_name="([^"]*)"', line)
      cycles[_kind(name[1] if name else line.split(' = ')[0].strip())] += int(found[1])
  whole = sum(cycles.values())
  return ', '.join(f'{n / whole:.0%} {name}' for name, n in cycles.most_common(most))


def _kind(name: str) -> str:
  """An operation's name without numbers, so that all blocks of a network count together."""
  way = 'gradient' if 'transpose(' in name else 'forward'
  parts = [re.sub(r'\d+', '', p).strip('_') for p in name.split('/') if '(' not in p]
  return f'{way} {"/".join(parts[-3:])}'


def experiment_of(config: ConfigDict, devices) -> setup.Experiment:
  """The experiment with the config's batch on each device."""
  config = ConfigDict(config)
  config.batch_size *= len(devices)
  config.eval_batch_size = len(devices)  # evaluation is not compiled
  return setup.build(config, devices)


def measure(network: str, dtype: str, batch: int, topology: str, remat: bool) -> dict:
  """A row of `COLUMNS`."""
  config = config_of(network, dtype, batch, remat)
  flops = preflight.step_flops(experiment_of(config, jax.devices('cpu')[:1]))
  experiment = experiment_of(config, preflight.slice_devices(topology))
  start = time.perf_counter()
  needed, compiled = preflight.compile_step(experiment, f'{network}, {topology}')
  seconds = time.perf_counter() - start
  if compiled is None:
    raise ConfigError(f'{network}: {batch} images need {needed:,} bytes on each chip of {topology}')
  text = compiled.as_text()
  found = preflight.estimate(text, experiment, CHIPS[topology.partition(':')[0]], flops)
  return {
    'network': network,
    'topology': topology,
    'dtype': dtype,
    'images_per_chip': batch,
    'remat': remat,
    'images_per_second_per_chip': f'{found[preflight.SPEED]:.0f}',
    'mfu': f'{found["estimated_mfu"]:.3f}',
    'step_ms': f'{1e3 * found["estimated_step_seconds"]:.1f}',
    'GiB_per_chip': f'{needed / 2**30:.2f}',
    'compile_s': f'{seconds:.0f}',
    'operations': operations(text),
  }


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.performance.tpu',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--only', choices=NETWORKS)
  parser.add_argument('--topology', default='v5e:2x2', help='slices, separated by commas')
  parser.add_argument('--dtype', default='bfloat16', choices=['bfloat16', 'float32'])
  parser.add_argument('--batch', type=int, default=BATCH, help='images on each chip')
  parser.add_argument('--remat', action='store_true', help='recompute the activations of blocks')
  parser.add_argument('--out', type=pathlib.Path, default=HERE / 'tpu.csv')
  parser.add_argument('--debug', action='store_true', help='tracebacks instead of messages')
  options = parser.parse_args()

  def command():
    preflight.hide_accelerators()
    for network in [options.only] if options.only else NETWORKS:
      for topology in preflight.parse_topologies(options.topology):
        row = measure(network, options.dtype, options.batch, topology, options.remat)
        results.replace(options.out, [row], COLUMNS, KEY)
        print('  '.join(f'{k} {v}' for k, v in row.items()), flush=True)

  return exit_code_of(command, options.debug)


if __name__ == '__main__':
  sys.exit(main())
