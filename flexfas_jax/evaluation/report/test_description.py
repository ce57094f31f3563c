"""What a laboratory states about a test, in a `test.toml`: nothing of it can be read from scores.

ISO/IEC 30107-3 asks of a report: the item under test, the test's conditions, the capture device,
and of every PAI species what it is and where it came from. Every field is optional; the report
lists what is not stated.
"""

import datetime
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flexfas_jax.errors import DataError

# {table: {key: what it states}}. All values are texts, but for those of `_COUNTS`, `_NUMBERED` and
# `date`.
FIELDS: dict[str, dict[str, str]] = {
  'test': {
    'laboratory': 'who tested, and where it can be reached',
    'operator': 'who operated the test',
    'reviewer': 'who checks the report',
    'date': 'of the test, as 2026-11-29, or "2026-11-23 to 2026-11-29"',
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
    'images': 'photographs, or rendered or generated images',
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
_NUMBERED = ('level',)  # a text, or a whole number: levels are called A, B or 1, 2
MAX_BYTES, MAX_TEXT, MAX_COUNT = 256 * 1024, 2000, 1_000_000  # of the file, a text, a number
_YEARS = range(2000, 2100)
_DATE = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}')


def read(path: Path, species: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
  """Reads and checks a description.

  Args:
    path: of the TOML file.
    species: the PAI species (or categories) of the scores; None: any name will do.

  Returns:
    {table: {key: text}}, and under 'species' {name: {key: text or number}}; without empty texts.

  Raises:
    DataError: the file cannot be read, is no TOML or too large; a key or species that is unknown; a
      value of another type, a text that is too long, an implausible date; with file and key.
  """
  try:
    with path.open('rb') as file:
      text = file.read(MAX_BYTES + 1)
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from None
  if len(text) > MAX_BYTES:
    raise DataError(
      f'{path} has more than {MAX_BYTES // 1024} KiB, the limit: state in short what a report '
      'needs, and name further documents'
    )
  try:
    contents = tomllib.loads(text.decode('utf-8-sig'))
  # A whole number of thousands of digits is a ValueError, and brackets nested as deeply recurse.
  except (ValueError, RecursionError) as error:
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


def _species(path: Path, table: Any, known: Collection[str] | None) -> dict[str, dict[str, Any]]:
  if not isinstance(table, dict):
    raise DataError(f'{path}: species must be tables, such as [species.paper]')
  for name in table:
    if known is not None and name not in known:
      listed = ', '.join(sorted(known)) or 'none (no attack_type or attack_category)'
      raise DataError(
        f'{path}: [species."{name}"] is no species of the scores; they have: {listed}'
      )
  return {name: _table(path, f'species."{name}"', of, SPECIES) for name, of in table.items()}


def _table(path: Path, name: str, table: Any, fields: Mapping[str, str]) -> dict[str, Any]:
  if not isinstance(table, dict):
    raise DataError(f'{path}: {name} must be a table: write [{name}] and its keys below')
  found = {}
  for key, value in table.items():
    if key not in fields:
      raise DataError(f'{path}: [{name}] has no key {key!r}; choose from: {", ".join(fields)}')
    where = f'{path}: [{name}] {key}'
    if key in _COUNTS:
      if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise DataError(
          f'{where} is {_shown(value)}; give a number, such as {key} = 3, of at most {MAX_COUNT:,}'
        )
    elif key == 'date':
      value = _date(where, value)
    else:
      value = _text(where, key, value)
    if value != '':
      found[key] = value
  return found


def _text(where: str, key: str, value: Any) -> str:
  if key in _NUMBERED and type(value) is int and abs(value) <= MAX_COUNT:
    return str(value)
  if not isinstance(value, str):
    raise DataError(f'{where} is {_shown(value)}; give a text: {key} = "..."')
  if len(value) > MAX_TEXT:
    raise DataError(
      f'{where} has {len(value):,} characters; at most {MAX_TEXT:,} have room in a report. Shorten '
      'it, and name a document with the rest'
    )
  return value


def _date(where: str, value: Any) -> str:
  """A date or two as text: TOML's dates, times of a day with their date, or 'A to B'."""
  way_out = 'give the day of the test, date = 2026-11-29, or date = "2026-11-23 to 2026-11-29"'
  if isinstance(value, datetime.datetime):
    days, text = [value.date()], value.isoformat(' ', 'minutes')
  elif isinstance(value, datetime.date):
    days, text = [value], value.isoformat()
  elif isinstance(value, str):
    text, parts = value.strip(), value.strip().split(' to ')
    try:
      days = [datetime.date.fromisoformat(part) for part in parts if _DATE.fullmatch(part)]
    except ValueError:  # of the 31st of February
      days = []
    if text and (len(days) < len(parts) or len(days) > 2 or days != sorted(days)):
      raise DataError(f'{where} is {_shown(value)}, which is no date; {way_out}')
  else:
    raise DataError(f'{where} is {_shown(value)}, which is no date; {way_out}')
  if any(day.year not in _YEARS for day in days):
    raise DataError(
      f'{where} is {text}; a year from {_YEARS[0]} to {_YEARS[-1]} is plausible. {way_out}'
    )
  return text


def _shown(value: Any) -> str:
  """A value as TOML writes it, cut where it is long."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, int) and abs(value) > 10**30:  # of which the digits may be thousands
    return 'a number of more than 30 digits'
  is_time = isinstance(value, datetime.date | datetime.time)
  text = value.isoformat() if is_time else repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


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
