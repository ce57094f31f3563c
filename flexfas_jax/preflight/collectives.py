"""What a compiled program costs: the compiler's cycles, and a model of what chips send each other.

`read` takes the text of an optimised HLO module for TPU (`compiled.as_text()`) apart. The compiler
writes `estimated_cycles` beside what it computes and nothing beside collectives, so `seconds`
models those by their bytes, their groups of chips and the torus:

- A chip has a link to each neighbour, as fast in either direction. Along an axis that closes, rings
  run both ways round; along one that does not, one ring runs there and back. Several axes are used
  at once, each for a part of the data.
- An all-gather or reduce-scatter of N bytes over n chips sends N (n - 1) / n through those rings,
  an all-reduce twice that; every step of a ring takes a hop's time besides.
- Groups that lie between each other (every fourth chip of a row) share that row's links.

The rates are the published ones, without what packets and waiting cost.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from flexfas_jax.preflight.chips import HOP, Chip, wraps

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
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
  """One collective of a step."""

  operation: str  # of OPERATIONS
  dtype: str  # of most of its bytes
  bytes: int  # of the whole: what is summed, or stands in one piece after (before) it
  groups: tuple[tuple[int, ...], ...]  # positions in the mesh; for a permute, (from, to)


class Program(NamedTuple):
  """What one chip does in a step."""

  cycles: int  # the compiler's
  collectives: Counter  # Collective -> how often
  unknown_loops: int  # whose length could not be read; each counts once


class _Instruction(NamedTuple):
  name: str
  shape: str
  operation: str
  rest: str  # operands and attributes


def read(text: str, chips: int) -> Program:
  """What a program costs.

  Args:
    text: of the optimised module.
    chips: that it runs on.

  Raises:
    ValueError: a collective's groups are written in a way that is not known here.
  """
  entry, computations = _computations(text)
  cycles, collectives, unknown, chains = 0, Counter(), 0, set()

  def walk(name: str, times: int, caller: str = '') -> None:
    nonlocal cycles, unknown
    for i in computations[name].values():
      if caller != 'fusion' and (found := _CYCLES.search(i.rest)):
        cycles += times * int(found[1])
      operation = i.operation.removesuffix('-start')
      if operation in OPERATIONS:
        if chain := _CHAIN.search(i.rest):  # one, shown by each fusion that it runs beside
          if chain[1] in chains:
            continue
          chains.add(chain[1])
        scatters = name.startswith('all-reduce-scatter')  # the two in one; a chip keeps its share
        collectives[_collective(i, operation, scatters, chips)] += times
      elif i.operation == 'while':
        body, condition = _attribute(i.rest, 'body'), _attribute(i.rest, 'condition')
        trips = _trip_count(i, computations[name], computations[condition])
        unknown += trips is None
        walk(body, times * (1 if trips is None else trips))
      elif i.operation == 'conditional':
        for branch in _branches(i.rest):  # an upper bound: as if all were taken
          walk(branch, times)
      elif i.operation in ('fusion', 'call', 'async-start'):
        called = _attribute(i.rest, 'calls') or _attribute(i.rest, 'to_apply')
        walk(called, times, 'fusion' if 'fusion' in (i.operation, caller) else '')

  walk(entry, 1)
  return Program(cycles, collectives, unknown)


def _computations(text: str) -> tuple[str, dict[str, dict[str, _Instruction]]]:
  """(the entry's name, instructions by name by computation)."""
  entry, computations, current = '', {}, None
  for line in text.splitlines():
    if current is None:
      if found := _HEADER.match(line):
        current = computations[found[1]] = {}
        entry = found[1] if line.startswith('ENTRY') else entry
    elif line.startswith('}'):
      current = None
    elif found := _INSTRUCTION.match(line):
      current[found[1]] = _Instruction(*found.groups())
  return entry, computations


def _attribute(rest: str, name: str) -> str:
  found = re.search(rf'\b{name}=%?([\w.\-]+)', rest)
  return found[1] if found else ''


def _branches(rest: str) -> list[str]:
  if found := re.search(r'branch_computations=\{(.*?)\}', rest):
    return [name.strip().lstrip('%') for name in found[1].split(',')]
  return [_attribute(rest, 'true_computation'), _attribute(rest, 'false_computation')]


def _trip_count(loop: _Instruction, around: dict, condition: dict) -> int | None:
  """How often a loop runs that counts up by 1, as those of `lax.scan` do; None: not read."""
  if found := _TRIPS.search(loop.rest):
    return int(found[1])
  compare = [i for i in condition.values() if i.operation == 'compare']
  if len(compare) != 1 or 'direction=LT' not in compare[0].rest:
    return None
  start, end = (_constant(name, condition, loop, around) for name in _operands(compare[0].rest)[:2])
  return None if start is None or end is None else max(0, end - start)


def _constant(name: str, where: dict, loop: _Instruction | None, around: dict) -> int | None:
  """The value of an integer, looked for also in what a loop begins with."""
  i = where.get(name)
  if i is None:
    return None
  if i.operation == 'constant':
    found = re.match(r'(-?\d+)\)', i.rest)
    return int(found[1]) if found else None
  if i.operation in ('copy', 'bitcast', 'copy-start', 'copy-done'):
    return _constant(_operands(i.rest)[0], where, loop, around)
  if i.operation == 'get-tuple-element' and loop is not None:
    initial = around.get(_operands(loop.rest)[0])
    if initial is not None and initial.operation == 'tuple':
      index = int(re.search(r'index=(\d+)', i.rest)[1])
      return _constant(_operands(initial.rest)[index], around, None, {})
  return None


def _operands(rest: str) -> list[str]:
  return [name.strip().split(' ')[-1].lstrip('%') for name in rest.split(')')[0].split(',')]


def _collective(i: _Instruction, operation: str, scatters: bool, chips: int) -> Collective:
  groups = _groups(i.rest, chips)
  n = len(groups[0])
  arrays = [
    (dtype, math.prod(map(int, filter(None, shape.split(',')))) * _bits(dtype) // 8)
    for dtype, shape in _ARRAY.findall(i.shape)
  ]
  size = sum(size for _, size in arrays)
  if i.operation == 'all-gather-start':  # (what a chip has, what all have)
    size = size * n // (n + 1)
  elif i.operation == 'collective-permute-start':  # (from, to, two counters)
    size = max(size for _, size in arrays)
  elif operation == 'reduce-scatter':
    size *= n
  dtype = max(arrays, key=lambda array: array[1])[0]
  return Collective('reduce-scatter' if scatters else operation, dtype, size, groups)


def _bits(dtype: str) -> int:
  return 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])


