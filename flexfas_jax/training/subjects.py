"""The classes of an identity task, and the subjects of any training; kept in `subjects.json`.

A class is a value of the column `config.target` ('subject', or an attribute such as gender or
ethnicity) in the training data; its number is its position among the sorted values. A workdir's
`subjects.json` holds both, for evaluation without the training data, and for runs that start from
its weights and must not be tested on its subjects.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline.sources import Source

SUBJECT = 'subject'
FILE = 'subjects.json'
TASKS = ('attacks', 'identities', 'reconstruction')
_SHOWN = 5  # names in a message


class ClassVocabulary(NamedTuple):
  """The contents of `subjects.json`.

  Attributes:
    target: the column whose values are the classes; '' for a task without any.
    classes: its values, sorted.
    subjects: of the training data, sorted; without samples that name none.
  """

  target: str
  classes: tuple[str, ...]
  subjects: tuple[str, ...]


def target_column(config: ConfigDict) -> str:
  """The column whose values are the classes; '' for a task without any.

  Raises:
    ConfigError: an unknown task.
  """
  return config.get('target', SUBJECT) if task_name(config) == 'identities' else ''


def task_name(config: Mapping) -> str:
  """One of `TASKS`.

  Raises:
    ConfigError: an unknown task.
  """
  task: str = config.get('task', 'attacks')
  if task not in TASKS:
    raise ConfigError(f'unknown config.task {task!r}; choose one of: {", ".join(TASKS)}')
  return task


def build_vocabulary(source: Source, target: str) -> ClassVocabulary:
  """The classes and subjects of the training data.

  Raises:
    DataError: there is only one class.
  """
  subjects = tuple(sorted(set(source.columns[SUBJECT]) - {''}))
  if not target:
    return ClassVocabulary('', (), subjects)
  classes = tuple(sorted(set(source.columns[target])))
  if len(classes) < 2:
    raise DataError(f'config.train: every example has the {target} {classes[0]!r}; add others')
  return ClassVocabulary(target, classes, subjects)


def check_labels(source: Source, target: str, side: str) -> None:
  """Checks that every example is bona fide and has a class.

  An attack shows the face of another subject than the one who presents it.

  Args:
    source: a data set.
    target: the column of the classes.
    side: the config's field, for the message.

  Raises:
    DataError: some are attacks or have no class.
  """
  columns = source.columns
  if n := sum(value == '' for value in columns[target]):
    first = columns['id'][list(columns[target]).index('')]
    raise DataError(f'{side}: {n} of {len(source)} examples have no {target}, the first {first}')
  if n := sum(label == 'attack' for label in columns['label']):
    raise DataError(
      f'{side}: {n} of {len(source)} examples are attacks, whose faces have no identity; select '
      'bona fide examples: set/config:split[species=bona_fide]'
    )


def class_numbers(source: Source, vocabulary: ClassVocabulary, side: str) -> np.ndarray:
  """The class of every example, [N] int32.

  Raises:
    DataError: a class that the training data does not have.
  """
  number = {name: i for i, name in enumerate(vocabulary.classes)}
  values = source.columns[vocabulary.target]
  if unknown := sorted(set(values) - number.keys()):
    classes = ', '.join(vocabulary.classes[:_SHOWN])
    more = ', ...' if len(vocabulary.classes) > _SHOWN else ''
    raise DataError(
      f'{side}: {vocabulary.target} {", ".join(unknown[:_SHOWN])} is not in config.train, which '
      f'has: {classes}{more}'
    )
  return np.array([number[value] for value in values], np.int32)


def write(folder: pathlib.Path, vocabulary: ClassVocabulary) -> None:
  """Writes `subjects.json` into a workdir."""
  contents = vocabulary._asdict()
  if vocabulary.target == SUBJECT:
    contents['classes'] = ()  # they are the subjects
  contents['sha256'] = _digest(contents)
  write_text(folder / FILE, json.dumps(contents, indent=1) + '\n')


def read(folder: pathlib.Path) -> ClassVocabulary | None:
  """The classes and subjects of a workdir's training; None if it has no such file.

  Raises:
    StateError: the file is damaged.
  """
  file, key = folder / FILE, 'subjects'
  if not file.is_file():  # as earlier versions wrote it
    file, key = folder / 'people.json', 'people'
  if not file.is_file():
    return None
  try:
    contents = json.loads(file.read_text(encoding='utf-8'))
    if contents.pop('sha256', None) not in (None, _digest(contents)):  # earlier versions: None
      raise ValueError('its contents do not have its SHA-256')
    vocabulary = ClassVocabulary(
      contents['target'], tuple(contents['classes']), tuple(contents[key])
    )
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise StateError(
      f'{file} is damaged ({error}); with the original training data, --mode=train writes it again'
    ) from error
  if vocabulary.target == SUBJECT:
    return vocabulary._replace(classes=vocabulary.subjects)
  return vocabulary


def _digest(contents: dict) -> str:
  return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def check_same_vocabulary(
  folder: pathlib.Path,
  vocabulary: ClassVocabulary,
  is_same_data: bool,
  warn: Callable[[str], None],
) -> None:
  """Checks that resuming a workdir's run does not renumber its classes.

  Args:
    folder: the workdir.
    vocabulary: of the training data.
    is_same_data: whether that is known to be the data of the run. Then, or without classes, a
      damaged file can be written again.
    warn: called with a line if it has to be.

  Raises:
    StateError: other classes, or a damaged file.
  """
  try:
    before = read(folder)
  except StateError as error:
    if vocabulary.target and not is_same_data:
      raise
    warn(f'WARNING: {error}')
    return
  if before is None or before[:2] == vocabulary[:2]:
    return
  changed = sorted(set(before.classes) ^ set(vocabulary.classes))
  raise StateError(
    f'{folder} was trained on {len(before.classes)} values of {before.target}, and config.train '
    f'has {len(vocabulary.classes)} of {vocabulary.target}; they differ in: '
    f'{", ".join(changed[:_SHOWN])}. Give the original training data, or another --workdir'
  )
