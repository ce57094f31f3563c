"""The report: one HTML file that opens from disk, anywhere, without a network and without scripts.

All that comes from files (ids, names of species and subsets, notes, configs) is escaped, and
characters that act instead of being seen are replaced; a policy in the page forbids whatever a
browser could load or run all the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import flexfas_jax
from flexfas_jax.evaluation import intervals
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import formatting, record, test_description
from flexfas_jax.evaluation.report.chapter import chapter
from flexfas_jax.files import write_text

ImageFinder = Callable[[str, Sequence[str]], Mapping[str, Mapping[str, bytes]]]

_FOLDER = Path(__file__).parent
_TABLES = {
  'test': '',
  'object': 'item under test: ',
  'device': 'capture device: ',
  'capture': 'capture: ',
  'bona_fide': 'bona fide subjects: ',
}


def write(
  path,
  evaluations: Sequence[EvaluationResult],
  title: str,
  images: ImageFinder | None = None,
  notes: Sequence[str] = (),
  show_species: bool = True,
  description: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
  """Writes the report of some tests, whole or not at all.

  Args:
    path: of the HTML file, in a folder that exists.
    evaluations: of each test, a chapter each, in this order.
    title: of the report.
    images: gives images of the worst mistakes: called with a test's name and ids, it returns
      {id: {modality: encoded JPEG or PNG}} of those that it has.
    notes: what the reader must know about all tests.
    show_species: whether a sample of each PAI species may be shown, too.
    description: of the test, from `test_description.read`; None: nothing is stated.
  """
  write_text(Path(path), html(evaluations, title, images, notes, show_species, description))


def html(
  evaluations: Sequence[EvaluationResult],
  title: str,
  images: ImageFinder | None = None,
  notes: Sequence[str] = (),
  show_species: bool = True,
  description: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
  """The report as text; equal evaluations give equal text. Arguments as in `write`."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    finalize=lambda value: (
      formatting.printable(value)
      if isinstance(value, str) and not isinstance(value, Markup)
      else value
    ),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters['short'] = formatting.short
  stated = description or {}
  species = {name for result in evaluations for name in record.species_names(result.scores)}
  test = stated.get('test', {})
  return environment.get_template('page.html.jinja').render(
    title=title,
    notes=notes,
    warnings=list(dict.fromkeys(line for result in evaluations for line in result.warnings)),
    about=', '.join(test[key] for key in ('laboratory', 'date') if key in test),
    conditions=_conditions(stated),
    not_stated=_not_stated(stated, sorted(species)),
    signatures=[(role.capitalize(), test.get(role, '')) for role in ('operator', 'reviewer')],
    chapters=[
      chapter(result, i, images, show_species, stated) for i, result in enumerate(evaluations, 1)
    ],
    style=Markup((_FOLDER / 'style.css').read_text(encoding='utf-8')),
    version=flexfas_jax.__version__,
    longest=formatting.LONGEST,
    min_samples=intervals.MIN_SAMPLES,
    min_subjects=intervals.MIN_SUBJECTS,
  )


def _conditions(stated: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
  """What is stated of the test, but for its species, which have a table."""
  return [
    (f'{_TABLES[table]}{key.replace("_", " ")}'.capitalize(), stated[table][key])
    for table in test_description.FIELDS
    for key in test_description.FIELDS[table]
    if key in stated.get(table, {})
  ]


def _not_stated(stated: Mapping[str, Mapping[str, Any]], species: Sequence[str]) -> list[str]:
  """By table, what is missing; a table of which nothing is stated is one entry."""
  if not stated:
    return [
      'item under test, capture device, conditions, whether images are photographs, PAI species'
    ]
  return test_description.missing(stated, species)
