"""Trains, evaluates and exports the experiment of a config: `python -m flexfas_jax.main --help`."""

import ast
import contextlib
import pathlib
import re
import sys
import traceback
from typing import NoReturn

from flexfas_jax import bucket, command_line, errors, lookup

with errors.required_imports(__name__):
  from absl import app, flags, logging
  from ml_collections import ConfigDict, config_flags

_DESCRIPTION = """\
Trains the model of a config, evaluates the best checkpoint, exports it, or estimates memory and
time on a TPU slice (preflight).

Rerun the same command to resume from the newest checkpoint. On several machines, run the same
command on each, with --distributed."""

_EXAMPLES = (
  '--config=vit_fusion --workdir=runs/vit_fusion',
  '--config=vit_fusion --workdir=runs/concat \\\n    --config.steps=100 '
  "--config.model.fusion=\"{'name': 'concat'}\"",
  '--workdir=runs/vit_fusion --mode=evaluate --config.data_dir=/data/prepared',
  '--workdir=runs/vit_fusion --mode=export --export_dir=bundle \\\n    '
  '--formats=onnx,tflite --modalities=rgb+depth+ir,rgb',
  '--config=vit_fusion:flexmodal --workdir=runs/preflight \\\n    --mode=preflight '
  '--topology=v5e:4x4',
)

_EXIT_CODES = {
  2: 'wrong usage or config, or out of memory',
  4: 'a checkpoint or workdir that is missing, damaged or of another config',
  5: 'the exported model does not reproduce the decisions of the checkpoint',
  75: 'a bucket does not answer, or not all processes started; rerun the same command later',
  143: 'stopped by SIGTERM after saving; rerun the same command to resume',
}

MODES = ('train_and_evaluate', 'train', 'evaluate', 'export', 'preflight')

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='the experiment: the name of a config, NAME:RECIPE, or a Python file. Default: the '
  "config of the workdir's run",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'folder of checkpoints, logs, scores and results; local or gs://BUCKET/FOLDER'
)
_MODE = flags.DEFINE_enum(
  'mode', MODES[0], MODES, f'one of {", ".join(MODES)}; default: {MODES[0]}'
)
_STRICT = flags.DEFINE_bool(
  'strict_restore', False, 'fail if the newest checkpoint is damaged, instead of using an older one'
)
_ALLOW = flags.DEFINE_bool(
  'allow_config_change', False, 'resume with another config than the run was started with'
)
_ALLOW_DATA = flags.DEFINE_bool(
  'allow_data_change',
  False,
  'resume with, or evaluate on, other data than the run was started with',
)
_PROFILE = flags.DEFINE_string('profile_steps', None, 'profile the steps A to B into the workdir')
_ORACLE = flags.DEFINE_list(
  'oracle',
  [],
  'score these tests whenever val is scored, and add to the results the least HTER of all these '
  'evaluations: the figure of papers that select the epoch on the test. The selected checkpoint '
  'stays the same',
)
_INPUT = flags.DEFINE_integer(
  'input_processes',
  0,
  'worker processes that make the training batches, for machines with more than four cores; 0: '
  'threads. Batches and resumption do not depend on it',
  lower_bound=0,
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'this is one of several processes. The others are found through SLURM, GKE, the TPU VM or Open '
  'MPI, or by the next three flags',
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'address of process 0')
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'number of processes')
_PROCESS = flags.DEFINE_integer('process_id', None, 'number of this process, from 0')
_CONNECT = flags.DEFINE_integer('connect_seconds', 300, 'how long to wait for the other processes')
_EXPORT_DIR = flags.DEFINE_string(
  'export_dir', None, 'the bundle to create; default: WORKDIR/bundle'
)
_FORMATS = flags.DEFINE_string(
  'formats', None, 'of stablehlo, onnx, tflite, weights; default: all of them'
)
_MODALITIES = flags.DEFINE_string(
  'modalities',
  None,
  'subsets that get their own graph, e.g. rgb+depth+ir,rgb. The graph of all modalities takes any '
  'subset',
)
_SIGN_KEY = flags.DEFINE_string(
  'sign_key',
  None,
  'private Ed25519 key that signs the bundle; --public_key of predict and demo verifies the '
  'signature. To create both: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in '
  'key.pem -pubout -out key.pub',
)
_SEQUENCE = flags.DEFINE_integer(
  'sequence',
  None,
  'number of the bundle, larger than that of the last one: --min_sequence of predict and demo '
  'refuses older bundles. Default: seconds since 1970',
)
_MIN_SCORES = flags.DEFINE_integer(
  'min_val_scores',
  None,
  'a subset gets a threshold if val has that many scores of each class with signal in all its '
  'modalities; default: 30',
)
_MIN_SUBJECTS = flags.DEFINE_integer(
  'min_val_subjects', None, 'and if these scores are of that many subjects; default: 10'
)
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, "slices to compile for, e.g. v5e:4x4,2xv5e:4x4; 'cuda' lowers for a GPU"
)
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')

