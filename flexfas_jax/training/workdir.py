"""A workdir belongs to one config: which fields may change when its run resumes.

Each checkpoint has the contents of its JSON files, too: one that is damaged is read from there.
"""

import functools
import json
import os
import pathlib
import sys
from typing import Any

from etils import epath

from flexfas_jax import bucket
from flexfas_jax.errors import StateError
from flexfas_jax.files import write_text
from flexfas_jax.training import lock

# Where and how a run computes, not what.
FREE = (
  *('data_dir', 'mesh', 'eval_batch_size'),
  *('log_every', 'checkpoint_every', 'save_tries', 'report', 'pass_if', 'test_toml', 'member'),
)
# Fields that an evaluation may change.
ONLY_TESTS = (
  *('test', 'threshold', 'protocol', 'accept_known_leaks', 'left_out', 'views'),
  'pretrained',  # the initial weights are not read again
  'pairs',
)
# Fields that the configs of other versions lack, with the values those versions used.
_DEFAULTS = {'resize': 'area', 'ema': 0.0, 'trainable': [], 'optimizer.freeze': []}
_DEFAULTS |= {'domain': 'dataset', 'sampler': {}, 'gradient_modulation': None}
# Fields that determine the order of the training data.
_DATA_ORDER = ('train', 'seed', 'batch_size', 'sampler')
_CONFIG, _PRETRAINING = 'config.json', 'pretraining.json'
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
  old = read_config(workdir)
  if old is None:
    # A process killed while it wrote the config leaves a file whose name begins with a dot.
    others = {f.name for f in workdir.glob('*') if f.name[0] != '.'}
    if others - {'preflight.json', lock.FILE}:
      raise StateError(f'{workdir} is not empty and holds no run; name another --workdir')
    return []
  old = _DEFAULTS | _flatten(old)
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


def origin(folder: str | os.PathLike) -> str:
  """The workdir as the user gave it: the folder, or its URL if the folder is a scratch folder."""
  if bucket.is_remote(folder):
    return str(folder)
  file = pathlib.Path(folder) / _ORIGIN
  return file.read_text(encoding='utf-8') if file.is_file() else str(folder)


def checkpoints(folder: str | os.PathLike) -> epath.Path:
  """The folder of a workdir's checkpoints, which of a scratch folder is in the bucket."""
  return epath.Path(origin(folder)) / 'checkpoints'


def data_order_changed(old: dict, new: dict) -> bool:
  """Whether a data position saved under one config is invalid under another."""
  old, new = _DEFAULTS | old, _DEFAULTS | json.loads(json.dumps(new))
  # Without a sampler, domains have no part in the order.
  fields = (*_DATA_ORDER, 'domain') if old['sampler'] and new['sampler'] else _DATA_ORDER
  return any(old.get(key) != new[key] for key in fields)


def refuse_changes(workdir: pathlib.Path, changed: list[str], hint: str = '') -> None:
  """Raises a StateError that lists the changes, if there are any."""
  if changed:
    raise StateError(
      f'{workdir} is the workdir of another config; name another --workdir, or restore its '
      f'config{hint}:\n' + '\n'.join(f'  {line}' for line in changed)
    )


def read_config(workdir: str | os.PathLike) -> dict | None:
  """The config of a workdir's run, also one at gs://; None if there is no run.

  Raises:
    StateError: it is damaged, and no checkpoint has it.
  """
  return _read(workdir, _CONFIG, 'config')


def write_config(workdir: pathlib.Path, fields: dict, changed_at: int | None = None) -> None:
  """Writes `config.json`; keeps the one before a change as `config.before_step_N.json`."""
  workdir.mkdir(parents=True, exist_ok=True)
  if changed_at is not None:
    _write(workdir / f'config.before_step_{changed_at}.json', read_config(workdir))
  _write(workdir / _CONFIG, fields)


def write_pretraining(workdir: pathlib.Path, record: dict) -> None:
  """Writes `pretraining.json`: the run whose weights a run started from, and its subjects."""
  _write(workdir / _PRETRAINING, record)


def read_pretraining(workdir: pathlib.Path) -> dict:
  """What `write_pretraining` wrote; {} if the run did not start from another run.

  Raises:
    StateError: the file is damaged.
  """
  record = _read(workdir, _PRETRAINING, 'pretraining')
  if record is None:
    return {}
  for old, new in (('people', 'subjects'), ('remark', 'note')):  # keys of earlier versions
    if old in record:
      record[new] = record.pop(old)
  if 'subjects' not in record:
    raise StateError(f'{workdir / _PRETRAINING} is damaged (it lists no subjects)')
  return record


def newest_run_info(workdir: str | os.PathLike) -> dict[str, Any]:
  """What the newest checkpoint that can be read has besides arrays; {} if there is none.

  Its keys: 'config', 'version', and in later versions 'data' and, perhaps, 'pretraining'.
  """
  folder = checkpoints(workdir)
  if bucket.is_remote(folder):  # a step that is being written has its name already
    names = bucket.list_objects(str(folder))
    steps = [folder / n.partition('/')[0] for n in names if n.endswith('/commit_success.txt')]
  else:
    steps = [f for f in folder.iterdir() if f.name.isdigit()] if folder.is_dir() else []
  for step in sorted(steps, key=lambda f: int(f.name), reverse=True):
    try:
      return dict(json.loads(_read_bytes(step / 'run', 'metadata')))
    except (OSError, ValueError, TypeError):
      continue
  return {}


def _read(workdir: str | os.PathLike, name: str, key: str) -> dict | None:
  """A JSON file, or what the newest checkpoint has of it; None if there is neither.

  Raises:
    StateError: the file is damaged, and no checkpoint has its contents.
  """
  try:
    contents = json.loads(_read_bytes(workdir, name))
    if not isinstance(contents, dict) or not contents:
      raise ValueError('it is not an object with fields')
    return contents
  except FileNotFoundError:
    why = 'is missing'
  except (OSError, ValueError, RecursionError) as error:
    why = f'is damaged ({error})'
  file, saved = f'{workdir}/{name}', newest_run_info(workdir).get(key)
  if saved:
    _warn_once(f'WARNING: {file} {why}; it is read from the newest checkpoint')
  elif why != 'is missing':
    raise StateError(f'{file} {why}, and no checkpoint has it; name another --workdir')
  return saved


def _read_bytes(workdir: str | os.PathLike, name: str) -> bytes:
  if not bucket.is_remote(workdir):
    return (pathlib.Path(workdir) / name).read_bytes()
  contents = bucket.read(f'{workdir}/{name}')
  if contents is None:
    raise FileNotFoundError(f'{workdir}/{name}')
  return contents


def _write(file: pathlib.Path, contents: dict) -> None:
  write_text(file, json.dumps(contents, indent=2) + '\n')


@functools.cache
def _warn_once(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _flatten(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    # An empty group counts as a value: a loss without fields is its name alone.
    flat |= _flatten(value, name + '.') if isinstance(value, dict) and value else {name: value}
  return flat
