"""Estimates the cost of a compiled TPU program: the compiler's cycles, and a model of collectives.

`parse_program` reads the text of an optimised HLO module (`compiled.as_text()`). The compiler
annotates computations with `estimated_cycles`, but not collectives, so `estimate_seconds` models
those from their bytes, their groups of chips and the torus:

- A chip has a link to each neighbour, with the same rate in both directions. A closed axis has two
  rings, one in each direction; an open axis has one, there and back. Several axes are used at once,
  each for a part of the data.
- An all-gather or reduce-scatter of N bytes over n chips sends N (n - 1) / n through the rings, an
  all-reduce twice that; every step of a ring adds the time of a hop.
- Interleaved groups (every fourth chip of a row) share the links of their row.
- For several slices the compiler splits a collective into ones inside each slice and a `recv` from
  the hosts, which exchange each chip's part over the data centre network. Of S slices, a chip sends
  N (S - 1) / S to gather N bytes, twice that to sum them.

Rates are the published ones, without the cost of packets and waiting, nor the network's latency.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from flexfas_jax.preflight.chips import HOP, Chip, closed_axes

OPERATIONS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_HEADER = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$')
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHAIN = re.compile(r'chain_id="(\d+)"')
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SLICES = re.compile(r'_xla_megascale_target="\{([\d,]+)\}')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
  """One collective of a step.

  Attributes:
    operation: one of OPERATIONS.
    dtype: of most of its bytes.
    bytes: of the whole array: the summed one, or the one before scattering or after gathering.
    groups: positions in the mesh, of several slices in the part of one; for a permute, (from, to).
  """

  operation: str
  dtype: str
  bytes: int
  groups: tuple[tuple[int, ...], ...]


class Transfer(NamedTuple):
  """One exchange of a step between slices.

  Attributes:
    operation: of a chip of each slice, one of OPERATIONS or another of the compiler's.
    dtype: of its array.
    bytes: that a chip has afterwards.
    slices: their number.
  """

  operation: str
  dtype: str
  bytes: int
  slices: int


class Program(NamedTuple):
  """The cost of a step on one chip.

  Attributes:
    cycles: the compiler's estimate.
    collectives: {Collective: number of executions}.
    transfers: {Transfer: number of executions}.
    unknown_loops: loops of unknown length, which count once.
  """

  cycles: int
  collectives: Counter
  transfers: Counter
  unknown_loops: int


class _Instruction(NamedTuple):
  name: str
  shape: str
  operation: str
  rest: str  # operands and attributes


def parse_program(text: str, chips: int) -> Program:
  """Parses an optimised module.

  Args:
    text: of the module.
    chips: number of chips that it runs on, in one slice.

  Raises:
    ValueError: an unknown notation of a collective's groups.
  """
  entry, computations = _computations(text)
  cycles, collectives, transfers, unknown, chains = 0, Counter(), Counter(), 0, set()

  def walk(name: str, times: int, caller: str = '') -> None:
    nonlocal cycles, unknown
    for i in computations[name].values():
      if caller != 'fusion' and (match := _CYCLES.search(i.rest)):
        cycles += times * int(match[1])
      operation = i.operation.removesuffix('-start')
      if operation in OPERATIONS:
        if chain := _CHAIN.search(i.rest):  # each fusion that runs at the same time lists it
          if chain[1] in chains:
            continue
          chains.add(chain[1])
        scatters = name.startswith('all-reduce-scatter')  # a chip keeps its share of the sum
        collectives[_collective(i, operation, scatters, chips)] += times
      elif i.operation == 'recv' and (kind := _TRANSFER.search(i.rest)):
        slices = len(_ints(_SLICES.search(i.rest)[1]))
        (dtype, size), *_ = _arrays(i.shape)  # the others are counters
        transfers[Transfer(kind[1].lower().replace('_', '-'), dtype, size, slices)] += times
      elif i.operation == 'while':
        body, condition = _attribute(i.rest, 'body'), _attribute(i.rest, 'condition')
        trips = _trip_count(i, computations[name], computations[condition])
        unknown += trips is None
        walk(body, times * (1 if trips is None else trips))
      elif i.operation == 'conditional':
        for branch in _branches(i.rest):  # an upper bound: the sum of all branches
          walk(branch, times)
      elif i.operation in ('fusion', 'call', 'async-start'):
        called = _attribute(i.rest, 'calls') or _attribute(i.rest, 'to_apply')
        walk(called, times, 'fusion' if 'fusion' in (i.operation, caller) else '')

  walk(entry, 1)
  return Program(cycles, collectives, transfers, unknown)


def _computations(text: str) -> tuple[str, dict[str, dict[str, _Instruction]]]:
  """(the entry's name, instructions by name by computation)."""
  entry, computations, current = '', {}, None
  for line in text.splitlines():
    if current is None:
      if match := _HEADER.match(line):
        current = computations[match[1]] = {}
        entry = match[1] if line.startswith('ENTRY') else entry
    elif line.startswith('}'):
      current = None
    elif match := _INSTRUCTION.match(line):
      current[match[1]] = _Instruction(*match.groups())
  return entry, computations


def _attribute(rest: str, name: str) -> str:
  match = re.search(rf'\b{name}=%?([\w.\-]+)', rest)
  return match[1] if match else ''


def _branches(rest: str) -> list[str]:
  if match := re.search(r'branch_computations=\{(.*?)\}', rest):
    return [name.strip().lstrip('%') for name in match[1].split(',')]
  return [_attribute(rest, 'true_computation'), _attribute(rest, 'false_computation')]


def _trip_count(loop: _Instruction, outer: dict, condition: dict) -> int | None:
  """Length of a loop that counts up by 1, such as `lax.scan`'s; None: unknown."""
  if match := _TRIPS.search(loop.rest):
    return int(match[1])
  compare = [i for i in condition.values() if i.operation == 'compare']
  if len(compare) != 1 or 'direction=LT' not in compare[0].rest:
    return None
  start, end = (_constant(name, condition, loop, outer) for name in _operands(compare[0].rest)[:2])
  return None if start is None or end is None else max(0, end - start)


def _constant(name: str, computation: dict, loop: _Instruction | None, outer: dict) -> int | None:
  """The value of an integer of a computation; follows the initial values of its loop."""
  i = computation.get(name)
  if i is None:
    return None
  if i.operation == 'constant':
    match = re.match(r'(-?\d+)\)', i.rest)
    return int(match[1]) if match else None
  if i.operation in ('copy', 'bitcast', 'copy-start', 'copy-done'):
    return _constant(_operands(i.rest)[0], computation, loop, outer)
  if i.operation == 'get-tuple-element' and loop is not None:
    initial = outer.get(_operands(loop.rest)[0])
    if initial is not None and initial.operation == 'tuple':
      index = int(re.search(r'index=(\d+)', i.rest)[1])
      return _constant(_operands(initial.rest)[index], outer, None, {})
  return None


def _operands(rest: str) -> list[str]:
  return [name.strip().split(' ')[-1].lstrip('%') for name in rest.split(')')[0].split(',')]


def _collective(i: _Instruction, operation: str, scatters: bool, chips: int) -> Collective:
  groups = _groups(i.rest, chips)
  n = len(groups[0])
  arrays = _arrays(i.shape)
  size = sum(size for _, size in arrays)
  if i.operation == 'all-gather-start':  # (a chip's part, the whole)
    size = size * n // (n + 1)
  elif i.operation == 'collective-permute-start':  # (from, to, two counters)
    size = max(size for _, size in arrays)
  elif operation == 'reduce-scatter':
    size *= n
  dtype = max(arrays, key=lambda array: array[1])[0]
  return Collective('reduce-scatter' if scatters else operation, dtype, size, groups)


def _arrays(shape: str) -> list[tuple[str, int]]:
  """[(type, bytes)] of the arrays in an instruction's result."""
  return [
    (dtype, math.prod(map(int, filter(None, dims.split(',')))) * _bits(dtype) // 8)
    for dtype, dims in _ARRAY.findall(shape)
  ]


def _bits(dtype: str) -> int:
  return 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])


