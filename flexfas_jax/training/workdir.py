"""A workdir belongs to one config: which fields may change when its run resumes."""

import json
import pathlib

from etils import epath

from flexfas_jax.errors import StateError
from flexfas_jax.files import write_text

# Where and how a run computes, not what.
FREE = (
  *('data_dir', 'mesh', 'eval_batch_size'),
  *('log_every', 'checkpoint_every', 'save_tries', 'report', 'member'),
)
# Fields that an evaluation may change.
ONLY_TESTS = (
  *('test', 'threshold', 'protocol', 'accept_known_leaks', 'left_out', 'views'),
  'pretrained',  # the initial weights are not read again
  'pairs',
)
# Fields that the configs of earlier versions lack, with the values those versions used.
_DEFAULTS = {'resize': 'area', 'ema': 0.0}
# Fields that determine the order of the training data.
_DATA_ORDER = ('train', 'seed', 'batch_size')
_PRETRAINING = 'pretraining.json'
_ORIGIN = '.origin'  # in a scratch folder


def changed_fields(workdir: pathlib.Path, fields: dict, but: tuple[str, ...] = ()) -> list[str]:
  """Compares a config with the one that a workdir's run was started with.

  Args:
    workdir: of a run; or missing, empty, or with nothing but a preflight.
    fields: of the config.
    but: groups that may differ, besides `FREE`.

  Returns:
    A line for each difference; [] for a new workdir.

  Raises:
    StateError: the folder holds something else.
  """
  file = workdir / 'config.json'
  if not file.exists():
    # A process killed while it wrote the config leaves a file whose name begins with a dot.
    others = [f.name for f in workdir.glob('*') if f.name[0] != '.' and f.name != 'preflight.json']
    if others:
      raise StateError(f'{workdir} is not empty and holds no run; name another --workdir')
    return []
  try:
    old = _DEFAULTS | _flatten(json.loads(file.read_text()))
  except ValueError as error:
    raise StateError(f'{file} is damaged ({error}); name another --workdir') from error
  new = _DEFAULTS | _flatten(json.loads(json.dumps(fields)))
  changed = [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in (*FREE, *but)
  ]
  return [
    f'{k}: {old.get(k, "(nothing)")} in the workdir, {new.get(k, "(nothing)")} now' for k in changed
  ]


def set_origin(folder: pathlib.Path, url: str) -> None:
  """Marks a scratch folder as that of a workdir at gs://."""
  write_text(folder / _ORIGIN, url)


def origin(folder: pathlib.Path) -> str:
  """The workdir as the user gave it: the folder, or its URL if the folder is a scratch folder."""
  file = pathlib.Path(folder) / _ORIGIN
  return file.read_text(encoding='utf-8') if file.is_file() else str(folder)


def checkpoints(folder: pathlib.Path) -> epath.Path:
  """The folder of a workdir's checkpoints, which of a scratch folder is in the bucket."""
  return epath.Path(origin(folder)) / 'checkpoints'


def data_order_changed(old: dict, new: dict) -> bool:
  """Whether a data position saved under one config is invalid under another."""
  return any(old.get(key) != json.loads(json.dumps(new[key])) for key in _DATA_ORDER)


def refuse_changes(workdir: pathlib.Path, changed: list[str], hint: str = '') -> None:
  """Raises a StateError that lists the changes, if there are any."""
  if changed:
    raise StateError(
      f'{workdir} is the workdir of another config; name another --workdir, or restore its '
      f'config{hint}:\n' + '\n'.join(f'  {line}' for line in changed)
    )


def write_config(workdir: pathlib.Path, fields: dict, changed_at: int | None = None) -> None:
  """Writes `config.json`; keeps the one before a change as `config.before_step_N.json`."""
  workdir.mkdir(parents=True, exist_ok=True)
  file = workdir / 'config.json'
  if changed_at is not None:
    write_text(workdir / f'config.before_step_{changed_at}.json', file.read_text(encoding='utf-8'))
  write_text(file, json.dumps(fields, indent=2) + '\n')


def write_pretraining(workdir: pathlib.Path, record: dict) -> None:
  """Writes `pretraining.json`: the run whose weights a run started from, and its subjects."""
  write_text(workdir / _PRETRAINING, json.dumps(record, indent=1) + '\n')


def read_pretraining(workdir: pathlib.Path) -> dict:
  """What `write_pretraining` wrote; {} if the run did not start from another run.

  Raises:
    StateError: the file is damaged.
  """
  file = workdir / _PRETRAINING
  if not file.is_file():
    return {}
  try:
    record = dict(json.loads(file.read_text(encoding='utf-8')))
  except (ValueError, TypeError) as error:
    raise StateError(f'{file} is damaged ({error})') from error
  for old, new in (('people', 'subjects'), ('remark', 'note')):  # keys of earlier versions
    if old in record:
      record[new] = record.pop(old)
  if 'subjects' not in record:
    raise StateError(f'{file} is damaged (it lists no subjects)')
  return record


def _flatten(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    # An empty group counts as a value: a loss without fields is its name alone.
    flat |= _flatten(value, name + '.') if isinstance(value, dict) and value else {name: value}
  return flat