def _groups(rest: str, chips: int) -> tuple[tuple[int, ...], ...]:
  """Who takes part with whom: the three ways of `replica_groups`, or a permute's pairs."""
  if found := re.search(r'(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}', rest):
    return tuple(
      tuple(map(int, group.split(','))) for group in re.findall(r'\{([\d,]+)\}', found[1])
    )
  if found := re.search(r'replica_groups=(\[[\d,]+\]<=\S+?)(?:, |$)', rest):
    return tuple(map(tuple, _iota(found[1]).tolist()))
  if found := re.search(
    r'replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))? \{(.*?)\}', rest
  ):
    return _mesh_groups(*found.groups())
  if re.search(r'replica_groups=\{\}', rest):
    return (tuple(range(chips)),)
  raise ValueError(f'groups of a collective that are not understood: {rest[:500]}')


def _iota(text: str) -> np.ndarray:
  """[8,2]<=[2,8]T(1,0): 0, 1, 2 ... as [2,8], its axes exchanged, as [8,2]."""
  shape, source = text.split('<=') if '<=' in text else (None, text)
  dims, _, order = source.partition('T')
  array = np.arange(math.prod(_ints(dims))).reshape(_ints(dims))
  array = array.transpose(_ints(order)) if order else array
  return array.reshape(_ints(shape)) if shape else array


def _mesh_groups(mesh: str, devices: str | None, axes: str) -> tuple[tuple[int, ...], ...]:
  """mesh['a'=4,'b'=4], device_ids=([4,4]T(1,0)) {'a'}: along the axes named, of a mesh of devices.

  An axis may be named in part: 'a':(2)4 are 4 of it, 2 coming before.
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
  """A slice, as a program sees it."""

  places: np.ndarray  # [chips, axes]: coordinates of the mesh's devices, in their order
  shape: tuple[int, ...]
  closed: tuple[bool, ...]


def torus(places: np.ndarray, chip: Chip) -> Torus:
  """The torus that the chips at these places are.

  Args:
    places: [chips, axes] int.
    chip: their kind.
  """
  shape = tuple(int(n) for n in places.max(0) + 1)
  return Torus(places, shape, wraps(chip, shape))


def seconds(collective: Collective, torus: Torus, chip: Chip) -> float:
  """How long one collective takes by itself (see the top of this file for the model)."""
  if collective.operation == 'collective-permute':
    hops = max(_distance(a, b, torus) for a, b in collective.groups)
    return hops * (collective.bytes / chip.link + HOP)
  return max(
    _group_seconds(collective.operation, collective.bytes, tuple(axes), chip.link)
    for axes in {tuple(_axes(group, torus)) for group in collective.groups}
  )


def _group_seconds(operation: str, size: int, axes: tuple, link: float) -> float:
  n = math.prod(axis.chips for axis in axes)
  if n == 1:
    return 0.0
  rate = link * sum(axis.rings for axis in axes)
  hops = sum((axis.chips - 1) * axis.apart for axis in axes) * HOP
  if operation == 'all-reduce':
    return 2 * size * (n - 1) / n / rate + 2 * hops
  if operation == 'all-to-all':  # half of what half of the longest axis has crosses its middle
    longest = max(axes, key=lambda axis: axis.chips / axis.rings)
    return size * longest.chips / 4 / (link * longest.rings) + hops
  if operation == 'collective-broadcast':
    return size / rate + hops
  return size * (n - 1) / n / rate + hops


class _Axis(NamedTuple):
  chips: int  # of a group, along this axis
  apart: int  # hops from one to the next
  rings: float  # that they have for themselves


def _axes(group: tuple[int, ...], torus: Torus) -> Iterator[_Axis]:
  """The axes that a group spans."""
  places = torus.places[list(group)]
  lines = [np.unique(column) for column in places.T]
  steps = [np.unique(np.diff(line)) for line in lines]
  grid = math.prod(map(len, lines)) == len(group) and all(len(step) <= 1 for step in steps)
  if not grid:  # one ring, shared with all that stands in the same box
    box = math.prod(int(line[-1] - line[0]) + 1 for line in lines)
    yield _Axis(len(group), 1, len(group) / box)
    return
  for line, step, length, closed in zip(lines, steps, torus.shape, torus.closed, strict=True):
    if len(line) > 1:
      apart = int(step[0])
      whole = closed and len(line) * apart == length
      yield _Axis(len(line), apart, (2 if whole else 1) / apart)


def _distance(a: int, b: int, torus: Torus) -> int:
  """Hops between two chips."""
  far = np.abs(torus.places[a] - torus.places[b])
  round_it = np.where(torus.closed, np.array(torus.shape) - far, far)
  return int(np.minimum(far, round_it).sum())
