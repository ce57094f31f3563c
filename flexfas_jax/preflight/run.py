"""Estimates memory and time of a config's training step on a TPU slice, without a TPU.

The step is compiled for the slice, with its shardings, by the TPU compiler, which runs on any
machine (`pip install 'flexfas_jax[tpu]'`). Program and memory are those of a real slice. The time
is an estimate: the compiler's cycles, plus a model of the collectives (`collectives.py`), for which
the compiler gives none. Nothing here was run on a TPU.

`config.batch_size` is the batch of ONE chip here, so that chips of all slices have the same work.
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
from flexfas_jax.training import setup, sharding

EXAMPLE = '--topology=v5e:4x4,2xv5e:4x4,v5p:2x2x1,cuda'
_TOPOLOGY = re.compile(r'(?:([1-9]\d*)x)?([a-z]\w*):(\d+(?:x\d+){1,2})')
MOST_BATCHES = 4  # compiled at most to find the largest batch of one kind of chip
SPEED = 'estimated_triplets_per_second_per_chip'


def run(config: ConfigDict, workdir: str, topology: str | None) -> list[dict[str, Any]]:
  """Compiles a config's step for slices that are not attached, and prints a table.

  Writes `workdir/preflight.json`, a list with a dict per topology:

  topology, kind, chips: of the slice, or of all slices.
  batch_per_chip, global_batch: triplets in a step.
  fits: whether the program fits into the memory.
  bytes_per_chip: that it needs, None if the compiler does not report it; hbm_per_chip: available.
  flops_per_chip: of matrix products and convolutions in a step, recomputation included.
  compute_seconds: the compiler's cycles divided by the clock.
  collective_bytes: of all collectives of a step, `collectives.Collective.bytes`.
  collective_seconds: of all collectives, one after the other, by the model.
  network_seconds: of these, on the network between slices.
  estimated_step_seconds: compute and collectives, one after the other.
  estimated_step_seconds_overlapped: the longer of the two.
  estimated_images_per_second: of the slice; a triplet has one image per modality.
  estimated_triplets_per_second_per_chip.
  estimated_mfu: flops_per_chip per second, divided by the chip's bfloat16 peak.
  collectives: operation, dtype, bytes, members of a group, groups, whether between chips or slices,
    executions in a step, seconds.
  largest_batch_per_chip, too_large_batch_per_chip: largest that fits and smallest that does not,
    of the batches tried on the smallest of the given slices of this kind.
  tried_batches: their bytes and speed; the largest batch need not be the fastest.
  compile_seconds: on this machine.
  notes: strings.

  For 'cuda' the step is only lowered: fields that need the TPU compiler are None.

  Args:
    config: as a file of `configs/` returns it.
    workdir: created if missing.
    topology: slices, separated by commas, e.g. 'v5e:4x4,v5p:2x2x1,cuda'; '2xv5e:4x4' are two slices
      that are joined by the data centre network.

  Returns:
    The rows that were written.

  Raises:
    ConfigError: an unknown topology, no libtpu, or a wrong config (`setup.build`).
  """
  names = parse_topologies(topology)
  hide_accelerators()
  alone = _single_device_experiment(config)
  # All are built before the first is compiled, which takes minutes: problems appear at once.
  experiments = {
    name: alone if name == 'cuda' else _experiment(config, config.batch_size, slice_devices(name))
    for name in names
  }
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  flops = step_flops(alone)
  rows = []
  for name, experiment in experiments.items():
    row = cuda_row(experiment) if name == 'cuda' else slice_row(experiment, name, flops)
    rows.append(row | {'flops_per_chip': flops})
    _write(folder, rows)
  for kind in dict.fromkeys(row['kind'] for row in rows if row['kind'] in CHIPS):
    same = [row for row in rows if row['kind'] == kind]
    smallest = min(same, key=lambda row: row['chips'])
    tried = try_batches(config, smallest, experiments[smallest['topology']], flops)
    largest, too_large = largest_batch(tried)
    fields = ('batch_per_chip', 'fits', 'bytes_per_chip', SPEED)
    for row in same:
      row |= {'largest_batch_per_chip': largest, 'too_large_batch_per_chip': too_large}
      row |= {'tried_batches': [{name: other[name] for name in fields} for other in tried]}
  _write(folder, rows)
  print(table(rows))
  return rows


def parse_topologies(topology: str | None) -> list[str]:
  """The distinct topologies of a flag's value.

  Raises:
    ConfigError: none, or one that is neither KIND:AxB, KIND:AxBxC, several of them nor 'cuda'.
  """
  names = [name.strip() for name in (topology or '').split(',') if name.strip()]
  if not names:
    raise ConfigError(f'--mode=preflight requires --topology, e.g. {EXAMPLE}')
  for name in names:
    match = _TOPOLOGY.fullmatch(name)
    if name != 'cuda' and not (match and match[2] in CHIPS):
      raise ConfigError(
        f'--topology={name} is not KIND:AxB or KIND:AxBxC, where KIND is one of '
        f'{", ".join(CHIPS)}, several of them (2xKIND:AxB), nor cuda; e.g. {EXAMPLE}'
      )
    if name != 'cuda' and int(match[1] or 1) > 1 and CHIPS[match[2]].network is None:
      raise ConfigError(
        f'--topology={name}: the rate of the network between {match[2]} slices is not published; '
        'estimate one slice'
      )
  return list(dict.fromkeys(names))


def _kind(name: str) -> str:
  """The kind of chip of a topology."""
  match = _TOPOLOGY.fullmatch(name)
  return match[2] if match else name


def hide_accelerators() -> None:
  """Makes JAX run on the CPU, and libtpu compile without a TPU.

  Otherwise libtpu searches for a TPU and queries the cloud's metadata server for minutes.
  """
  os.environ.update(
    TPU_SKIP_MDS_QUERY='1',
    TPU_WORKER_HOSTNAMES='localhost',
    TPU_ACCELERATOR_TYPE='v5litepod-4',
    ALLOW_MULTIPLE_LIBTPU_LOAD='1',  # no chip is opened, so several processes may compile
  )
  jax.config.update('jax_platforms', 'cpu')


def slice_devices(name: str) -> Sequence[jax.Device]:
  """The chips of a slice, or of several, as JAX devices to compile for.

  Raises:
    ConfigError: libtpu is not installed, or does not support the topology.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ConfigError(
      f"--topology={name} requires the TPU compiler: pip install 'flexfas_jax[tpu]'"
    )
  count, kind, shape = _TOPOLOGY.fullmatch(name).groups()
  options: dict[str, Any] = {'num_slices': int(count)} if count else {}
  if kind == 'v4':
    options['chip_config_name'] = 'megacore'  # as on real slices: two cores are one device
  if math.prod(map(int, shape.split('x'))) == 1:
    options['chips_per_host_bounds'] = (1, 1, 1)
  try:
    description = topologies.get_topology_desc(
      platform='tpu', topology_name=f'{kind}:{shape}', **options
    )
  except Exception as error:  # libtpu raises several types
    raise ConfigError(f'--topology={name}: libtpu: {" ".join(str(error).split())}') from error
  return description.devices


