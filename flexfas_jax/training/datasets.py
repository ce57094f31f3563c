"""The data of a run: training, validation and test sets, opened and checked for leakage."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from flexfas_jax import errors, identity
from flexfas_jax.errors import ConfigError, DataError, FlexfasError
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.protocols import leakage, selection, shortcuts
from flexfas_jax.schema import MODALITIES
from flexfas_jax.training import sampling, setup, subjects

# Columns of manifests: the images' hashes and file formats, and the device.
_FILE_COLUMNS = (*(f'{m}_{what}' for m in MODALITIES for what in ('sha256', 'file')), 'device')


class Data(NamedTuple):
  """The data of a run; None is a set that is neither needed nor available.

  Attributes:
    train, val, test: the sets; `test` by name.
    notes: printed with every result.
    vocabulary: classes and subjects of the training data.
  """

  train: sources.Source | None
  val: sources.Source
  test: dict[str, sources.Source | None]
  notes: list[str]
  vocabulary: subjects.ClassVocabulary | None = None

  @property
  def domains(self) -> tuple[str, ...]:
    """The names of the training data's domains, by their number; () without training data."""
    return self.train.domain_names if self.train else ()

  def opened(self) -> dict[str, sources.Source]:
    """The sets that are available, by name: 'train', 'val', 'test.NAME'."""
    sets = {'train': self.train, 'val': self.val}
    sets |= {f'test.{name}': source for name, source in self.test.items()}
    return {name: source for name, source in sets.items() if source is not None}


class DataInspection(NamedTuple):
  """What can be learned about a config's data without decoding an image.

  Attributes:
    problems: why the data cannot be read, or does not fit the config.
    classes: of the training data in an identity task; None if that has yet to be generated.
  """

  problems: list[FlexfasError]
  classes: int | None = None


def inspect(config: ConfigDict, train: bool = True, test: bool = True) -> DataInspection:
  """Finds all problems of a config's data, and counts its classes, before anything is built.

  Problems are sets that are not prepared and cannot be generated, missing splits and fields, and a
  batch larger than the training set.

  Args:
    config: names the data; a protocol's selections replace its own.
    train, test: whether these sets are needed.
  """
  try:
    config, _ = setup.apply_protocol(config)
    target = subjects.target_column(config)
    train_columns, balance = sampling.more_columns(config), sampling.balanced_fields(config)
  except ConfigError:
    return DataInspection([])  # `setup.build` reports it
  sides = {'val': config.val} | ({'train': config.train} if train else {})
  sides |= {f'test.{name}': names for name, names in sorted_tests(config)} if test else {}
  opened, fields_of = {}, {}  # fields_of: {message: (kind, fields)}, each problem once
  for side, names in sides.items():
    more = train_columns if side == 'train' else (target,) if target else ()
    opened[side], found = _try_open(names, config.data_dir, more)
    for error in found:
      text = str(error).removeprefix(': ')
      fields_of.setdefault(text, (type(error), []))[1].append(f'config.{side}')
  problems = [kind(f'{", ".join(where)}: {text}') for text, (kind, where) in fields_of.items()]
  if problems and not epath.Path(config.data_dir).is_dir():
    problems.insert(
      0,
      ConfigError(
        f'config.data_dir = {config.data_dir!r} is not a folder; name the one with the prepared '
        'data sets'
      ),
    )
  source = opened.get('train')
  if source is None:
    return DataInspection(problems)
  if config.batch_size > len(source) > 0:
    problems.append(
      ConfigError(
        f'config.batch_size = {config.batch_size} is more than the {len(source)} examples of '
        'config.train; lower it'
      )
    )
  classes = len(set(source.columns[target])) if target else None
  source = errors.attempt(problems, '', _with_domains, source, config)
  if source and balance:
    errors.attempt(problems, '', pipeline.combinations, source, balance)
  return DataInspection(problems, classes)


