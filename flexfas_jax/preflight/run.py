"""What a config's training step will need and take on a TPU slice, before one is rented.

The step is compiled for the slice, with its shardings, by TPU's own compiler, which runs on any
machine (`pip install 'flexfas_jax[tpu]'`). Memory and the program are what a slice would get. Time
is an estimate: the compiler's cycles, plus a model of the collectives (`collectives.py`), which the
compiler gives no cycles. Nothing here was run on a TPU.

`config.batch_size` is taken as the batch of ONE chip, so that every slice has the same work
for each of its chips.
"""

import contextlib
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError
from flexfas_jax.files import write_text
from flexfas_jax.preflight import collectives
from flexfas_jax.preflight.chips import CHIPS, Chip
from flexfas_jax.preflight.flop_count import count_flops
from flexfas_jax.training import setup

EXAMPLE = '--topology=v5e:4x4,v5p:2x2x1,cuda'
PROPOSALS = 4  # compilations, at most, to find the largest batch of one kind of chip
SPEED = 'estimated_triplets_per_second_per_chip'


def run(config: ConfigDict, workdir: str, topology: str | None) -> list[dict[str, Any]]:
  """Compiles a config's step for slices that are not there; prints a table.

  Writes `workdir/preflight.json`: a list with a dict per topology.

  topology, kind, chips: what was asked for.
  batch_per_chip, global_batch: triplets in a step.
  fits: whether the compiler had memory enough.
  bytes_per_chip: that it needs, None where the compiler does not say; of hbm_per_chip.
  flops_per_chip: of products and convolutions in a step, recomputation included.
  compute_seconds: the compiler's cycles over the clock.
  collective_bytes: of all collectives of a step, `collectives.Collective.bytes`.
  collective_seconds: of all, by the model, one after the other.
  estimated_step_seconds: both, one after the other.
  estimated_step_seconds_overlapped: the longer of the two.
  estimated_images_per_second: of the slice; a triplet is as many images as it has modalities.
  estimated_triplets_per_second_per_chip.
  estimated_mfu: flops_per_chip, per second, of the chip's bfloat16 peak.
  collectives: operation, dtype, bytes, chips of a group, groups, count in a step, seconds of all.
  largest_batch_per_chip, too_large_batch_per_chip: seen to fit, and not to, on the smallest slice
    asked for of this kind.
  tried_batches: those, with their bytes and speed: the largest need not be the fastest.
  compile_seconds: on this machine.
  notes: what else is to be known.

  For 'cuda' the step is only lowered: what needs a compiler for TPU is None.

  Args:
    config: as a file of `configs/` returns it.
    workdir: made where it is missing.
    topology: slices, separated by commas, e.g. 'v5e:4x4,v5p:2x2x1,cuda'.

  Returns:
    What was written.

  Raises:
    ConfigError: a topology that is not known, no libtpu, or a wrong config (`setup.build`).
  """
  names = parse(topology)
  keep_from_accelerators()
  alone = _job_of_one(config)
  made = {  # all of them first: what is wrong is told before minutes of compiling
    name: alone if name == 'cuda' else _job(config, config.batch_size, slice_devices(name))
    for name in names
  }
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  flops = step_flops(alone)
  rows = []
  for name, experiment in made.items():
    row = cuda_row(experiment) if name == 'cuda' else slice_row(experiment, name, flops)
    rows.append(row | {'flops_per_chip': flops})
    _write(folder, rows)
  for kind in dict.fromkeys(row['kind'] for row in rows if row['kind'] in CHIPS):
    same = [row for row in rows if row['kind'] == kind]
    smallest = min(same, key=lambda row: row['chips'])
    tried = try_batches(config, smallest, made[smallest['topology']], flops)
    largest, too_large = largest_batch(tried)
    kept = ('batch_per_chip', 'fits', 'bytes_per_chip', SPEED)
    for row in same:
      row |= {'largest_batch_per_chip': largest, 'too_large_batch_per_chip': too_large}
      row |= {'tried_batches': [{name: one[name] for name in kept} for one in tried]}
  _write(folder, rows)
  print(table(rows))
  return rows