def slice_row(experiment: setup.Experiment, name: str, flops: float) -> dict[str, Any]:
  """Memory and time of an experiment's step on the slice that it was built for; see `run`."""
  kind = _kind(name)
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
  """Estimates the time of a compiled step.

  Args:
    text: of the optimised program.
    experiment: whose step it is.
    chip: of the slice.
    flops: of a chip in a step.
  """
  chips = sharding.split_by_slice(experiment.mesh.devices.flat)[0]  # the program is that of each
  program = collectives.parse_program(text, len(chips))
  torus = collectives.make_torus(np.array([device.coords for device in chips]), chip)
  listed = [
    {
      'operation': collective.operation,
      'dtype': collective.dtype,
      'bytes': collective.bytes,
      'group': len(collective.groups[0]),
      'groups': len(collective.groups),
      'between': 'chips',
      'count': count,
      'seconds': count * collectives.estimate_seconds(collective, torus, chip),
    }
    for collective, count in program.collectives.items()
  ]
  listed += [
    {
      'operation': transfer.operation,
      'dtype': transfer.dtype,
      'bytes': transfer.bytes,
      'group': transfer.slices,
      'groups': len(chips),
      'between': 'slices',
      'count': count,
      'seconds': count * collectives.transfer_seconds(transfer, chip),
    }
    for transfer, count in program.transfers.items()
  ]
  listed.sort(key=lambda row: -row['seconds'])
  compute = program.cycles / chip.clock
  communication = sum(row['seconds'] for row in listed)
  step_seconds, triplets = compute + communication, experiment.config.batch_size
  notes = []
  if recomputed := len(set(re.findall(r'%([\w.\-]+\.remat[\w.\-]*) = ', text))):
    notes.append(
      f'memory is short: {recomputed} values are recomputed; a smaller batch may be faster'
    )
  if program.unknown_loops:
    notes.append(f'{program.unknown_loops} loops of unknown length are counted once')
  return {
    'compute_seconds': compute,
    'collective_bytes': sum(row['count'] * row['bytes'] for row in listed),
    'collective_seconds': communication,
    'network_seconds': sum(row['seconds'] for row in listed if row['between'] == 'slices'),
    'estimated_step_seconds': step_seconds,
    'estimated_step_seconds_overlapped': max(compute, communication),
    'estimated_images_per_second': triplets * len(experiment.model.modalities) / step_seconds,
    'estimated_triplets_per_second_per_chip': triplets / experiment.mesh.size / step_seconds,
    'estimated_mfu': flops / step_seconds / chip.peak_flops,
    'collectives': listed,
    'notes': notes,
  }