def _groups(rest: str, chips: int) -> tuple[tuple[int, ...], ...]:
  """The groups of chips, from one of three notations of `replica_groups`, or a permute's pairs."""
  if match := re.search(r'(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}', rest):
    return tuple(
      tuple(map(int, group.split(','))) for group in re.findall(r'\{([\d,]+)\}', match[1])
    )
  if match := re.search(r'replica_groups=(\[[\d,]+\]<=\S+?)(?:, |$)', rest):
    return tuple(map(tuple, _iota(match[1]).tolist()))
  if match := re.search(
    r'replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))? \{(.*?)\}', rest
  ):
    return _mesh_groups(*match.groups())
  if re.search(r'replica_groups=\{\}', rest):
    return (tuple(range(chips)),)
  raise ValueError(f'unknown notation of replica groups: {rest[:500]}')


def _iota(text: str) -> np.ndarray:
  """E.g. [8,2]<=[2,8]T(1,0): 0, 1, 2 ... as [2,8], transposed, reshaped to [8,2]."""
  shape, source = text.split('<=') if '<=' in text else (None, text)
  dims, _, order = source.partition('T')
  array = np.arange(math.prod(_ints(dims))).reshape(_ints(dims))
  array = array.transpose(_ints(order)) if order else array
  return array.reshape(_ints(shape)) if shape else array