def parse(topology: str | None) -> list[str]:
  """The names in a flag's text, each once.

  Raises:
    ConfigError: none, or one that is not of the form KIND:AxB or 'cuda'.
  """
  names = [name.strip() for name in (topology or '').split(',') if name.strip()]
  if not names:
    raise ConfigError(f'--mode=preflight needs --topology, e.g. {EXAMPLE}')
  for name in names:
    kind, _, shape = name.partition(':')
    if name != 'cuda' and (kind not in CHIPS or not re.fullmatch(r'\d+(x\d+){1,2}', shape)):
      raise ConfigError(
        f'--topology={name}: a slice is KIND:AxB or KIND:AxBxC with a kind of '
        f'{", ".join(CHIPS)}, or cuda; e.g. {EXAMPLE}'
      )
  return list(dict.fromkeys(names))


def keep_from_accelerators() -> None:
  """Lets JAX itself run on the CPU, and libtpu compile where there is no TPU.

  Without these, libtpu looks for a TPU, and for the cloud's word on its slice, minutes long.
  """
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1',
    TPU_WORKER_HOSTNAMES='localhost',
    TPU_ACCELERATOR_TYPE='v5litepod-4',
    ALLOW_MULTIPLE_LIBTPU_LOAD='1',  # no chip is opened: several processes may compile
  )
  jax.config.update('jax_platforms', 'cpu')


def slice_devices(name: str) -> Sequence[jax.Device]:
  """The chips of a slice, as JAX devices that can be compiled for.

  Raises:
    ConfigError: no libtpu, or one that does not know the topology.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ConfigError(f"--topology={name} needs TPU's compiler: pip install 'flexfas_jax[tpu]'")
  options: dict[str, Any] = {}
  if name.startswith('v4:'):
    options['chip_config_name'] = 'megacore'  # as on real ones: a chip's two cores are one device
  if math.prod(map(int, re.findall(r'\d+', name.partition(':')[2]))) == 1:
    options['chips_per_host_bounds'] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=name, **options)
  except Exception as error:  # what libtpu raises is of several types
    raise ConfigError(f'--topology={name}: libtpu says: {" ".join(str(error).split())}') from error
  return found.devices


def slice_row(experiment: setup.Experiment, name: str, flops: float) -> dict[str, Any]:
  """What a job's step needs and takes on the slice that it was made for; see `run`."""
  kind = name.partition(':')[0]
  chip = CHIPS[kind]
  row = _row(name, kind, experiment) | {'hbm_per_chip': chip.hbm}
  start = time.perf_counter()
  needed, compiled = compile_step(experiment, f'{name}, {experiment.config.batch_size} triplets')
  row |= {
    'compile_seconds': round(time.perf_counter() - start, 1),
    'bytes_per_chip': needed,
    'fits': compiled is not None and needed <= chip.hbm,
  }
  return row if compiled is None else row | estimate(compiled.as_text(), experiment, chip, flops)


