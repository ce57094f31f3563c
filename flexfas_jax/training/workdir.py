"""A workdir belongs to one config: what may be otherwise when a run goes on, and what may not."""

import json
import pathlib
from typing import NamedTuple

from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files

# Where and how a run is done, not what it computes.
FREE = (
  *('data_dir', 'mesh', 'eval_batch_size'),
  *('log_every', 'checkpoint_every', 'save_tries'),
)
# What evaluation alone may have otherwise than the training had.
ONLY_TESTS = (
  *('test', 'threshold', 'protocol', 'accept_known_leaks'),
  'pretrained',  # what it started from is not read again
)
# With another of these, the order of the data is another one.
_DATA = ('train', 'seed', 'batch_size')


class Change(NamedTuple):
  """What is otherwise than when a run was begun."""

  lines: list[str]  # one for each field
  data: bool  # whether the data position means nothing any more


def compare(workdir: pathlib.Path, fields: dict, but: tuple[str, ...] = ()) -> Change:
  """What of a config is not as the workdir's run was begun with; nothing in a new workdir.

  Args:
    workdir: a run's, or one that is not there or empty.
    fields: the config.
    but: groups that may differ, besides `FREE`.

  Raises:
    StateError: the folder holds something else.
  """
  file = workdir / 'config.json'
  if not file.exists():
    if workdir.exists() and any(workdir.iterdir()):
      raise StateError(f'{workdir} is not empty and holds no run of ours; name another --workdir')
    return Change([], False)
  try:
    old = _flat(json.loads(file.read_text()))
  except ValueError as error:
    raise StateError(f'{file} is damaged ({error}); name another --workdir') from error
  new = _flat(json.loads(json.dumps(fields)))
  changed = [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in (*FREE, *but)
  ]
  lines = [f'{k}: {old.get(k, "(nothing)")} there, {new.get(k, "(nothing)")} now' for k in changed]
  return Change(lines, any(key.split('.')[0] in _DATA for key in changed))


def refuse(workdir: pathlib.Path, change: Change, hint: str = '') -> None:
  """Raises a StateError that lists the change, if there is any."""
  if change.lines:
    raise StateError(
      f'{workdir} is the workdir of another config; name another --workdir, or go back to its '
      f'config{hint}:\n' + '\n'.join(f'  {line}' for line in change.lines)
    )


def write_config(workdir: pathlib.Path, fields: dict, changed_at: int | None = None) -> None:
  """`config.json`; the one before a change stays as `config.before_step_N.json`."""
  workdir.mkdir(parents=True, exist_ok=True)
  file = workdir / 'config.json'
  if changed_at is not None:
    score_files.write_text(
      workdir / f'config.before_step_{changed_at}.json', file.read_text(encoding='utf-8')
    )
  score_files.write_text(file, json.dumps(fields, indent=2) + '\n')


def _flat(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    # An empty group says something too: a loss without fields is named by its key alone.
    flat |= _flat(value, name + '.') if isinstance(value, dict) and value else {name: value}
  return flat
