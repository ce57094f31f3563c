"""What a frozen backbone saves: a training step with LoRA against full fine-tuning.

  python -m experiments.performance.frozen tpu --variants=full,lora --images=32
  python -m experiments.performance.frozen cpu --variants=full,lora --images=4

The recipe is `adapter_fusion:lora_dinov2_flexmodal` (ViT-B/14 with registers, 224 pixels) with RGB
alone and random weights. `tpu` compiles the step with the TPU compiler for one chip, in bfloat16:
bytes are the compiler's, time is its estimate, and nothing is run. `cpu` runs steps of all variants
alternately in one process, in float32. Each new row replaces the earlier one in frozen.csv.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import adapter_fusion
from experiments.performance import results, timing, tpu
from flexfas_jax.errors import exit_code_of
from flexfas_jax.preflight import run as preflight
from flexfas_jax.preflight.chips import CHIPS
from flexfas_jax.training import setup

HERE = pathlib.Path(__file__).parent
FROZEN = ('adapters', 'head')  # of the recipe's patterns, those that RGB alone has
DEPTH = 12  # blocks of ViT-S and ViT-B
LAST = tuple(range(6, DEPTH))
VARIANTS = {
  'full': {'trainable': ()},
  'full_plain': {'trainable': (), 'lora': False},
  'full_remat': {'trainable': (), 'remat': True},
  'lora': {'trainable': FROZEN},
  'lora_remat': {'trainable': FROZEN, 'remat': True},
  'lora_last6': {'trainable': FROZEN, 'blocks': LAST},
  'lora_no_dropout': {'trainable': FROZEN, 'dropout': 0.0},
}
KEY = ('device', 'variant', 'images', 'blocks')
COLUMNS = (
  *KEY,
  *('dtype', 'GiB', 'GiB_state', 'GiB_temp', 'step_ms', 'step_ms_low', 'step_ms_high'),
  *('TFLOP', 'compile_s', 'load', 'operations'),
)


def config_of(
  variant: str, dtype: str, images: int, size: str = 'B', blocks: int | None = None
) -> ConfigDict:
  """The recipe with RGB alone, without pretrained weights; `blocks`: None, the ViT's own."""
  fields = VARIANTS[variant]
  config = adapter_fusion.get_config('lora_dinov2_flexmodal')
  with config.unlocked():
    config.pretrained = None
    config.model.update({'modalities': ('rgb',), 'dtype': dtype})
    config.model.fusion = ConfigDict({'name': 'single'})
    config.modality_dropout = ConfigDict()
    for modality in set(config.photometric) - {'rgb'}:
      del config.photometric[modality]
    lora = dict(config.model.backbone.adapters[0])
    if 'blocks' in fields:
      lora['blocks'] = fields['blocks']
    lora['dropout'] = fields.get('dropout', lora['dropout'])
    config.model.backbone.adapters = (lora,) if fields.get('lora', True) else ()
    config.model.backbone.remat = fields.get('remat', False)
    config.model.backbone.update({'variant': size, 'depth': blocks})
    config.trainable = fields['trainable']
    config.batch_size = images
  return config


def memory_of(compiled) -> dict[str, str]:
  """Memory of a compiled step: the state is among its arguments, which it overwrites."""
  use = compiled.memory_analysis()
  return {
    'GiB_state': f'{use.argument_size_in_bytes / 2**30:.3f}',
    'GiB_temp': f'{use.temp_size_in_bytes / 2**30:.3f}',
  }


def by_compiler(variant: str, images: int, topology: str, blocks: int | None) -> dict:
  """A row of `COLUMNS` by the TPU compiler."""
  config = config_of(variant, 'bfloat16', images, blocks=blocks)
  flops = preflight.step_flops(tpu.experiment_of(config, jax.devices('cpu')[:1]))
  experiment = tpu.experiment_of(config, preflight.slice_devices(topology))
  start = time.perf_counter()
  needed, compiled = preflight.compile_step(experiment, f'{variant}, {images} images')
  row = {'device': topology, 'variant': variant, 'images': images, 'dtype': 'bfloat16'}
  row['blocks'] = blocks or DEPTH
  row |= {'GiB': f'{needed / 2**30:.3f}', 'TFLOP': f'{flops / 1e12:.3f}'}
  row |= {'compile_s': f'{time.perf_counter() - start:.0f}', 'load': f'{os.getloadavg()[0]:.1f}'}
  if compiled is None:
    return row
  text = compiled.as_text()
  found = preflight.estimate(text, experiment, CHIPS[topology.partition(':')[0]], flops)
  row |= {'step_ms': f'{1e3 * found["estimated_step_seconds"]:.2f}'} | memory_of(compiled)
  return row | {'operations': tpu.operations(text, 8)}