def count_classes(config: ConfigDict) -> int:
  """Number of classes in the training data of an identity task; generates a missing rendered set.

  Raises:
    ConfigError, DataError: the data cannot be opened.
  """
  target = subjects.target_column(config)
  source = sources.open_source(config.train, config.data_dir, check=False, more=(target,))
  return len(set(source.columns[target]))


def _with_domains(source: sources.Source, config: ConfigDict) -> sources.Source:
  """The training set with the domains of its examples.

  Raises:
    DataError: examples without one.
  """
  try:
    return source.with_domains(sampling.domain_column(config))
  except DataError as error:
    raise DataError(f'config.train: {error} (config.domain)') from None


def _try_open(
  names: str, data_dir: str, more: Sequence[str]
) -> tuple[sources.Source | None, list[FlexfasError]]:
  """(a data set, []), or (None, why it cannot be opened); prepares and decodes nothing."""
  problems = []
  prepared = [
    errors.attempt(problems, '', sources.is_prepared, name, data_dir)
    for name in selection.split_selections(names)
  ]
  if not all(prepared):  # one that can be generated is prepared when it is opened
    return None, problems
  source = errors.attempt(
    problems, '', sources.open_source, names, data_dir, check=False, more=more
  )
  return source, problems


def open_all(
  config: ConfigDict,
  train: bool = True,
  test: bool = True,
  vocabulary: subjects.ClassVocabulary | None = None,
  pretraining: Collection[str] = (),
) -> Data:
  """Opens training, validation and test sets, and checks that they share nothing.

  Args:
    config: names the data; a protocol's selections are in place.
    train, test: whether these sets are needed. One that is not needed may be missing, as on a
      machine that only evaluates; a note then states that leakage was not checked.
    vocabulary: of the training, if its data is not needed.
    pretraining: the subjects that the initial weights were trained on. They may be in the training
      set, but not in validation and test sets.

  Raises:
    ConfigError: the config gives another number of identities than the data has.
    DataError: a set is missing or damaged, or sets share subjects, videos or images.
  """
  target, notes = subjects.target_column(config), []

  def open_set(name: str, names: str, needed: bool) -> sources.Source | None:
    try:
      source = sources.open_source(
        names,
        config.data_dir,
        check=needed,
        more=sampling.more_columns(config) if name == 'train' else (target,) if target else (),
        optional=_FILE_COLUMNS,
      )
    except DataError:
      if needed:
        raise
      notes.append(f'leakage not checked for {name}, {names}: the data is not available here')
      return None
    if target:
      subjects.check_labels(source, target, f'config.{name}')
    return _with_domains(source, config) if name == 'train' else source

  val = open_set('val', config.val, needed=True)
  detects_attacks = subjects.task_name(config) == 'attacks'
  if detects_attacks:
    _check_both_classes(val)
  train_source = open_set('train', config.train, train)
  tests = {name: open_set(name, names, test) for name, names in sorted_tests(config)}
  opened = {'train': train_source, 'val': val, **tests}
  opened = {name: source for name, source in opened.items() if source}
  notes += _check_leakage(config, opened, pretraining, compare_images=not target)
  if train_source and detects_attacks:
    notes += _shortcut_warnings(train_source.columns)
  if vocabulary is None and train_source:
    vocabulary = subjects.build_vocabulary(train_source, target)
    _check_class_count(config, vocabulary)

  def with_classes(source: sources.Source | None, side: str) -> sources.Source | None:
    if source is None:
      return None
    return source.with_identities(subjects.class_numbers(source, vocabulary, f'config.{side}'))

  if target and vocabulary:
    train_source = with_classes(train_source, 'train')
    if target != subjects.SUBJECT:  # the subjects of val and tests are not among the classes
      val = with_classes(val, 'val')
      tests = {name: with_classes(source, f'test.{name}') for name, source in tests.items()}
  return Data(train_source, val, tests, notes, vocabulary)


