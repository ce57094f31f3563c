"""The report: one HTML file that opens from disk, anywhere, without a network and without scripts.

All that comes from files (ids, names of species and subsets, notes, configs) is escaped, and
characters that act instead of being seen are replaced; a policy in the page forbids whatever a
browser could load or run all the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

import flexfas_jax
from flexfas_jax.evaluation import intervals
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import formatting
from flexfas_jax.evaluation.report.chapter import chapter
from flexfas_jax.files import write_text

ImageFinder = Callable[[str, Sequence[str]], Mapping[str, Mapping[str, bytes]]]

_FOLDER = Path(__file__).parent


def write(
  path,
  evaluations: Sequence[EvaluationResult],
  title: str,
  images: ImageFinder | None = None,
  notes: Sequence[str] = (),
) -> None:
  """Writes the report of some tests, whole or not at all.

  Args:
    path: of the HTML file, in a folder that exists.
    evaluations: of each test, a chapter each, in this order.
    title: of the report.
    images: gives images of the worst mistakes: called with a test's name and ids, it returns
      {id: {modality: encoded JPEG or PNG}} of those that it has.
    notes: what the reader must know about all tests.
  """
  write_text(Path(path), html(evaluations, title, images, notes))


def html(
  evaluations: Sequence[EvaluationResult],
  title: str,
  images: ImageFinder | None = None,
  notes: Sequence[str] = (),
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
  return environment.get_template('page.html.jinja').render(
    title=title,
    notes=notes,
    chapters=[chapter(result, i, images) for i, result in enumerate(evaluations, 1)],
    style=Markup((_FOLDER / 'style.css').read_text(encoding='utf-8')),
    version=flexfas_jax.__version__,
    min_samples=intervals.MIN_SAMPLES,
    min_subjects=intervals.MIN_SUBJECTS,
  )
