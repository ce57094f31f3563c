"""What a laboratory states about a test, in a `test.toml`: nothing of it can be read from scores.

ISO/IEC 30107-3 asks of a report: the item under test, the test's conditions, the capture device,
and of every PAI species what it is and where it came from. Every field is optional; the report
lists what is not stated.
"""

import datetime
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flexfas_jax.errors import DataError

# {table: {key: what it states}}. All values are texts, but for those of `_COUNTS` and `date`.
FIELDS: dict[str, dict[str, str]] = {
  'test': {
    'laboratory': 'who tested, and where it can be reached',
    'operator': 'who operated the test',
    'reviewer': 'who checks the report',
    'date': 'of the test, as 2026-11-29',
    'place': 'where the test took place',
    'purpose': 'why, and under which standard or level',
    'conditions': 'illumination, background, temperature, and what else was kept or varied',
    'policy': 'attempts that a subject had, time limits, what counts as a failure to acquire',
  },
  'object': {
    'name': 'item under test',
    'version': 'of its software and firmware',
    'vendor': 'who supplied it',
    'description': 'what it does, and the settings that it was tested with',
  },
  'device': {
    'name': 'capture device',
    'rgb': 'colour sensor',
    'depth': 'depth sensor',
    'ir': 'infrared sensor',
    'description': 'what else is part of it, e.g. illumination',
  },
  'capture': {
    'resolution': 'of the images',
    'distance': 'between face and device',
    'duration': 'of a presentation',
    'description': 'how faces were presented and images were selected',
  },
  'bona_fide': {'description': 'who the subjects are, how they were recruited and agreed'},
}
SPECIES = {
  'description': 'what the instrument is and how it was made',
  'source': 'where it, or what it was made from, came from',
  'instruments': 'how many of this species there are',
  'level': 'effort or level of attack, as the standard in use names it',
}
_COUNTS = ('instruments',)


def read(path: Path, species: Collection[str] = ()) -> dict[str, dict[str, Any]]:
  """Reads and checks a description.

  Args:
    path: of the TOML file.
    species: the PAI species (or categories) of the scores.

  Returns:
    {table: {key: text}}, and under 'species' {name: {key: text or number}}; without empty texts.

  Raises:
    DataError: the file cannot be read or is no TOML; a key or species that is unknown; a value of
      another type; with file and key.
  """
  try:
    contents = tomllib.loads(path.read_text(encoding='utf-8'))
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from None
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise DataError(f'{path} is no TOML in UTF-8: {error}') from None
  found: dict[str, dict[str, Any]] = {}
  for name, table in contents.items():
    if name == 'species':
      found[name] = _species(path, table, species)
      continue
    if name not in FIELDS:
      tables = ', '.join([*FIELDS, 'species.NAME'])
      raise DataError(f'{path}: unknown table {name!r}; choose from: {tables}')
    found[name] = _table(path, name, table, FIELDS[name])
  return {name: table for name, table in found.items() if table}


def _species(path: Path, table: Any, known: Collection[str]) -> dict[str, dict[str, Any]]:
  if not isinstance(table, dict):
    raise DataError(f'{path}: species must be tables, such as [species.paper]')
  for name in table:
    if known and name not in known:
      raise DataError(
        f'{path}: [species."{name}"] is no species of the scores; they have: '
        f'{", ".join(sorted(known))}'
      )
  return {name: _table(path, f'species."{name}"', of, SPECIES) for name, of in table.items()}


def _table(path: Path, name: str, table: Any, fields: Mapping[str, str]) -> dict[str, Any]:
  if not isinstance(table, dict):
    raise DataError(f'{path}: {name} must be a table: write [{name}] and its keys below')
  found = {}
  for key, value in table.items():
    if key not in fields:
      raise DataError(f'{path}: [{name}] has no key {key!r}; choose from: {", ".join(fields)}')
    if key in _COUNTS:
      if type(value) is not int or value < 0:
        raise DataError(f'{path}: [{name}] {key} is {value!r}; give a number, such as {key} = 3')
    elif key == 'date' and isinstance(value, datetime.date):
      value = value.isoformat()
    elif not isinstance(value, str):
      raise DataError(f'{path}: [{name}] {key} is {value!r}; give a text: {key} = "..."')
    if value != '':
      found[key] = value
  return found


def missing(description: Mapping[str, Mapping[str, Any]], species: Collection[str]) -> list[str]:
  """What is not stated: keys of `FIELDS`, and how many species lack a description or source."""
  lines = [
    f'{table}.{key}'
    for table, fields in FIELDS.items()
    for key in fields
    if key not in description.get(table, {})
    and not (table == 'device' and key in ('rgb', 'depth', 'ir', 'description'))
  ]
  of = description.get('species', {})
  few = [name for name in species if not {'description', 'source'} <= of.get(name, {}).keys()]
  if few:
    lines.append(f'description and source of {len(few)} of {len(species)} PAI species')
  return lines
