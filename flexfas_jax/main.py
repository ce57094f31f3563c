"""Trains and evaluates what a config describes.

  python -m flexfas_jax.main --config=configs/vit_fusion.py --workdir=runs/vit_fusion

--config=vit_fusion, a name without folder and suffix, is found from any folder. Without --config,
the config is that of the run in the workdir.
Any field of the config can be overridden, or a group of them replaced:
  --config.steps=100 --config.model.absent=exclude --config.model.fusion="{'name': 'concat'}"
--config.pretrained=None starts from random weights where a recipe names pretrained ones.
Run again with the same workdir, it resumes from the newest checkpoint.

On several machines, the same command on each, with --distributed. Before renting them:
  python -m flexfas_jax.main --config=configs/vit_fusion.py:flexmodal --workdir=runs/preflight \
    --mode=preflight --topology=v5e:4x4

A trained and evaluated run becomes a folder for devices, proven to decide alike:
  python -m flexfas_jax.main --config=configs/vit_fusion.py --workdir=runs/vit_fusion \
    --mode=export --export_dir=bundle --formats=onnx,tflite --modalities=rgb+depth+ir,rgb

Exit codes: 0 done, 2 wrong usage or config, 3 bad data, 4 bad or missing checkpoint or workdir,
5 an export that does not decide as the checkpoint does,
143 stopped by SIGTERM after saving: the same command goes on.
"""

import contextlib
import pathlib
import sys
import traceback
from typing import NoReturn

from flexfas_jax import errors, lookup

with errors.required_imports(__name__):
  from absl import app, flags, logging
  from ml_collections import config_flags

MODES = ('train_and_evaluate', 'train', 'evaluate', 'export', 'preflight')

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='The experiment: a name, as vit_fusion or vit_fusion:flexmodal, or a file.',
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, logs, scores and results go.')
_MODE = flags.DEFINE_enum('mode', MODES[0], MODES, 'Which of the jobs to do.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'One of several processes; the others are found by SLURM, GKE, the TPU VM, or three more flags.',
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'host:port of the first process.')
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.')
_PROCESS = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')
_CONNECT = flags.DEFINE_integer('connect_seconds', 300, 'How long to wait for the others.')
_STRICT = flags.DEFINE_bool(
  'strict_restore', False, 'A damaged newest checkpoint is an error, not a reason for an older one.'
)
_ALLOW = flags.DEFINE_bool(
  'allow_config_change', False, 'Resume although the config is another than the one begun with.'
)
_PROFILE = flags.DEFINE_string('profile_steps', None, 'A:B writes a profile of steps A to B.')
_TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  "With --mode=preflight: slices to compile for, e.g. v5e:4x4,v6e:2x4; 'cuda' lowers for a GPU.",
)
_EXPORT_DIR = flags.DEFINE_string(
  'export_dir', None, 'With --mode=export: the folder to make; else `bundle` in the workdir.'
)
_FORMATS = flags.DEFINE_string(
  'formats', None, 'With --mode=export: of stablehlo,onnx,tflite,weights; else all.'
)
_MODALITIES = flags.DEFINE_string(
  'modalities',
  None,
  'With --mode=export: subsets that get graphs of their own, e.g. rgb+depth+ir,rgb; all of them '
  'gets one that takes any subset.',
)
_SIGN_KEY = flags.DEFINE_string(
  'sign_key',
  None,
  'With --mode=export: PEM file of the private Ed25519 key that signs the bundle; --public_key of '
  'predict and demo verifies it. To make the two: openssl genpkey -algorithm ed25519 '
  '-out key.pem; openssl pkey -in key.pem -pubout -out key.pub',
)
_SEQUENCE = flags.DEFINE_integer(
  'sequence',
  None,
  'With --mode=export: the number of the bundle, larger than that of the last one, so that '
  '--min_sequence of predict and demo refuses older ones; else the seconds since 1970.',
)
_MIN_SCORES = flags.DEFINE_integer(
  'min_val_scores',
  None,
  'With --mode=export: how many scores of each class val must have under a subset of modalities, '
  'all of them with signal, for that subset to get a threshold; else 30.',
)
_MIN_SUBJECTS = flags.DEFINE_integer(
  'min_val_subjects', None, 'With --mode=export: of how many subjects these scores are; else 10.'
)
_DEBUG = flags.DEFINE_bool('debug', False, 'Show tracebacks.')


# A group takes no None from a flag; an empty one says the same.
_NO_PRETRAINING = {'--config.pretrained=None': '--config.pretrained={}'}


def _with_config_file(argv: list[str]) -> list[str]:
  """The command line with the file of the config: of its name, or of the run in the workdir."""
  made, given, workdir = list(argv), False, None
  for i, argument in enumerate(argv):
    flag, equals, value = argument.partition('=')
    at = i if equals else i + 1
    if at == len(argv):
      continue
    if flag in ('--config', '-config'):
      given = True
      found = lookup.config_file(value if equals else argv[at])
      made[at] = f'{flag}={found}' if equals else found
    elif flag in ('--workdir', '-workdir'):
      workdir = value if equals else argv[at]
  if not given and workdir and (pathlib.Path(workdir) / 'config.json').exists():
    reader = pathlib.Path(__file__).parent / 'training' / 'run_config.py'
    made.insert(1, f'--config={reader}:{workdir}')  # before the fields that override it
  return made