def _check_leakage(
  config: ConfigDict,
  opened: Mapping[str, sources.Source],
  pretraining: Collection[str],
  compare_images: bool,
) -> list[str]:
  """Checks that training, validation and test sets share nothing; returns notes.

  Args:
    config: lists accepted leaks and left-out attacks.
    opened: {'train', 'val' or a test's name: its set}.
    pretraining: subjects, as for `open_all`.
    compare_images: False for identity tasks, since photos from the web occur under several names.

  Raises:
    DataError: they share something.
  """
  columns = {name: _columns(source) for name, source in opened.items()}
  evaluated = {name: value for name, value in columns.items() if name != 'train'}
  if 'train' in columns:
    left_out = {name: evaluated[name] for name in _left_out(config) if name in evaluated}
    leakage.check_left_out(columns['train'], left_out)
  sides = (
    columns.get('train', {'id': (), 'video': (), 'subject': ()}),
    columns['val'],
    {name: value for name, value in evaluated.items() if name != 'val'},
  )
  accept = config.get('accept_known_leaks', ())
  leaks, notes = leakage.check(*sides, accept), []
  if compare_images:
    images_of = {name: _images(source, columns[name]) for name, source in opened.items()}
    leakage.check_images(images_of, accept)
    notes += leakage.check_contradictions(images_of)
  leakage.check_pretraining(pretraining, evaluated)
  return notes + leakage.describe_accepted(leaks) + leakage.find_similar_subjects(*sides)


def _check_class_count(config: ConfigDict, vocabulary: subjects.ClassVocabulary) -> None:
  """Raises a ConfigError if the config gives another number of identities than the data has."""
  if not vocabulary.target:
    return
  identities, n = config.model.head.get('identities', 0), len(vocabulary.classes)
  if identities not in (0, n):
    raise ConfigError(
      f'config.model.head.identities = {identities}, but config.train has {n} values of '
      f'{vocabulary.target}; give {n}, or 0 to count them'
    )


def _shortcut_warnings(columns: Mapping[str, Sequence[str]]) -> list[str]:
  """Warnings about properties of the training set that predict the label instead of the face."""
  facts = {'data set': columns['dataset'], 'device': columns['device']}
  files = {m: columns[f'{m}_file'] for m in MODALITIES}
  digests = {m: columns[f'{m}_sha256'] for m in MODALITIES}
  if any(map(any, digests.values())):  # a set without a manifest has none
    present = {m: list(map(bool, values)) for m, values in digests.items()}
    facts |= shortcuts.facts_of(present, files)
  findings = shortcuts.find(facts, columns['label'], columns['subject'], columns['video'])
  return [f'warning (shortcut): config.train: {finding}' for finding in findings]


def _columns(source: sources.Source) -> dict[str, Sequence[str]]:
  """A data set's columns, with the video names that evaluation uses."""
  columns = source.columns
  videos = identity.videos(*(columns[name] for name in ('dataset', 'subject', 'video', 'id')))
  return {**columns, 'video': videos.names}


def _images(source: sources.Source, columns: Mapping[str, Sequence[str]]) -> leakage.ImageSet:
  return leakage.ImageSet(columns, source.digests, lambda row, m: source[row][m])


def sorted_tests(config: ConfigDict) -> list[tuple[str, str]]:
  """(name, selections) of the test sets, 'intra' first; a ConfigDict loses their order."""
  return sorted(config.test.items(), key=lambda test: test[0] != 'intra')


def _left_out(config: ConfigDict) -> tuple[str, ...]:
  """The sets whose attack types must not be in the training set.

  Raises:
    ConfigError: a set that the config does not have.
  """
  sides = tuple(config.get('left_out', ()))
  for side in sides:
    if side != 'val' and side not in config.test:
      raise ConfigError(
        f'config.left_out names {side!r}; choose from: val, {", ".join(sorted(config.test))}'
      )
  return sides


def _check_both_classes(val: sources.Source) -> None:
  """Raises a DataError unless val has both classes, without which no error rate is defined."""
  labels = set(val.columns['label'])
  if len(labels) < 2:
    raise DataError(
      f'config.val, {", ".join(val.names)}: every sample is {labels.pop()}; add the other class'
    )