_EXPORT_FLAGS = (
  (_EXPORT_DIR, 'DIR'),
  (_FORMATS, 'FORMAT,...'),
  (_MODALITIES, 'SUBSET,...'),
  (_SIGN_KEY, 'KEY.pem'),
  (_SEQUENCE, 'N'),
  (_MIN_SCORES, 'N'),
  (_MIN_SUBJECTS, 'N'),
)
_GROUPS = {  # of the help: (flag, placeholder of its value; None: it takes none)
  'experiment': ((_CONFIG, 'CONFIG'), (_WORKDIR, 'DIR'), (_MODE, 'MODE')),
  'training': (
    (_STRICT, None),
    (_ALLOW, None),
    (_ALLOW_DATA, None),
    (_ORACLE, 'TEST,...'),
    (_PROFILE, 'A:B'),
    (_INPUT, 'N'),
  ),
  'several processes': (
    (_DISTRIBUTED, None),
    (_COORDINATOR, 'HOST:PORT'),
    (_PROCESSES, 'N'),
    (_PROCESS, 'I'),
    (_CONNECT, 'SECONDS'),
  ),
  'export (--mode=export)': _EXPORT_FLAGS,
  'preflight (--mode=preflight)': ((_TOPOLOGY, 'KIND:AxB,...'),),
}

_LONGEST_GROUP = 100  # characters of a config group that an error message shows
_FREEZE = '--config.optimizer.freeze'  # a field of earlier versions

# A config group cannot be set to None by a flag; an empty group has the same effect.
_OF_PROTOCOL = ('train', 'val', 'test', 'threshold', 'left_out')  # fields that a protocol replaces
_NO_PRETRAINING = {'--config.pretrained=None': '--config.pretrained={}'}
_NO_CLIPPING = '--config.clip_norm=None'  # a number cannot be set to None by a flag either