def compile_step(experiment: setup.Experiment, text: str) -> tuple[int | None, Any]:
  """Compiles an experiment's step.

  Returns:
    (bytes that a chip needs, compiled); None for the latter if they exceed the memory.
  """
  lowered = setup.make_step(experiment).lower(
    experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment)
  )
  try:
    with _progress(f'compiling for {text}'):
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
  """The bytes that a program needs, from the compiler's error; None if it does not state them."""
  match = re.search(
    r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|\(([\d.]+)([KMGT])\) exceeds', message
  )
  if not match:
    return None
  number, unit = (part for part in match.groups() if part)
  return int(float(number) * 1024 ** ('KMGT'.index(unit) + 1))


def try_batches(
  config: ConfigDict, row: dict[str, Any], experiment: setup.Experiment, flops: float
) -> list[dict[str, Any]]:
  """Searches for the largest batch of a chip by compiling at most MOST_BATCHES times.

  The first guess assumes that memory without the state is proportional to the batch. It may grow
  more slowly, since the compiler recomputes values when memory is short: while batches fit, the
  next guess is at least 1.5 times as large, and then one between the bounds.

  Args:
    config: with the first batch size.
    row: of `slice_row` for it.
    experiment: of the row.
    flops: of a chip in a step of that batch.

  Returns:
    The row, and one for each further batch.
  """
  tried, state, limit = [row], _state_bytes(experiment), row['hbm_per_chip']
  for _ in range(MOST_BATCHES):
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
    larger = _experiment(config, batch, list(experiment.mesh.devices.flat))
    tried.append(slice_row(larger, row['topology'], flops * batch / row['batch_per_chip']))
  return tried


def largest_batch(tried: list[dict[str, Any]]) -> tuple[int | None, int | None]:
  """(largest batch that fits, smallest that does not); None for none."""
  fitting = [row['batch_per_chip'] for row in tried if row['fits']]
  too_large = [row['batch_per_chip'] for row in tried if not row['fits']]
  return max(fitting, default=None), min(too_large, default=None)


def _rounded(batch: float, accumulate: int) -> int:
  """Rounds down to 8 to 15 times a power of 2, then to what `accumulate` divides."""
  batch = int(batch)
  unit = math.lcm(accumulate, 2 ** max(0, batch.bit_length() - 4))
  return batch // unit * unit


