"""Checks of the cells of one row, the same for lint and for preparation of a user's own set."""

import re
from collections.abc import Iterator, Mapping

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.protocols import lists

_KNOWN = ', '.join(schema.CATEGORIES)


def find_problems(
  row: lists.ListRow, categories: Mapping[str, str], kinds_required: bool = True
) -> Iterator[tuple[str, str]]:
  """Yields (rule, text) of what a prepared set cannot have and `lists.scan` does not report.

  Args:
    row: of a list whose first row names the columns.
    categories: {attack type: category}, see `parse_categories`.
    kinds_required: whether an attack needs a kind.
  """
  if row.label == 'attack' and (text := _problem_of_kind(row, categories, kinds_required)):
    yield 'row', text
  if row.split == 'all' or not re.fullmatch(
    r'(?=.*[^\W_])[\w-]+', row.split or lists.DEFAULT_SPLIT
  ):
    text = f'split {row.split!r} cannot be one: letters, digits, _ and - make one, and "all"'
    yield 'row', f'{text} means all splits together'
  if '#' in row.id:
    yield 'row', f'the id {row.id!r} has a #, which stands for a row that is there twice'
  for text in lists.invalid_digests(row.extra):
    yield 'row', text


def _problem_of_kind(
  row: lists.ListRow, categories: Mapping[str, str], kinds_required: bool
) -> str:
  """What is wrong with the species and category of an attack; or ''."""
  category = category_of(row, categories)
  if category and category not in schema.CATEGORIES:
    return f'attack_category {category!r} is not one of: {_KNOWN}'
  if not category and not row.attack_type and kinds_required:
    return f'an attack with neither attack_type nor attack_category; one of: {_KNOWN}'
  return ''


def type_without_category(row: lists.ListRow, categories: Mapping[str, str]) -> str:
  """What is missing for an attack whose type is no category; or ''. Sets that are built need it."""
  if row.label != 'attack' or not row.attack_type or category_of(row, categories):
    return ''
  option = f'--categories={row.attack_type}=CATEGORY'
  return f'attack_type {row.attack_type!r} has no category; give {option}, one of: {_KNOWN}'


def category_of(row: lists.ListRow, categories: Mapping[str, str]) -> str:
  """The category of an attack: of its row, of its species, or the species itself."""
  own = row.attack_type if row.attack_type in schema.CATEGORIES else ''
  return row.attack_category or categories.get(row.attack_type, own)


def parse_categories(text: str) -> dict[str, str]:
  """Categories of species, as an option has them: 'Druck=print,Tablet=replay'.

  Raises:
    ConfigError: another form, or an unknown category.
  """
  found = {}
  for pair in filter(None, text.split(',')):
    species, equals, category = (part.strip() for part in pair.rpartition('='))
    if not equals or not species or category not in schema.CATEGORIES or species in found:
      raise ConfigError(
        f'{pair!r} in the categories: write TYPE=CATEGORY, each type once, separated by commas, of '
        f'the categories {_KNOWN}'
      )
    found[species] = category
  return found
