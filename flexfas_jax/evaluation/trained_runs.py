"""Trained runs as methods: what their workdirs hold, read without the training code.

A method is a config but for its seed: its runs differ in the seed alone. Runs of one config under
several protocols, as the targets of a leave-one-domain-out benchmark, are one method, too. Names
that are given by patterns take precedence.
"""

import contextlib
import dataclasses
import fnmatch
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import oracle, score_files

# Config fields that are not the method: where and how a run computes, and its seed.
_NOT_METHOD = (
  *('seed', 'data_dir', 'mesh', 'eval_batch_size', 'member', 'pairs'),
  *('log_every', 'checkpoint_every', 'save_tries', 'report', 'pass_if', 'test_toml'),
  'accept_known_leaks',
)
# What a protocol defines.
_OF_PROTOCOL = ('protocol', 'train', 'val', 'test', 'threshold', 'left_out')
# Values that a field had before configs named it.
_DEFAULTS = {'domain': 'dataset', 'resize': 'area'}
_SEED = re.compile(r'[_\-. ]+((seed|run|s|r)[_\-. =]*)?\d*$')  # at the end of a folder's name


class Cost(NamedTuple):
  """What a run costs; NaN where it is not recorded."""

  trained_parameters: float = math.nan
  parameters: float = math.nan
  flops: float = math.nan  # of a step, on one chip of the first topology of preflight.json
  step_seconds: float = math.nan  # median over metrics.jsonl


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """A workdir whose tests are scored."""

  folder: str  # as the user gave it, a path or gs://
  config: Mapping
  val: score_files.Scores
  tests: Mapping[str, score_files.Scores]
  cost: Cost
  least: Mapping[tuple[str, str], Mapping[str, float]]  # ORACLE, see `oracle.least`

  @property
  def protocol(self) -> str:
    """As `config.protocol` has it, without blanks; '' where the config names its sets."""
    return re.sub(r'\s', '', self.config.get('protocol') or '')

  @property
  def seed(self) -> int:
    return self.config.get('seed', 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
  """The runs of a method.

  Attributes:
    name: unique.
    runs: {protocol: its runs, by rising seed}, equally many under each protocol.
  """

  name: str
  runs: Mapping[str, tuple[TrainedRun, ...]]

  @property
  def n_runs(self) -> int:
    """The number of runs under each protocol."""
    return len(next(iter(self.runs.values())))

  @property
  def all_runs(self) -> list[TrainedRun]:
    return [run for of in self.runs.values() for run in of]

  @property
  def cost(self) -> Cost:
    """The mean over the runs that have it recorded."""
    values = np.array([run.cost for run in self.all_runs], float)
    n = np.isfinite(values).sum(0)
    means = np.nansum(values, 0) / np.where(n, n, np.nan)
    return Cost(*means.tolist())


def read(
  folder: str | os.PathLike, tests: Collection[str] = (), origin: str | None = None
) -> TrainedRun:
  """Reads a workdir.

  Args:
    folder: the workdir.
    origin: where a folder that is a copy comes from, for names and messages; None: it is no copy.
    tests: those to read; (), or where the run has none of them: all.

  Raises:
    StateError: it holds no run, or a run whose tests are not scored.
    DataError: a damaged score file.
  """
  path, name = Path(folder), origin or str(folder)
  if str(folder).startswith('gs://'):
    raise ConfigError(f'{folder} is in a bucket; copy its config.json, scores and metrics.jsonl')
  try:
    config = json.loads((path / 'config.json').read_text(encoding='utf-8'))
    if not isinstance(config, dict):
      raise ValueError('it is not an object with fields')
  except FileNotFoundError:
    raise StateError(f'{name} holds no run (no config.json)') from None
  except (OSError, ValueError, RecursionError) as error:
    raise StateError(f'{name}/config.json is damaged ({error})') from error
  if config.get('task', 'attacks') != 'attacks':
    raise StateError(f'{name} is a run on identities; compare takes runs that detect attacks')
  names, scores = sorted(config.get('test') or {}, key=lambda test: test != 'intra'), {}
  names = ['val', *([test for test in names if test in tests] or names)]
  for test in names:
    file = path / 'scores' / f'{test}.csv'
    if not file.is_file():
      raise StateError(
        f'{name} has no scores of {test} (scores/{test}.csv); run flexfas evaluate {name}'
      )
    scores[test] = score_files.read(file)
  if len(names) == 1:
    raise StateError(f'{name} has no tests')
  if without := set(names[1:]) - {*(config.get('threshold') or {})}:
    raise StateError(f'{name}/config.json has no threshold rule for {sorted(without)[0]}')
  steps = {one.header.get('weights_hash') for one in scores.values()}
  if len(steps) > 1:
    raise StateError(f'{name}: its score files are of several models; run flexfas evaluate {name}')
  rows, header = metric_rows(path), next(iter(scores.values())).header
  cost, least = _cost(path, rows, header), oracle.least(rows)
  return TrainedRun(name, config, scores.pop('val'), scores, cost, least)


def _cost(folder: Path, rows: Sequence[Mapping], header: Mapping) -> Cost:
  seconds = []
  for row in rows:
    seconds.append(row.get('speed/step_seconds', math.nan))
  seconds = [x for x in seconds if isinstance(x, int | float) and math.isfinite(x)]
  # The first interval includes what a device does once.
  seconds = seconds[1:] or seconds
  flops = math.nan
  with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
    flops = float(json.loads((folder / 'preflight.json').read_text())[0]['flops_per_chip'])
  return Cost(
    float(header.get('trained_parameters', math.nan)),
    float(header.get('parameters', math.nan)),
    flops,
    float(np.median(seconds)) if seconds else math.nan,
  )


def metric_rows(folder: Path) -> list[dict]:
  """The objects of a workdir's `metrics.jsonl`; damaged lines and a missing file give none."""
  found = []
  try:
    lines = (folder / 'metrics.jsonl').read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    return []
  for line in lines:
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(row, dict):
      found.append(row)
  return found


def group(runs: Sequence[TrainedRun], names: Sequence[str] = ()) -> list[Method]:
  """Runs as methods, in the order of their first runs.

  Args:
    runs: each once.
    names: 'NAME=PATTERN': the runs whose folder, or its name, matches the pattern (`*`, `?`,
      `[...]`) are the method NAME, whatever their configs are. The others are grouped by config,
      and called as the common beginning of the names of their folders.

  Raises:
    ConfigError: a name without a pattern or without runs; protocols with different numbers of runs.
    DataError: one training run given twice.
  """
  _check_different(runs)
  patterns = []
  for text in names:
    name, equals, pattern = text.partition('=')
    if not (name and equals and pattern):
      raise ConfigError(f'--name={text}: write NAME=PATTERN, a pattern of folders')
    patterns.append((name, pattern))
    if not any(_matches(run, pattern) for run in runs):
      raise ConfigError(f'--name={text}: no run matches; there are {", ".join(map(_folder, runs))}')
  by_key: dict[tuple[str, str], list[TrainedRun]] = {}
  for run in runs:
    given = next((name for name, pattern in patterns if _matches(run, pattern)), '')
    by_key.setdefault((given, '' if given else _method_key(run)), []).append(run)
  taken, methods = {given for given, _ in by_key if given}, []
  for (given, _), of in by_key.items():
    name = given or _unused(_common_name(of), taken)
    taken.add(name)
    by_protocol: dict[str, list[TrainedRun]] = {}
    for run in of:
      by_protocol.setdefault(run.protocol, []).append(run)
    if len({len(some) for some in by_protocol.values()}) > 1:
      counts = ', '.join(f'{len(some)} of {p or "no protocol"}' for p, some in by_protocol.items())
      raise ConfigError(
        f'{name} has different numbers of runs under its protocols ({counts}); give equally many, '
        'or split them by --name=NAME=PATTERN'
      )
    ordered = {p: tuple(sorted(some, key=lambda run: run.seed)) for p, some in by_protocol.items()}
    methods.append(Method(name, ordered))
  return methods


def _check_different(runs: Sequence[TrainedRun]) -> None:
  seen: dict = {}
  for run in runs:
    key = run.val.header.get('weights_hash') or os.path.realpath(run.folder)
    if (other := seen.setdefault(key, run)) is not run:
      raise DataError(
        f'{run.folder} and {other.folder} are one training run (the same weights): give each once'
      )


def _folder(run: TrainedRun) -> str:
  if run.folder.startswith('gs://'):
    return run.folder.rstrip('/').rpartition('/')[2]
  return Path(run.folder).resolve().name


def _matches(run: TrainedRun, pattern: str) -> bool:
  return any(fnmatch.fnmatchcase(text, pattern) for text in (run.folder, _folder(run)))


def _method_key(run: TrainedRun) -> str:
  left_out = {*_NOT_METHOD, *(_OF_PROTOCOL if run.protocol else ())}
  fields = {
    name: value
    for name, value in run.config.items()
    if name not in left_out and value and value != _DEFAULTS.get(name)
  }
  return json.dumps(fields, sort_keys=True)


def _common_name(runs: Sequence[TrainedRun]) -> str:
  names = [_folder(run) for run in runs]
  if len(runs) == 1:
    return names[0]
  bare = {_SEED.sub('', name) for name in names}
  if len(bare) == 1:  # linear-0 and linear-1
    return bare.pop() or names[0]
  return os.path.commonprefix(names).rstrip('_-. ') or names[0]


def _unused(name: str, taken: set[str]) -> str:
  number, found = 2, name
  while found in taken:
    found, number = f'{name} ({number})', number + 1
  return found