def _state_bytes(experiment: setup.Experiment) -> int:
  """Bytes of the state on one chip."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(experiment.abstract)
  )


def step_flops(experiment: setup.Experiment) -> float:
  """FLOPs of the matrix products and convolutions in a step of all devices."""
  arguments = (
    experiment.abstract,
    setup.abstract_batch(experiment),
    setup.abstract_key(experiment),
  )
  return float(count_flops(setup.make_step(experiment), *arguments))


def cuda_row(experiment: setup.Experiment) -> dict[str, Any]:
  """Lowers an experiment of one device for CUDA, without compiling it; see `run`."""
  row = _row('cuda', 'cuda', experiment)
  start = time.perf_counter()
  with _progress('lowering for cuda'):
    jax.export.export(setup.make_step(experiment), platforms=['cuda'])(
      experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment)
    )
  return row | {
    'compile_seconds': round(time.perf_counter() - start, 1),
    'notes': ['lowered, not compiled: memory and time are unknown'],
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
      'network_seconds',
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


def _experiment(
  config: ConfigDict, batch_per_chip: int, devices: Sequence[jax.Device]
) -> setup.Experiment:
  """The experiment with this batch on each device; does not change the config."""
  config = ConfigDict(config)
  with config.unlocked():
    config.batch_size = batch_per_chip * len(devices)
    config.eval_batch_size = len(devices)  # evaluation is not compiled
  return setup.build(config, devices)


def _single_device_experiment(config: ConfigDict) -> setup.Experiment:
  """The experiment on one device, which holds the whole state."""
  config = ConfigDict(config)
  with config.unlocked():
    config.mesh = ConfigDict({'data': -1, 'fsdp': 1})
  return _experiment(config, config.batch_size, jax.devices('cpu')[:1])


def _write(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  write_text(folder / 'preflight.json', json.dumps(rows, indent=1) + '\n')


@contextlib.contextmanager
def _progress(text: str, every: float = 30.0) -> Iterator[None]:
  """Prints to stderr what runs, and a line every so many seconds while it runs."""
  start, done = time.perf_counter(), threading.Event()

  def elapsed() -> str:
    return f'{time.perf_counter() - start:.0f} s'

  def report() -> None:
    while not done.wait(every):
      print(f'{text}: {elapsed()} ...', file=sys.stderr, flush=True)

  print(f'{text} ...', file=sys.stderr, flush=True)
  thread = threading.Thread(target=report, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    print(f'{text}: {elapsed()}', file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
  """The rows as a table with a column per topology."""

  def cells(field: str, unit: float = 1.0, digits: int = 0) -> list[str]:
    return ['-' if row[field] is None else f'{row[field] / unit:.{digits}f}' for row in rows]

  lines = {
    '': [row['topology'] for row in rows],
    'chips': cells('chips'),
    'triplets in a step': cells('global_batch'),
    'fits': [{True: 'yes', False: 'NO', None: '-'}[row['fits']] for row in rows],
    'GiB per chip': cells('bytes_per_chip', 2**30, 2),
    '  available to a program': cells('hbm_per_chip', 2**30, 2),
    'triplets per chip, largest that fits': cells('largest_batch_per_chip'),
    '  smallest that does not': cells('too_large_batch_per_chip'),
    'TFLOP per chip': cells('flops_per_chip', 1e12, 2),
    'MB of collectives per chip': cells('collective_bytes', 1e6, 1),
    'estimated ms of a step': cells('estimated_step_seconds', 1e-3, 1),
    '  of which collectives': cells('collective_seconds', 1e-3, 2),
    '    on the network between slices': cells('network_seconds', 1e-3, 2),
    '  with overlapping collectives': cells('estimated_step_seconds_overlapped', 1e-3, 1),
    'estimated images/s': cells('estimated_images_per_second'),
    'estimated triplets/s per chip': cells(SPEED, 1, 1),
    '  in % of the smallest slice': _scaling(rows),
    'estimated MFU, % of the bfloat16 peak': cells('estimated_mfu', 1e-2, 1),
  }
  first, left = rows[0], max(map(len, lines))
  widths = [max(10, *map(len, column)) for column in zip(*lines.values(), strict=True)]
  text = [
    f'Preflight: {first["batch_per_chip"]} triplets of {first["images_per_triplet"]} images on '
    f'each chip (config.batch_size), {first["dtype"]}'
  ]
  for name, values in lines.items():
    text.append(
      name.ljust(left) + ''.join(f'  {v:>{w}}' for v, w in zip(values, widths, strict=True))
    )
  text += [
    '',
    'Nothing was run. Times are estimates: the cycles of the TPU compiler, and for collectives,',
    'for which the compiler gives none, a model of the links. By collective:',
  ]
  for row in rows:
    details = [*_by_operation(row['collectives'] or []), *row['notes']]
    text += [f'  {row["topology"]}: {line}' for line in details]
  for kind, tried in {row['kind']: row['tried_batches'] for row in rows}.items():
    text += [f'  {kind}: {line}' for line in _by_batch(tried or [])]
  return '\n'.join(text)


def _scaling(rows: list[dict[str, Any]]) -> list[str]:
  """The speed of a chip, in percent of one in the smallest slice of its kind."""
  field, smallest = SPEED, {}
  for row in sorted(rows, key=lambda row: row['chips']):
    if row[field] is not None:
      smallest.setdefault(row['kind'], row[field])
  return [
    '-' if row[field] is None else f'{100 * row[field] / smallest[row["kind"]]:.1f}' for row in rows
  ]


def _by_batch(tried: list[dict[str, Any]]) -> list[str]:
  lines = []
  for row in sorted(tried, key=lambda row: row['batch_per_chip']):
    fits = 'fit' if row['fits'] else 'do not fit'
    size = '' if row['bytes_per_chip'] is None else f', {row["bytes_per_chip"] / 2**30:.2f} GiB'
    speed = '' if row[SPEED] is None else f', {row[SPEED]:.1f} triplets/s'
    lines.append(f'{row["batch_per_chip"]} triplets per chip {fits}{size}{speed}')
  return lines


def _by_operation(listed: list[dict[str, Any]]) -> list[str]:
  counts, sizes, times = Counter(), Counter(), Counter()
  for row in listed:
    key = (row['operation'], row['dtype'], row['group'], row['between'])
    counts[key] += row['count']
    sizes[key] += row['count'] * row['bytes']
    times[key] += row['seconds']
  return [
    f'{counts[key]} {operation} over {group} {between}, {dtype}: {sizes[key] / 1e6:.2f} MB, '
    f'{seconds * 1e3:.2f} ms'
    for key, seconds in times.most_common()
    for operation, dtype, group, between in [key]
  ]