def estimate(text: str, experiment: setup.Experiment, chip: Chip, flops: float) -> dict[str, Any]:
  """How long a compiled step takes.

  Args:
    text: of the optimised program.
    job: that it is of.
    chip: that it is for.
    flops: of a chip in a step.
  """
  program = collectives.read(text, experiment.mesh.size)
  places = np.array([device.coords for device in experiment.mesh.devices.flat])
  torus = collectives.torus(places, chip)
  listed = [
    {
      'operation': one.operation,
      'dtype': one.dtype,
      'bytes': one.bytes,
      'group': len(one.groups[0]),
      'groups': len(one.groups),
      'count': count,
      'seconds': count * collectives.seconds(one, torus, chip),
    }
    for one, count in program.collectives.items()
  ]
  listed.sort(key=lambda one: -one['seconds'])
  compute = program.cycles / chip.clock
  sending = sum(one['seconds'] for one in listed)
  exposed, triplets = compute + sending, experiment.config.batch_size
  notes = []
  if again := len(set(re.findall(r'%([\w.\-]+\.remat[\w.\-]*) = ', text))):
    notes.append(
      f'memory is short: {again} values are computed again; fewer triplets may be faster'
    )
  if program.unknown_loops:
    notes.append(f'{program.unknown_loops} loops of unknown length count once')
  return {
    'compute_seconds': compute,
    'collective_bytes': sum(one['count'] * one['bytes'] for one in listed),
    'collective_seconds': sending,
    'estimated_step_seconds': exposed,
    'estimated_step_seconds_overlapped': max(compute, sending),
    'estimated_images_per_second': triplets * len(experiment.model.modalities) / exposed,
    'estimated_triplets_per_second_per_chip': triplets / experiment.mesh.size / exposed,
    'estimated_mfu': flops / exposed / chip.peak_flops,
    'collectives': listed,
    'notes': notes,
  }


def compile_step(experiment: setup.Experiment, what: str) -> tuple[int | None, Any]:
  """Compiles a job's step; (bytes that a chip needs, compiled), the latter None if too many."""
  lowered = setup.step_fn(experiment).lower(
    experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment)
  )
  try:
    with _progress(f'compiling for {what}'):
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error) or 'hbm' not in str(error).lower():
      raise
    return _bytes_in(str(error)), None
  use = compiled.memory_analysis()
  needed = (
    use.argument_size_in_bytes
    + use.output_size_in_bytes
    - use.alias_size_in_bytes
    + use.temp_size_in_bytes
    + use.generated_code_size_in_bytes
  )
  return needed, compiled


def _bytes_in(message: str) -> int | None:
  """What a program would need, from the compiler's refusal."""
  found = re.search(
    r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|\(([\d.]+)([KMGT])\) exceeds', message
  )
  if not found:
    return None
  number, unit = (part for part in found.groups() if part)
  return int(float(number) * 1024 ** ('KMGT'.index(unit) + 1))


def try_batches(
  config: ConfigDict, row: dict[str, Any], experiment: setup.Experiment, flops: float
) -> list[dict[str, Any]]:
  """Looks for how many triplets a chip can take in a step, by compiling, PROPOSALS times at most.

  The first guess takes memory to grow with the batch, but for the state. It may grow less, since
  the compiler computes values again rather than keep them where memory is short: while all fits,
  the next guess is half as much again, and then one between what fits and what does not.

  Args:
    config: with its batch.
    row: what `slice_row` found for it.
    job: that the row is of.
    flops: of a chip in a step of that batch.

  Returns:
    The row, and one for each batch that was tried.
  """
  tried, state, limit = [row], _state_bytes(experiment), row['hbm_per_chip']
  for _ in range(PROPOSALS):
    fitting, too_large = largest_batch(tried)
    fitting, too_large = fitting or 0, too_large or math.inf
    batch, needed = tried[-1]['batch_per_chip'], tried[-1]['bytes_per_chip']
    guess = (limit - state) / (needed - state) * batch if needed else batch / 2
    if math.isinf(too_large):
      guess = max(guess, 1.5 * fitting)
    elif not fitting < guess < too_large:
      guess = (fitting + too_large) / 2
    batch = _rounded(max(guess, config.accumulate), config.accumulate)
    if not fitting < batch < too_large:
      break
    larger = _job(config, batch, list(experiment.mesh.devices.flat))
    tried.append(slice_row(larger, row['topology'], flops * batch / row['batch_per_chip']))
  return tried


def largest_batch(tried: list[dict[str, Any]]) -> tuple[int | None, int | None]:
  """(the largest batch that was seen to fit, the smallest that was seen not to), None for none."""
  fitting = [row['batch_per_chip'] for row in tried if row['fits']]
  too_large = [row['batch_per_chip'] for row in tried if not row['fits']]
  return max(fitting, default=None), min(too_large, default=None)


