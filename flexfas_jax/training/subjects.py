"""Who the training knows: the classes of an identity task, and the people of any training.

A class is a value of the column `config.target` ('subject': a person; else an attribute, as gender
or ethnicity) in the training's selection, its number its place among the sorted values. A workdir's
`people.json` keeps both, for evaluations without the training's data, and for runs that start from
its weights and must not be tested on its people.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline.sources import Source

SUBJECT = 'subject'
FILE = 'people.json'
_SHOWN = 5


class ClassVocabulary(NamedTuple):
  """What `people.json` says."""

  target: str  # '' of a training that tells attacks
  classes: tuple[str, ...]
  people: tuple[str, ...]  # sorted; who has no name is not among them


def target_column(config: ConfigDict) -> str:
  """The column whose values are told apart; '' where attacks are.

  Raises:
    ConfigError: an unknown task.
  """
  task = config.get('task', 'attacks')
  if task not in ('attacks', 'identities'):
    raise ConfigError(f'config.task is {task!r}; choose one of: attacks, identities')
  return config.get('target', SUBJECT) if task == 'identities' else ''


def build_vocabulary(source: Source, target: str) -> ClassVocabulary:
  """The classes and people of a training's data.

  Raises:
    DataError: one class alone.
  """
  people = tuple(sorted(set(source.columns[SUBJECT]) - {''}))
  if not target:
    return ClassVocabulary('', (), people)
  classes = tuple(sorted(set(source.columns[target])))
  if len(classes) < 2:
    raise DataError(f'config.train: every example has the {target} {classes[0]!r}; add others')
  return ClassVocabulary(target, classes, people)


def check(source: Source, target: str, side: str) -> None:
  """Raises a DataError if examples have no class, or are attacks, whose face is somebody else's."""
  columns = source.columns
  if n := sum(value == '' for value in columns[target]):
    first = columns['id'][list(columns[target]).index('')]
    raise DataError(f'{side}: {n} of {len(source)} examples have no {target}, the first {first}')
  if n := sum(label == 'attack' for label in columns['label']):
    raise DataError(
      f'{side}: {n} of {len(source)} examples are attacks, which show no face of their own; '
      'take the people alone: set/config:split[species=bona_fide]'
    )


def check_count(config: ConfigDict, known: ClassVocabulary) -> None:
  """Raises a ConfigError where the config gives another number of identities than there are."""
  given = config.model.head.get('identities', 0)
  if known.target and given not in (0, len(known.classes)):
    raise ConfigError(
      f'config.model.head.identities = {given}, and config.train has {len(known.classes)} values '
      f'of {known.target}; give {len(known.classes)}, or 0 for as many as there are'
    )


def number(source: Source, known: ClassVocabulary, side: str) -> np.ndarray:
  """The class of every example, [N] int32.

  Raises:
    DataError: a class that the training does not know.
  """
  place = {name: i for i, name in enumerate(known.classes)}
  values = source.columns[known.target]
  if strange := sorted(set(values) - place.keys()):
    raise DataError(
      f'{side}: {known.target} {", ".join(strange[:_SHOWN])} is not in config.train, which has: '
      f'{", ".join(known.classes[:_SHOWN])}' + ', ...' * (len(known.classes) > _SHOWN)
    )
  return np.array([place[value] for value in values], np.int32)


def write(folder: pathlib.Path, known: ClassVocabulary) -> None:
  """Leaves `people.json` in a workdir."""
  # Where people are the classes, they are told once.
  told = known._asdict() | ({'classes': ()} if known.target == SUBJECT else {})
  write_text(folder / FILE, json.dumps(told, indent=1) + '\n')


def read(folder: pathlib.Path) -> ClassVocabulary | None:
  """What a workdir's training knew; None where nothing says so.

  Raises:
    StateError: the file is damaged.
  """
  file = folder / FILE
  if not file.is_file():
    return None
  try:
    told = json.loads(file.read_text(encoding='utf-8'))
    known = ClassVocabulary(told['target'], tuple(told['classes']), tuple(told['people']))
  except (ValueError, KeyError, TypeError) as error:
    raise StateError(f'{file} is damaged ({error})') from error
  return known._replace(classes=known.people) if known.target == SUBJECT else known


def check_same_vocabulary(folder: pathlib.Path, known: ClassVocabulary) -> None:
  """Raises a StateError where a run that goes on would number other classes."""
  before = read(folder)
  if before and before[:2] != known[:2]:
    changed = sorted(set(before.classes) ^ set(known.classes))
    raise StateError(
      f'{folder} was trained on {len(before.classes)} values of {before.target}, and there are '
      f'{len(known.classes)} of {known.target} now; apart: {", ".join(changed[:_SHOWN])}. Give it '
      'the data that it began with, or name another --workdir'
    )
