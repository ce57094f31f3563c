"""`pip install` of a page: installs nothing, and fails unless what it would install is there.

The packages come from the environment that runs the pages, which .ci/run makes with `pip install`.
"""

import importlib.metadata
import pathlib
import re
import sys
import tomllib

from packaging.requirements import Requirement

PROJECT = tomllib.loads((pathlib.Path(__file__).parents[2] / 'pyproject.toml').read_text())


def main(arguments: list[str]) -> int:
  command, *targets = [one for one in arguments if not one.startswith('-')]
  assert command == 'install', arguments
  missing = []
  for target in targets:
    match = re.fullmatch(r'(?:\.|flexfas_jax)(?:\[([\w,]+)\])?', target)
    assert match, f'pip install {target}: not this project'
    missing += lacking(PROJECT['project']['dependencies'])
    for extra in (match[1] or '').split(','):
      missing += lacking(PROJECT['project']['optional-dependencies'][extra]) if extra else []
  print(f'missing: {missing}' if missing else f'{" ".join(targets)}: there')
  return int(bool(missing))


def lacking(requirements: list[str]) -> list[str]:
  """Those that are not installed in a version that is allowed."""
  missing = []
  for line in requirements:
    one = Requirement(line)
    if one.name == PROJECT['project']['name']:
      extras = PROJECT['project']['optional-dependencies']
      missing += [line for extra in one.extras for line in lacking(extras[extra])]
      continue
    try:
      installed = importlib.metadata.version(one.name)
    except importlib.metadata.PackageNotFoundError:
      missing.append(line)
      continue
    if not one.specifier.contains(installed, prereleases=True):
      missing.append(f'{line} ({installed})')
  return missing


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
