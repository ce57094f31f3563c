"""Trains and evaluates what a config describes.

  python -m flexfas_jax.main --config=configs/vit_fusion.py --workdir=runs/vit_fusion

Any field of the config can be overridden, or a group of them replaced:
  --config.steps=100 --config.model.absent=exclude --config.model.fusion="{'name': 'concat'}"
Run again with the same workdir, it resumes from the newest checkpoint.

Exit codes: 0 done, 2 wrong usage or config, 3 bad data, 4 bad or missing checkpoint or workdir.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from flexfas_jax import errors

MODES = ('train_and_evaluate', 'train', 'evaluate')

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='The experiment: a file of configs/.', lock_config=True
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, logs, scores and results go.')
_MODE = flags.DEFINE_enum('mode', MODES[0], MODES, 'Which of the jobs to do.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show tracebacks.')


def _parse(argv: list[str]) -> list[str]:
  """Flags, or a message and exit code 2; --help is no error."""
  if any(a in ('--help', '-h', '-help') for a in argv[1:]):
    print(f'{__doc__}\nFlags:\n{flags.FLAGS.module_help(sys.modules[__name__])}')
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise errors.ConfigError(f'unexpected argument {rest[1]!r}')
    for name, flag in (('config', _CONFIG), ('workdir', _WORKDIR)):
      if flag.value is None:
        raise errors.ConfigError(f'--{name} is missing')
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


def main(_) -> int:
  """Hands the config to the loop."""

  def job():
    # Orbax and TFDS report their own housekeeping as warnings.
    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.ERROR)
    from flexfas_jax.training import loop  # jax: not needed for --help or a wrong flag

    getattr(loop, _MODE.value)(_CONFIG.value, _WORKDIR.value)

  return errors.exit_code_of(job, _DEBUG.value)


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
