"""What a job reads: training, val and test sets, opened and proven apart."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from flexfas_jax import errors, identity
from flexfas_jax.errors import ConfigError, DataError, FlexfasError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import leakage, selection, shortcuts
from flexfas_jax.schema import MODALITIES
from flexfas_jax.training import setup, subjects

# Of the manifests: which images there are, how they were encoded, and what took them.
_FILE_COLUMNS = (*(f'{m}_{what}' for m in MODALITIES for what in ('sha256', 'file')), 'device')


class Data(NamedTuple):
  """What a job reads; None is what it does not need and is not here."""

  train: sources.Source | None
  val: sources.Source
  test: dict[str, sources.Source | None]
  notes: list[str]  # printed with every result
  vocabulary: subjects.ClassVocabulary | None = None  # of the training data


def open_all(
  config: ConfigDict,
  train: bool = True,
  test: bool = True,
  known: subjects.ClassVocabulary | None = None,
  pretraining: Collection[str] = (),
) -> Data:
  """Opens what is trained on, chosen by and tested on, and proves that it is apart.

  Args:
    config: names the data; its protocol's selections are in place.
    train, test: whether the job needs them. What it does not need may be missing, as on a machine
      that only evaluates; then nothing is proven about it, and that is said.
    known: of the training, where its data is not needed.
    pretraining: the people that the weights which the training starts from were trained on. They
      may be trained on again, but not be in val and tests.

  Raises:
    DataError: what is needed is missing or damaged, or somebody is on two sides.
  """
  remarks, target = [], subjects.target_column(config)
  nobody = {'id': (), 'video': (), 'subject': ()}

  def open_(name: str, names: str, needed: bool) -> sources.Source | None:
    try:
      source = sources.open_source(
        names,
        config.data_dir,
        check=needed,
        more=(target,) if target else (),
        optional=_FILE_COLUMNS,
      )
    except DataError:
      if needed:
        raise
      remarks.append(f'not proven to share nobody: {name}, {names}, which is not here')
      return None
    if target:
      subjects.check(source, target, f'config.{name}')
    return source

  val = open_('val', config.val, True)
  if not target:
    _check_val(val)
  train_source = open_('train', config.train, train)
  tests = {name: open_(name, names, test) for name, names in tests_of(config)}
  if train_source:
    sides = {name: source for name, source in {'val': val, **tests}.items() if source}
    left_out = {name: sides[name].columns for name in _left_out(config) if name in sides}
    leakage.check_left_out(train_source.columns, left_out)
  sides = (
    _columns(train_source) if train_source else nobody,
    _columns(val),
    {name: _columns(source) for name, source in tests.items() if source},
  )
  accept = config.get('accept_known_leaks', ())
  leaks = leakage.check(*sides, accept)
  if not target:  # photos from the web are found under several names
    opened = {'train': train_source, 'val': val, **tests}
    images = {name: _images(s) for name, s in opened.items() if s}
    leakage.check_images(images, accept)
    remarks += leakage.check_copies(images)
  here = {name: source for name, source in {'val': val, **tests}.items() if source}
  leakage.check_pretraining(pretraining, {name: s.columns for name, s in here.items()})
  remarks += leakage.told(leaks) + leakage.similar(*sides)
  if train_source and not target:
    remarks += _shortcuts(train_source.columns)
  if known is None and train_source:
    known = subjects.build_vocabulary(train_source, target)
    subjects.check_count(config, known)
  if target and known:
    number = lambda source, side: source.with_identities(  # noqa: E731
      subjects.number(source, known, f'config.{side}')
    )
    train_source = train_source and number(train_source, 'train')
    if target != subjects.SUBJECT:  # people of val and tests are others
      val = number(val, 'val')
      tests = {name: source and number(source, f'test.{name}') for name, source in tests.items()}
  return Data(train_source, val, tests, remarks, known)


def _shortcuts(columns: Mapping[str, Sequence[str]]) -> list[str]:
  """Warnings about what predicts the label of the training set in place of a face."""
  facts = {'data set': columns['dataset'], 'device': columns['device']}
  files = {m: columns[f'{m}_file'] for m in MODALITIES}
  digests = {m: columns[f'{m}_sha256'] for m in MODALITIES}
  if any(map(any, digests.values())):  # a set without a manifest has none
    facts |= shortcuts.facts_of({m: list(map(bool, some)) for m, some in digests.items()}, files)
  found = shortcuts.find(facts, columns['label'], columns['subject'], columns['video'])
  return [f'warning (shortcut): config.train: {shortcut}' for shortcut in found]


def _columns(source: sources.Source) -> dict[str, Sequence[str]]:
  """A source's columns, in which videos have the names that evaluation gives them."""
  of = source.columns
  return {**of, 'video': identity.videos(of['dataset'], of['subject'], of['video'], of['id']).names}