def by_running(variants: list[str], images: int, size: str, repeats: int) -> list[dict]:
  """Rows of `COLUMNS` on this machine's CPU."""
  rows, runs = [], {}
  for variant in variants:
    config = config_of(variant, 'float32', images, size)
    experiment = tpu.experiment_of(config, jax.devices('cpu')[:1])
    flops = preflight.step_flops(experiment)
    start = time.perf_counter()
    compiled = (
      setup.make_step(experiment)
      .lower(experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment))
      .compile()
    )
    seconds = time.perf_counter() - start
    runs[variant] = stepper(compiled, experiment)
    memory = memory_of(compiled)
    rows.append(
      {'device': f'cpu, ViT-{size}', 'variant': variant, 'images': images, 'dtype': 'float32'}
      | {'blocks': DEPTH}
      | {'GiB': f'{float(memory["GiB_state"]) + float(memory["GiB_temp"]):.3f}', **memory}
      | {'TFLOP': f'{flops / 1e12:.3f}', 'compile_s': f'{seconds:.0f}'}
    )
  times = timing.interleaved(runs, repeats)
  for row in rows:
    found = times[row['variant']]
    row['step_ms'] = f'{1e3 * statistics.median(found):.0f}'
    row |= {'step_ms_low': f'{1e3 * min(found):.0f}', 'step_ms_high': f'{1e3 * max(found):.0f}'}
    row['load'] = f'{os.getloadavg()[0]:.1f}'
  first = times[variants[0]]
  for name in variants[1:]:
    print(timing.row(f'{name} against {variants[0]}', first, times[name]), flush=True)
  return rows


def stepper(compiled, experiment: setup.Experiment):
  """A function without arguments that runs a further step on noise and waits for it."""
  key = jax.device_put(jax.random.key(0), setup.abstract_key(experiment).sharding)
  state = jax.jit(experiment.init, out_shardings=setup.shardings(experiment))(key)
  rng = jax.random.key(1)
  shapes = setup.abstract_batch(experiment)
  batch = {
    name: jax.random.normal(rng, s.shape) if s.ndim == 4 else jnp.ones(s.shape, s.dtype)
    for name, s in shapes.items()
  }
  batch = {name: jax.device_put(x, shapes[name].sharding) for name, x in batch.items()}
  held = [state]

  def step():
    held[0], metrics = compiled(held[0], batch, key)
    metrics['loss'].block_until_ready()

  return step


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.performance.frozen',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('device', choices=['tpu', 'cpu'])
  parser.add_argument('--variants', default='full,lora', help=f'of {", ".join(VARIANTS)}')
  parser.add_argument('--images', type=int, default=32, help='in a batch')
  parser.add_argument('--blocks', type=int, help='of `tpu`: fewer than the ViT has')
  parser.add_argument('--topology', default='v5e:1x1', help='of `tpu`: one chip')
  parser.add_argument('--size', default='B', help='of `cpu`: variant of the ViT')
  parser.add_argument('--repeats', type=int, default=5, help='of `cpu`: rounds that count')
  parser.add_argument('--out', type=pathlib.Path, default=HERE / 'frozen.csv')
  parser.add_argument('--debug', action='store_true', help='tracebacks instead of messages')
  options = parser.parse_args()

  def command():
    preflight.hide_accelerators()
    names = options.variants.split(',')
    if options.device == 'cpu':
      rows = iter(by_running(names, options.images, options.size, options.repeats))
    else:
      rows = (by_compiler(name, options.images, options.topology, options.blocks) for name in names)
    for row in rows:
      results.replace(options.out, [row], COLUMNS, KEY)
      print('  '.join(f'{k} {v}' for k, v in row.items()), flush=True)

  return exit_code_of(command, options.debug)


if __name__ == '__main__':
  sys.exit(main())