def _rounded(batch: float, accumulate: int) -> int:
  """Rounds down to 8 to 15 times a power of 2, then to what `accumulate` divides."""
  batch = int(batch)
  unit = math.lcm(accumulate, 2 ** max(0, batch.bit_length() - 4))
  return batch // unit * unit


def _state_bytes(experiment: setup.Experiment) -> int:
  """What one chip has of the state."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(experiment.abstract)
  )


def step_flops(experiment: setup.Experiment) -> float:
  """FLOPs of the products and convolutions in a step of all devices, loops multiplied out."""
  arguments = (
    experiment.abstract,
    setup.abstract_batch(experiment),
    setup.abstract_key(experiment),
  )
  return float(count_flops(setup.step_fn(experiment), *arguments))


def cuda_row(experiment: setup.Experiment) -> dict[str, Any]:
  """Lowers a job of one device for CUDA, which shows that it can be; see `run`."""
  row = _row('cuda', 'cuda', experiment)
  start = time.perf_counter()
  with _progress('lowering for cuda'):
    jax.export.export(setup.step_fn(experiment), platforms=['cuda'])(
      experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment)
    )
  return row | {
    'compile_seconds': round(time.perf_counter() - start, 1),
    'notes': ['lowered, not compiled: memory and time are not known'],
  }


def _row(name: str, kind: str, experiment: setup.Experiment) -> dict[str, Any]:
  return {
    'topology': name,
    'kind': kind,
    'chips': experiment.mesh.size,
    'batch_per_chip': experiment.config.batch_size // experiment.mesh.size,
    'global_batch': experiment.config.batch_size,
    'images_per_triplet': len(experiment.model.modalities),
    'mesh': dict(experiment.mesh.shape),
    'dtype': experiment.config.model.dtype,
    'notes': [],
  } | dict.fromkeys(
    (
      'fits',
      'bytes_per_chip',
      'hbm_per_chip',
      'flops_per_chip',
      'compute_seconds',
      'collective_bytes',
      'collective_seconds',
      'estimated_step_seconds',
      'estimated_step_seconds_overlapped',
      'estimated_images_per_second',
      'estimated_triplets_per_second_per_chip',
      'estimated_mfu',
      'collectives',
      'largest_batch_per_chip',
      'too_large_batch_per_chip',
      'tried_batches',
    )
  )


def _job(
  config: ConfigDict, batch_per_chip: int, devices: Sequence[jax.Device]
) -> setup.Experiment:
  """The job with this batch on each device; the caller's config stays as it is."""
  config = ConfigDict(config)
  with config.unlocked():
    config.batch_size = batch_per_chip * len(devices)
    config.eval_batch_size = len(devices)  # evaluation is not compiled
  return setup.build(config, devices)


def _job_of_one(config: ConfigDict) -> setup.Experiment:
  """The job of one device, which has the whole state."""
  config = ConfigDict(config)
  with config.unlocked():
    config.mesh = ConfigDict({'data': -1, 'fsdp': 1})
  return _job(config, config.batch_size, jax.devices('cpu')[:1])