def _images(source: sources.Source) -> leakage.Images:
  return leakage.Images(_columns(source), source.digests, lambda row, m: source[row][m])


def problems(config: ConfigDict, train: bool = True, test: bool = True) -> list[FlexfasError]:
  """What keeps a job's data from being read: all of it, before anything is built or decoded.

  Sets that are not prepared and cannot be made from nothing, splits and fields that they do not
  have, and a batch larger than the training set.

  Args:
    config: names the data; its protocol's selections are put in place here.
    train, test: whether the job needs them.
  """
  try:
    config, _ = setup.with_protocol(config)
    target = subjects.target_column(config)
  except ConfigError:
    return []  # `experiment.make` reports it
  sides = {'val': config.val} | ({'train': config.train} if train else {})
  sides |= {f'test.{name}': names for name, names in tests_of(config)} if test else {}
  of_text, examples = {}, 0  # {an error's text: (its kind, the fields that have it)}
  for side, names in sides.items():
    found = []
    here = [
      errors.attempt(found, '', sources.is_prepared, name, config.data_dir)
      for name in selection.split_names(names)
    ]
    if all(here):  # also of no name, which `open_source` refuses
      more = (target,) if target else ()
      source = errors.attempt(
        found, '', sources.open_source, names, config.data_dir, check=False, more=more
      )
      examples = len(source) if source and side == 'train' else examples
    for error in found:
      text = str(error).removeprefix(': ')
      of_text.setdefault(text, (type(error), []))[1].append(f'config.{side}')
  found = [kind(f'{", ".join(where)}: {text}') for text, (kind, where) in of_text.items()]
  if found and not pathlib.Path(config.data_dir).is_dir():
    said = (
      f'config.data_dir = {config.data_dir!r} is no folder; name the one with the prepared sets'
    )
    found.insert(0, ConfigError(said))
  if examples and config.batch_size > examples:
    found.append(
      ConfigError(
        f'config.batch_size = {config.batch_size} is more than the {examples} examples of '
        'config.train; lower it'
      )
    )
  return found


def tests_of(config: ConfigDict) -> list[tuple[str, str]]:
  """The test sets, what is like the training first; a ConfigDict forgets its order."""
  return sorted(config.test.items(), key=lambda test: test[0] != 'intra')


def _left_out(config: ConfigDict) -> tuple[str, ...]:
  """The sides none of whose attacks may be trained on.

  Raises:
    ConfigError: one that the config does not have.
  """
  sides = tuple(config.get('left_out', ()))
  for side in sides:
    if side != 'val' and side not in config.test:
      raise ConfigError(
        f'config.left_out names {side!r}; there are: val, {", ".join(sorted(config.test))}'
      )
  return sides


def _check_val(val: sources.Source) -> None:
  """Without both classes no error rate is defined, and no checkpoint the best."""
  if len(seen := set(val.columns['label'])) < 2:
    raise DataError(
      f'config.val, {", ".join(val.names)}: every sample is {seen.pop()}; add the other class'
    )