def _mesh_groups(mesh: str, devices: str | None, axes: str) -> tuple[tuple[int, ...], ...]:
  """E.g. mesh['a'=4,'b'=4], device_ids=([4,4]T(1,0)) {'a'}: groups along the named axes.

  A part of an axis may be named: 'a':(2)4 is the part of size 4 after one of size 2.
  """
  sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh)}
  array = np.arange(math.prod(sizes.values()))
  if devices:
    array = _iota(devices) if devices.startswith('[') else np.array(_ints(devices))
  taken = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)
  shape, along = [], {}
  for name, n in sizes.items():
    parts = sorted((int(before), int(size)) for a, before, size in taken if a == name and size)
    if not parts and any(a == name for a, _, _ in taken):
      parts = [(1, n)]
    done = 1
    for before, size in parts:
      shape += [before // done, size]
      along[name, before] = len(shape) - 1
      done = before * size
    shape.append(n // done)
  order = [along[name, int(before or 1)] for name, before, _ in taken]
  rest = [axis for axis in range(len(shape)) if axis not in order]
  array = array.reshape(shape).transpose(rest + order)
  return tuple(map(tuple, array.reshape(-1, math.prod(shape[axis] for axis in order)).tolist()))


def _ints(text: str) -> list[int]:
  return [int(n) for n in re.findall(r'\d+', text)]


class Torus(NamedTuple):
  """The chips of a slice.

  Attributes:
    coordinates: [chips, axes], in the order of the mesh's devices.
    shape: of the slice.
    closed: whether each axis is a ring.
  """

  coordinates: np.ndarray
  shape: tuple[int, ...]
  closed: tuple[bool, ...]


def make_torus(coordinates: np.ndarray, chip: Chip) -> Torus:
  """The torus of chips.

  Args:
    coordinates: [chips, axes] int.
    chip: their kind.
  """
  shape = tuple(int(n) for n in coordinates.max(0) + 1)
  return Torus(coordinates, shape, closed_axes(chip, shape))


def estimate_seconds(collective: Collective, torus: Torus, chip: Chip) -> float:
  """Time of one collective alone; the top of this file describes the model."""
  if collective.operation == 'collective-permute':
    hops = max(_distance(a, b, torus) for a, b in collective.groups)
    return hops * (collective.bytes / chip.link + HOP)
  return max(
    _group_seconds(collective.operation, collective.bytes, tuple(axes), chip.link)
    for axes in {tuple(_axes(group, torus)) for group in collective.groups}
  )


def transfer_seconds(transfer: Transfer, chip: Chip) -> float:
  """Time of one exchange between slices."""
  size, S = transfer.bytes, transfer.slices
  sent = {
    'all-reduce': 2 * size * (S - 1) / S,
    'all-gather': size * (S - 1) / S,
    'all-to-all': size * (S - 1) / S,
    'reduce-scatter': size * (S - 1),
  }
  return sent.get(transfer.operation, size) / chip.network


def _group_seconds(operation: str, size: int, axes: tuple, link: float) -> float:
  n = math.prod(axis.chips for axis in axes)
  if n == 1:
    return 0.0
  rate = link * sum(axis.rings for axis in axes)
  hops = sum((axis.chips - 1) * axis.stride for axis in axes) * HOP
  if operation == 'all-reduce':
    return 2 * size * (n - 1) / n / rate + 2 * hops
  if operation == 'all-to-all':  # half of the data crosses the middle of the longest axis
    longest = max(axes, key=lambda axis: axis.chips / axis.rings)
    return size * longest.chips / 4 / (link * longest.rings) + hops
  if operation == 'collective-broadcast':
    return size / rate + hops
  return size * (n - 1) / n / rate + hops


class _Axis(NamedTuple):
  """A group's chips along an axis of the torus.

  Attributes:
    chips: their number.
    stride: hops from one to the next.
    rings: number of rings, divided by the number of groups that share them.
  """

  chips: int
  stride: int
  rings: float


def _axes(group: tuple[int, ...], torus: Torus) -> Iterator[_Axis]:
  """The axes that a group spans."""
  coordinates = torus.coordinates[list(group)]
  lines = [np.unique(column) for column in coordinates.T]
  steps = [np.unique(np.diff(line)) for line in lines]
  grid = math.prod(map(len, lines)) == len(group) and all(len(step) <= 1 for step in steps)
  if not grid:  # one ring, shared with all chips of the bounding box
    box = math.prod(int(line[-1] - line[0]) + 1 for line in lines)
    yield _Axis(len(group), 1, len(group) / box)
    return
  for line, step, length, closed in zip(lines, steps, torus.shape, torus.closed, strict=True):
    if len(line) > 1:
      stride = int(step[0])
      is_ring = closed and len(line) * stride == length
      yield _Axis(len(line), stride, (2 if is_ring else 1) / stride)


def _distance(a: int, b: int, torus: Torus) -> int:
  """Hops between two chips."""
  direct = np.abs(torus.coordinates[a] - torus.coordinates[b])
  around = np.where(torus.closed, np.array(torus.shape) - direct, direct)
  return int(np.minimum(direct, around).sum())
