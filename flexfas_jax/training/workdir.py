"""A workdir belongs to one config: what may be otherwise when a run goes on, and what may not."""

import json
import pathlib

from flexfas_jax.errors import StateError
from flexfas_jax.files import write_text

# Where and how a run is done, not what it computes.
FREE = (
  *('data_dir', 'mesh', 'eval_batch_size'),
  *('log_every', 'checkpoint_every', 'save_tries', 'report', 'member'),
)
# What evaluation alone may have otherwise than the training had.
ONLY_TESTS = (
  *('test', 'threshold', 'protocol', 'accept_known_leaks', 'left_out', 'views'),
  'pretrained',  # what it started from is not read again
  'pairs',
)
# Fields that configs of earlier versions lack, and what they computed.
_DEFAULTS = {'resize': 'area'}
_PRETRAINING = 'pretraining.json'
# With another of these, the order of the data is another one.
_DATA = ('train', 'seed', 'batch_size')


def compare(workdir: pathlib.Path, fields: dict, but: tuple[str, ...] = ()) -> list[str]:
  """What of a config is not as the workdir's run was begun with, a line each; [] in a new workdir.

  Args:
    workdir: a run's, or one that is not there, empty, or holds a preflight alone.
    fields: the config.
    but: groups that may differ, besides `FREE`.

  Raises:
    StateError: the folder holds something else.
  """
  file = workdir / 'config.json'
  if not file.exists():
    # A file with a dot is what was killed while it wrote the config.
    held = [f.name for f in workdir.glob('*') if f.name[0] != '.' and f.name != 'preflight.json']
    if held:
      raise StateError(f'{workdir} is not empty and holds no run of ours; name another --workdir')
    return []
  try:
    old = _DEFAULTS | _flat(json.loads(file.read_text()))
  except ValueError as error:
    raise StateError(f'{file} is damaged ({error}); name another --workdir') from error
  new = _DEFAULTS | _flat(json.loads(json.dumps(fields)))
  changed = [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in (*FREE, *but)
  ]
  return [f'{k}: {old.get(k, "(nothing)")} there, {new.get(k, "(nothing)")} now' for k in changed]


def data_order_changed(old: dict, new: dict) -> bool:
  """Whether a position in the data of one config means nothing in another's."""
  return any(old.get(key) != json.loads(json.dumps(new[key])) for key in _DATA)


def refuse(workdir: pathlib.Path, changed: list[str], hint: str = '') -> None:
  """Raises a StateError that lists the changes, if there are any."""
  if changed:
    raise StateError(
      f'{workdir} is the workdir of another config; name another --workdir, or go back to its '
      f'config{hint}:\n' + '\n'.join(f'  {line}' for line in changed)
    )


def write_config(workdir: pathlib.Path, fields: dict, changed_at: int | None = None) -> None:
  """`config.json`; the one before a change stays as `config.before_step_N.json`."""
  workdir.mkdir(parents=True, exist_ok=True)
  file = workdir / 'config.json'
  if changed_at is not None:
    write_text(workdir / f'config.before_step_{changed_at}.json', file.read_text(encoding='utf-8'))
  write_text(file, json.dumps(fields, indent=2) + '\n')


def write_pretraining(workdir: pathlib.Path, told: dict) -> None:
  """`pretraining.json`: which weights of ours a run started from, and the people they have seen."""
  write_text(workdir / _PRETRAINING, json.dumps(told, indent=1) + '\n')


def pretraining(workdir: pathlib.Path) -> dict:
  """What `write_pretraining` wrote; {} where the run started from nothing of ours.

  Raises:
    StateError: the file is damaged.
  """
  file = workdir / _PRETRAINING
  try:
    told = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {}
    told.get('people')
  except (ValueError, AttributeError) as error:
    raise StateError(f'{file} is damaged ({error})') from error
  return told


def _flat(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    # An empty group says something too: a loss without fields is named by its key alone.
    flat |= _flat(value, name + '.') if isinstance(value, dict) and value else {name: value}
  return flat