def _parse(argv: list[str]) -> list[str]:
  """Flags, or a message and exit code 2; --help is no error."""
  if any(a in ('--help', '-h', '-help') for a in argv[1:]):
    print(f'{__doc__}\nFlags:\n{flags.FLAGS.module_help(sys.modules[__name__])}')
    sys.exit(0)
  try:
    rest = flags.FLAGS([_NO_PRETRAINING.get(a, a) for a in _with_config_file(argv)])
    if rest[1:]:
      raise errors.ConfigError(f'unexpected argument {rest[1]!r}')
    if _WORKDIR.value is None:
      raise errors.ConfigError('--workdir is missing')
    if _CONFIG.value is None:
      raise errors.ConfigError(f'--config is missing, and {_WORKDIR.value} holds no run')
    _CONFIG.value.keys()  # a config file that is not there is reported at its first use
  except Exception as error:  # absl's, ml_collections', or whatever a config file raises
    if '--debug' in argv:
      raise
    # ml_collections puts a config file's whole traceback into its message: two lines say it.
    said = str(error).strip().splitlines() or [type(error).__name__]
    if len(said) == 1 and (name := said[0].strip('\'"')).isidentifier():  # a KeyError's
      said = [f'the config has no {name!r}; a group gets new names whole: --config.test="{{...}}"']
    if any(line.startswith('Traceback') for line in said):
      said = [said[0], said[-1]]
    print('error: ' + '\n'.join(said) + '\n(--help says all)', file=sys.stderr)
    sys.exit(errors.ConfigError.exit_code)
  return rest


def _profile_steps(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  first, colon, last = text.partition(':')
  if not (first.isdigit() and colon and last.isdigit()):
    raise errors.ConfigError(f'--profile_steps={text} is not A:B, as in 20:25')
  return int(first), int(last)


@contextlib.contextmanager
def _disk_errors():
  try:
    yield
  except BrokenPipeError:
    raise
  except OSError as error:  # a disk that is full or gone
    if _DEBUG.value:
      raise
    raise errors.StateError(f'{error.filename or _WORKDIR.value}: {error.strerror}') from error


def _job() -> None:
  # Orbax and TFDS report their own housekeeping as warnings.
  logging.set_verbosity(logging.INFO if _DEBUG.value else logging.ERROR)
  profile_steps = _profile_steps(_PROFILE.value)
  if '://' in _WORKDIR.value:
    raise errors.ConfigError(f'--workdir={_WORKDIR.value}: a path, e.g. of a mounted bucket')
  if _MODE.value == 'preflight':
    from flexfas_jax.preflight import run as preflight  # jax: not needed for --help or a wrong flag

    preflight.run(_CONFIG.value, _WORKDIR.value, _TOPOLOGY.value)
    return
  if _TOPOLOGY.value is not None:
    raise errors.ConfigError('--topology is of --mode=preflight')
  of_export = (_EXPORT_DIR, _FORMATS, _MODALITIES)
  of_export += (_SIGN_KEY, _SEQUENCE, _MIN_SCORES, _MIN_SUBJECTS)
  if _MODE.value == 'export':
    if _DISTRIBUTED.value:
      raise errors.ConfigError('--mode=export runs in one process, without --distributed')
    from flexfas_jax.export import bundle

    with _disk_errors():
      given = {flag.name: flag.value for flag in of_export if flag.value is not None}
      bundle.run(_CONFIG.value, _WORKDIR.value, **given)
    return
  if given := [f'--{flag.name}' for flag in of_export if flag.value is not None]:
    raise errors.ConfigError(f'{given[0]} is of --mode=export')
  from flexfas_jax.training import distributed, loop

  others = {f'--{flag.name}': flag.value for flag in (_COORDINATOR, _PROCESSES, _PROCESS)}
  if _DISTRIBUTED.value:
    distributed.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _CONNECT.value)
  elif given := [name for name, value in others.items() if value is not None]:
    raise errors.ConfigError(f'{given[0]} is of --distributed, which is not given')
  else:
    distributed.check_launched_distributed()
  options = loop.Options(_STRICT.value, _ALLOW.value, profile_steps)
  with _disk_errors():
    getattr(loop, _MODE.value)(_CONFIG.value, _WORKDIR.value, options)


def main(argv: list[str] | None = None) -> NoReturn:
  """Runs the command, once in a process: flags are the process's.

  Args:
    argv: the flags; the process's own if None.

  Raises:
    SystemExit: at the end, with the exit code.
  """
  if argv is not None:
    sys.argv[1:] = argv  # where ml_collections looks for the fields that are overridden
  app.run(_run, flags_parser=_parse)


def _run(_) -> int:
  if not _DISTRIBUTED.value:
    return errors.exit_code_of(_job, _DEBUG.value, broken_pipe=1)
  code = 1
  try:
    code = errors.exit_code_of(_job, _DEBUG.value, broken_pipe=1)
  except Exception:
    traceback.print_exc()
  from flexfas_jax.training import distributed

  distributed.hard_exit(code)
  return code


if __name__ == '__main__':
  main()