def _help() -> str:
  """The help text, in the layout of the other commands."""
  parser = command_line.make_parser('main', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  parser.usage = '%(prog)s [--config=CONFIG] --workdir=DIR [--mode=MODE] [options]'
  for title, group in _GROUPS.items():
    add = parser.add_argument_group(title).add_argument
    for flag, placeholder in group:
      text = flags.FLAGS[flag.name].help
      text = text.rpartition('>: ')[2].replace('%', '%%')  # absl adds '<choices>: '
      if placeholder is None:
        add(f'--{flag.name}', action='store_true', help=text)
      else:
        add(f'--{flag.name}', metavar=placeholder, help=text)
    if title == 'experiment':
      add(
        '--config.FIELD',
        metavar='VALUE',
        help='replace a field or a group of the config; --config.pretrained=None: random weights',
      )
  return parser.format_help()


def _with_config_file(argv: list[str]) -> list[str]:
  """Replaces the name of a config by its file; adds the config of the workdir if none is given."""
  arguments, has_config, workdir = list(argv), False, None
  for i, argument in enumerate(argv):
    flag, equals, value = argument.partition('=')
    at = i if equals else i + 1  # of the value
    if at == len(argv):
      continue
    if flag in ('--config', '-config'):
      has_config = True
      file = lookup.config_file(value if equals else argv[at])
      arguments[at] = f'{flag}={file}' if equals else file
    elif flag in ('--workdir', '-workdir'):
      workdir = value if equals else argv[at]
      workdir = workdir.rstrip('/') if bucket.is_remote(workdir) else workdir
  if not has_config and workdir and _holds_run(workdir):
    reader = pathlib.Path(__file__).parent / 'training' / 'run_config.py'
    arguments.insert(1, f'--config={reader}:{workdir}')  # before the fields that override it
  return arguments


def _holds_run(workdir: str) -> bool:
  """Whether a workdir has a config; a checkpoint has it, too.

  Raises:
    ConfigError, StateError: it is at gs:// and cannot be read.
  """
  bucket.check_path(workdir, '--workdir')
  if not bucket.is_remote(workdir):
    names = ('config.json', 'checkpoints')
    return any((pathlib.Path(workdir) / name).exists() for name in names)
  bucket.check_reachable(workdir, '--workdir', errors.StateError)
  if bucket.read(f'{workdir}/config.json') is not None:
    return True
  return bool(bucket.list_objects(f'{workdir}/checkpoints'))


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; prints help or an error and ends the process if they ask for it or fail."""
  if any(a in ('--help', '-h', '-help') for a in argv[1:]):
    command_line.print_help(_help())
    sys.exit(0)
  try:
    arguments = [_NO_PRETRAINING.get(a, a) for a in _with_config_file(argv)]
    later = [a for a in arguments if a.startswith(f'{_FREEZE}=') or a == _NO_CLIPPING]
    sys.argv[:] = [a for a in sys.argv if a not in later]  # from which ml_collections reads, too
    rest = flags.FLAGS([a for a in arguments if a not in later])
    if rest[1:]:
      raise errors.ConfigError(f'unexpected argument {rest[1]!r}')
    if _WORKDIR.value is None:
      raise errors.ConfigError('--workdir is missing')
    if _CONFIG.value is None:
      raise errors.ConfigError(f'--config is missing, and {_WORKDIR.value} holds no run')
    _CONFIG.value.keys()  # raises if the config file does not exist
    for argument in later:
      field, _, value = argument.partition('=')
      with _CONFIG.value.unlocked():
        if field == _FREEZE:  # refused with the parameters' names, when the model is built
          _CONFIG.value.optimizer.freeze = _literal(value)
        else:
          _CONFIG.value.clip_norm = None
  except errors.StateError as error:  # a workdir whose config is damaged
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  except Exception as error:  # of absl, ml_collections, or a config file
    if '--debug' in argv:
      raise
    code = getattr(error, 'exit_code', errors.ConfigError.exit_code)
    hint = '\n(see --help)' if code == errors.ConfigError.exit_code else ''
    print(f'error: {_short_message(error)}{hint}', file=sys.stderr)
    sys.exit(code)
  return rest


def _literal(text: str):
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def _short_message(error: Exception) -> str:
  """The message of an error; of a config file's traceback, the first and the last line."""
  if text := _describe_wrong_value(str(error)):
    return text
  lines = str(error).strip().splitlines() or [type(error).__name__]
  name = lines[0].strip('\'"')
  if len(lines) == 1 and name.isidentifier():  # of a KeyError
    return f'the config has no {name!r}; add names by replacing the group: --config.test="{{...}}"'
  if any(line.startswith('Traceback') for line in lines):
    lines = [lines[0], lines[-1]]
  return '\n'.join(lines)


def _describe_wrong_value(message: str) -> str:
  """What to give for a field of the config whose value has another type; '' for another error."""
  found = re.fullmatch(r'flag --config\.([\w.]+)=(.*?): .*', message.strip(), re.DOTALL)
  config = flags.FLAGS['config'].value  # the flag as a whole is not parsed yet
  if not found or config is None:
    return ''
  field, value = found.groups()  # a value may have the ': ' that ends it in the message
  start = f'--config.{field}='
  value = next((a.removeprefix(start) for a in sys.argv if a.startswith(start)), value)
  try:
    for name in field.split('.'):
      config = config[name]
  except (KeyError, TypeError):
    return ''
  due = 'another value'
  if isinstance(config, ConfigDict):
    group = str(config.to_dict())
    example = group if len(group) <= _LONGEST_GROUP else '{...}'
    due = f'a group, as in --config.{field}="{example}", or --config.{field}={{}} for an empty one'
  elif isinstance(config, bool):
    due = f'True or False, as in --config.{field}={config}'
  elif isinstance(config, int):
    due = f'a whole number, as in --config.{field}={config}'
  elif isinstance(config, float):
    due = f'a number, as in --config.{field}={config}'
  elif isinstance(config, tuple | list):
    due = f'a tuple, as in --config.{field}="{config}"'
  return f'--config.{field}={value}: give {due}'


def _check_protocol_fields() -> None:
  """Refuses fields on the command line that the config's protocol would replace."""
  protocol = _CONFIG.value.get('protocol')
  given = config_flags.get_override_values(flags.FLAGS['config'])
  replaced = [name for name in given if name.partition('.')[0] in _OF_PROTOCOL]
  if protocol and replaced:
    raise errors.ConfigError(
      f'config.protocol = {protocol} replaces config.{replaced[0].partition(".")[0]}; to use '
      f'--config.{replaced[0]}={given[replaced[0]]}, add --config.protocol= (a run keeps the data '
      'and the other rules of its protocol; not its choice of subsets and metrics)'
    )


def _profile_steps(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  first, colon, last = text.partition(':')
  if not (first.isdigit() and colon and last.isdigit()):
    raise errors.ConfigError(f'--profile_steps={text} is not A:B, e.g. 20:25')
  return int(first), int(last)


@contextlib.contextmanager
def _disk_errors():
  """Turns an error of the file system, such as a full disk, into a StateError."""
  try:
    yield
  except BrokenPipeError:
    raise
  except OSError as error:
    if _DEBUG.value:
      raise
    raise errors.StateError(f'{error.filename or _WORKDIR.value}: {error.strerror}') from error


def _run_mode() -> None:
  """Checks the flags and does what --mode names."""
  # Orbax and TFDS report their own housekeeping as warnings.
  logging.set_verbosity(logging.INFO if _DEBUG.value else logging.ERROR)
  profile_steps = _profile_steps(_PROFILE.value)
  _check_protocol_fields()
  if _MODE.value != 'preflight' and _TOPOLOGY.value is not None:
    raise errors.ConfigError('--topology requires --mode=preflight')
  if _ORACLE.value and _MODE.value not in MODES[:2]:
    raise errors.ConfigError(f'--oracle requires a training, not --mode={_MODE.value}')
  export_options = {f.name: f.value for f, _ in _EXPORT_FLAGS if f.value is not None}
  if _MODE.value != 'export' and export_options:
    raise errors.ConfigError(f'--{next(iter(export_options))} requires --mode=export')
  if _EXPORT_DIR.value:
    bucket.check_path(_EXPORT_DIR.value, '--export_dir')
    if bucket.is_remote(_EXPORT_DIR.value):
      raise errors.ConfigError(
        f'--export_dir={_EXPORT_DIR.value}: give a local folder, and copy it: gcloud storage cp -r'
      )
  # The modes import jax, which --help and wrong flags do not need.
  if _MODE.value == 'preflight':
    from flexfas_jax.preflight import run as preflight
    from flexfas_jax.training import remote_workdir

    preflight.hide_accelerators()  # before a workdir at gs:// asks which process this is
    with remote_workdir.open_workdir(_WORKDIR.value) as opened:
      preflight.run(_CONFIG.value, opened.folder, _TOPOLOGY.value)
  elif _MODE.value == 'export':
    if _DISTRIBUTED.value:
      raise errors.ConfigError('--mode=export runs in one process, without --distributed')
    from flexfas_jax.export import bundle
    from flexfas_jax.training import memory, remote_workdir

    data_dir = _CONFIG.value.get('data_dir', '')
    with (
      _disk_errors(),
      remote_workdir.open_workdir(_WORKDIR.value, data_dir) as opened,
      memory.explain_exhaustion(_CONFIG.value),
    ):
      bundle.export(_CONFIG.value, opened.folder, **export_options)
  else:
    from flexfas_jax.training import loop, memory, remote_workdir

    _start_processes()
    data_dir = _CONFIG.value.get('data_dir', '')
    with (
      _disk_errors(),
      remote_workdir.open_workdir(_WORKDIR.value, data_dir) as opened,
      memory.explain_exhaustion(_CONFIG.value),
    ):
      options = loop.Options(
        strict_restore=_STRICT.value,
        allow_config_change=_ALLOW.value,
        allow_data_change=_ALLOW_DATA.value,
        profile_steps=profile_steps,
        oracle=tuple(_ORACLE.value),
        input_processes=_INPUT.value,
        before_save=opened.send,
        while_locked=opened.hold,
      )
      getattr(loop, _MODE.value)(_CONFIG.value, opened.folder, options)


def _start_processes() -> None:
  """Joins the other processes of a distributed run; refuses flags of one without --distributed."""
  from flexfas_jax.training import distributed

  if _DISTRIBUTED.value:
    distributed.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _CONNECT.value)
    return
  for flag in (_COORDINATOR, _PROCESSES, _PROCESS):
    if flag.value is not None:
      raise errors.ConfigError(f'--{flag.name} requires --distributed')
  distributed.check_launched_distributed()


def main(argv: list[str] | None = None) -> NoReturn:
  """Runs the command; only once per process, since flags are global.

  Args:
    argv: the flags; those of the process if None.

  Raises:
    SystemExit: at the end, with the exit code.
  """
  if argv is not None:
    sys.argv[1:] = argv  # ml_collections reads overridden fields from there
  app.run(_run, flags_parser=_parse)


def _run(_) -> int:
  if not _DISTRIBUTED.value:
    return errors.exit_code_of(_run_mode, _DEBUG.value, broken_pipe=1)
  code = 1
  try:
    code = errors.exit_code_of(_run_mode, _DEBUG.value, broken_pipe=1)
  except Exception:
    traceback.print_exc()
  from flexfas_jax.training import distributed

  distributed.hard_exit(code)
  return code


if __name__ == '__main__':
  main()