def _write(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  write_text(folder / 'preflight.json', json.dumps(rows, indent=1) + '\n')


@contextlib.contextmanager
def _progress(what: str, every: float = 30.0) -> Iterator[None]:
  """Says on stderr what is being done, and every so many seconds that it still is."""
  start, done = time.perf_counter(), threading.Event()

  def elapsed() -> str:
    return f'{time.perf_counter() - start:.0f} s'

  def tell() -> None:
    while not done.wait(every):
      print(f'{what}: {elapsed()} ...', file=sys.stderr, flush=True)

  print(f'{what} ...', file=sys.stderr, flush=True)
  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    print(f'{what}: {elapsed()}', file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
  """What was found, as lines of text, a column per topology."""

  def show(field: str, unit: float = 1.0, digits: int = 0) -> list[str]:
    return ['-' if row[field] is None else f'{row[field] / unit:.{digits}f}' for row in rows]

  lines = {
    '': [row['topology'] for row in rows],
    'chips': show('chips'),
    'triplets in a step': show('global_batch'),
    'fits': [{True: 'yes', False: 'NO', None: '-'}[row['fits']] for row in rows],
    'GiB per chip': show('bytes_per_chip', 2**30, 2),
    '  that a program may have': show('hbm_per_chip', 2**30, 2),
    'triplets per chip, largest seen to fit': show('largest_batch_per_chip'),
    '  smallest seen not to': show('too_large_batch_per_chip'),
    'TFLOP per chip': show('flops_per_chip', 1e12, 2),
    'MB of collectives per chip': show('collective_bytes', 1e6, 1),
    'estimated ms of a step': show('estimated_step_seconds', 1e-3, 1),
    '  of it collectives': show('collective_seconds', 1e-3, 2),
    '  if they overlap with the rest': show('estimated_step_seconds_overlapped', 1e-3, 1),
    'estimated images/s': show('estimated_images_per_second'),
    'estimated triplets/s per chip': show(SPEED, 1, 1),
    '  in % of the smallest slice': _scaling(rows),
    'estimated MFU, % of the bfloat16 peak': show('estimated_mfu', 1e-2, 1),
  }
  first, left = rows[0], max(map(len, lines))
  widths = [max(10, *map(len, column)) for column in zip(*lines.values(), strict=True)]
  text = [
    f'Preflight: {first["batch_per_chip"]} triplets of {first["images_per_triplet"]} images on '
    f'each chip (config.batch_size), {first["dtype"]}'
  ]
  for name, cells in lines.items():
    text.append(
      name.ljust(left) + ''.join(f'  {c:>{w}}' for c, w in zip(cells, widths, strict=True))
    )
  text += [
    '',
    'Nothing was run. Time is an estimate: the cycles of the TPU compiler, and for collectives, to',
    'which it gives none, a model of the links. By collective:',
  ]
  for row in rows:
    said = [*_by_operation(row['collectives'] or []), *row['notes']]
    text += [f'  {row["topology"]}: {line}' for line in said]
  for kind, tried in {row['kind']: row['tried_batches'] for row in rows}.items():
    text += [f'  {kind}: {line}' for line in _by_batch(tried or [])]
  return '\n'.join(text)


def _scaling(rows: list[dict[str, Any]]) -> list[str]:
  """What a chip does, in percent of one of the smallest slice of its kind."""
  field, smallest = SPEED, {}
  for row in sorted(rows, key=lambda row: row['chips']):
    if row[field] is not None:
      smallest.setdefault(row['kind'], row[field])
  return [
    '-' if row[field] is None else f'{100 * row[field] / smallest[row["kind"]]:.1f}' for row in rows
  ]


def _by_batch(tried: list[dict[str, Any]]) -> list[str]:
  lines = []
  for one in sorted(tried, key=lambda one: one['batch_per_chip']):
    fits = 'fit' if one['fits'] else 'do not fit'
    size = '' if one['bytes_per_chip'] is None else f', {one["bytes_per_chip"] / 2**30:.2f} GiB'
    speed = '' if one[SPEED] is None else f', {one[SPEED]:.1f} triplets/s'
    lines.append(f'{one["batch_per_chip"]} triplets per chip {fits}{size}{speed}')
  return lines


def _by_operation(listed: list[dict[str, Any]]) -> list[str]:
  counts, sizes, times = Counter(), Counter(), Counter()
  for one in listed:
    key = (one['operation'], one['dtype'], one['group'])
    counts[key] += one['count']
    sizes[key] += one['count'] * one['bytes']
    times[key] += one['seconds']
  return [
    f'{counts[key]} {operation} over {group} chips, {dtype}: {sizes[key] / 1e6:.2f} MB, '
    f'{seconds * 1e3:.2f} ms'
    for key, seconds in times.most_common()
    for operation, dtype, group in [key]
  ]
