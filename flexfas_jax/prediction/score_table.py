"""Scores and decisions of many samples, as a score file that `flexfas_jax.score` judges.

A column per subset of modalities that the bundle serves, as evaluation has it: what a sample lacks
is absent there too, and without a modality that is needed there is no score. The decision is by
all that a sample has.

A modality that is given and unusable is a failure to acquire, in the decision and in the columns of
the subsets that have it, unless the predictor allows it to be absent. Evaluation counts it as
absent: `as_evaluated` does that, so that a prepared set's figures equal those of `results.json`.
"""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import score_files, unusable
from flexfas_jax.files import write_text
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction.decision import Decision
from flexfas_jax.prediction.predictor import Acquired, Predictor
from flexfas_jax.prediction.samples import Sample

BATCH = 64
_THREADS = 2  # that decode


class Table(NamedTuple):
  """What was said of N samples."""

  samples: list[Sample]  # without their pictures
  decisions: list[Decision]
  scores: dict[str, np.ndarray]  # by subset: [N] float64, NaN = failure to acquire
  nan: dict[str, np.ndarray]  # by subset: [N] bool, where the model computed no number
  faults: list[tuple[Sample, str]]  # samples with images that cannot be used, and why
  header: dict  # of the score file

  @property
  def labelled(self) -> bool:
    return all(sample.label for sample in self.samples)


def make(
  predictor: Predictor,
  samples: Iterable[Sample],
  max_skew: float | None = None,
  batch: int = BATCH,
  as_evaluated: bool = False,
  on_bad: str = 'fail',
) -> Table:
  """Scores samples under every subset that is served, and decides about each.

  An image that is damaged or of another kind makes its sample a failure to acquire, or leaves it
  out; it is in `faults` in either case, and the other samples are scored.

  Args:
    predictor: that decides.
    samples: read as they are needed.
    max_skew: seconds, see `Predictor`.
    batch: samples that the model sees at once.
    as_evaluated: a modality that is given and unusable is absent, whatever the predictor allows;
      sizes, units and ranges are not checked: the set's builder has done so by its own rules.
    on_bad: 'fail': a sample with a bad image is a failure to acquire; 'skip': it is left out.

  Raises:
    ConfigError: as of the predictor.
    DataError: no sample, or with 'skip' none but bad ones.
    StateError: a sample has modalities that the bundle has no threshold for.
  """
  subsets = [s for s in predictor.card.subsets if set(s.split('+')) <= set(predictor.modalities)]
  allowed = predictor.allow_absent
  if as_evaluated:
    allowed = tuple(m for m in predictor.modalities if m not in predictor.require)
  kept, said, faults = [], [], []
  columns = {subset: [] for subset in subsets}
  wrong = {subset: [] for subset in subsets}
  with ThreadPoolExecutor(_THREADS) as pool:
    for some in _batches(samples, batch):
      acquired = list(pool.map(lambda one: _acquire(predictor, one, max_skew, as_evaluated), some))
      some = [sample._replace(given={}) for sample in some]
      faults += [(s, a) for s, a in zip(some, acquired, strict=True) if isinstance(a, str)]
      if on_bad == 'skip':
        some = [s for s, a in zip(some, acquired, strict=True) if not isinstance(a, str)]
        acquired = [a for a in acquired if not isinstance(a, str)]
      found = _scores(predictor, acquired, allowed, subsets, batch)
      for subset, (score, nan) in found.items():
        columns[subset].append(score)
        wrong[subset].append(nan)
      for i, one in enumerate(acquired):
        scores = {s: float(x[i]) for s, (x, _) in found.items()}
        said.append(_decide(predictor, some[i], one, allowed, scores))
      kept += some
  if not kept:
    first = f': {faults[0][0].id}: {faults[0][1]}' if faults else ''
    raise DataError(f'there are no samples that can be decided{first}')
  return Table(
    kept,
    said,
    {subset: np.concatenate(parts) for subset, parts in columns.items()},
    {subset: np.concatenate(parts) for subset, parts in wrong.items()},
    faults,
    _header(predictor, allowed, as_evaluated),
  )


def _batches(samples: Iterable[Sample], n: int) -> Iterator[list[Sample]]:
  samples = iter(samples)
  while some := list(itertools.islice(samples, n)):
    yield some


def _acquire(
  predictor: Predictor, sample: Sample, max_skew: float | None, prepared: bool
) -> Acquired | str:
  """What the model sees, or what is wrong with the files."""
  given = {m: one for m, one in sample.given.items() if m in predictor.modalities}
  box = sample.box if predictor.framing is not None else None
  times = sample.times if max_skew is not None else None  # a list may have them for other uses
  try:
    acquired = predictor.acquire(given, times, max_skew, box=box, prepared=prepared)
  except DataError as error:
    return str(error)
  ignored = [f'{m} is not an input of this model: ignored' for m in sample.given if m not in given]
  return acquired._replace(reasons=(*acquired.reasons, *ignored))


def _scores(
  predictor: Predictor,
  acquired: Sequence[Acquired | str],
  allowed: Sequence[str],
  subsets: Sequence[str],
  batch: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """By subset: scores [n] float64, and [n] bool where they are nan though there was something."""
  n, modalities = len(acquired), predictor.modalities
  present = np.zeros((batch, len(modalities)), bool)  # of one shape always: compiled once
  blocked = np.zeros_like(present)  # given, unusable, and not allowed to be absent
  size = predictor.card.image_size
  images = {m: np.zeros((batch, size, size, schema.channels(m)), np.float32) for m in modalities}
  for i, one in enumerate(acquired):
    if isinstance(one, str):
      continue
    present[i] = one.present
    blocked[i] = [m in one.unusable and m not in allowed for m in modalities]
    for modality, image in one.arrays.items():
      images[modality][i] = image
  found = {}
  for subset in subsets:
    names = subset.split('+')
    of_subset = np.array([m in names for m in modalities])
    has = present & of_subset
    needed = np.array([m in predictor.require for m in modalities])
    servable = has.any(1) & (has | ~needed).all(1) & ~(blocked & of_subset).any(1)
    score = np.full(batch, math.nan)
    if servable.any():
      # A model without the input `present` is fed nothing that lacks something.
      fed = has | ~servable[:, None]
      score = np.where(servable, predictor.scores(images, fed), math.nan)
    found[subset] = score[:n], (servable & np.isnan(score))[:n]
  return found


def _decide(
  predictor: Predictor,
  sample: Sample,
  acquired: Acquired | str,
  allowed: Sequence[str],
  scores: Mapping[str, float],
) -> Decision:
  if isinstance(acquired, str):
    return Decision(decisions.FTA, reasons=(acquired,))
  used = predictor.used(acquired)
  if refused := predictor.refusal(used, acquired.unusable, allowed):
    reasons = (*acquired.reasons, refused)
    return Decision(decisions.FTA, used=used, reasons=reasons, unusable=acquired.unusable)
  subset = '+'.join(used)
  try:
    threshold = predictor.card.threshold(subset)
  except StateError as error:
    raise StateError(f'{sample.id}: {error}') from None
  return decisions.of_score(scores[subset], threshold, used, acquired.reasons, acquired.unusable)


def _header(predictor: Predictor, allowed: Sequence[str], as_evaluated: bool) -> dict:
  card = predictor.card
  return {
    'weights_hash': card.contents['weights_hash'],
    'bundle': card.name,
    'bundle_hash': card.sha256,
    'model': predictor.entry['file'],
    'polarity': score_files.POLARITY,
    'unusable': {
      'rule': 'absent, as in evaluation' if as_evaluated else 'failure to acquire',
      'allow_absent': list(allowed),
    },
    'thresholds': {name: about.get('value') for name, about in card.contents['thresholds'].items()},
  }


def is_foreign(header: Path) -> bool:
  """Whether a file is there and is none of the headers that `write` writes, such as a card."""
  try:
    found = json.loads(header.read_bytes()) if header.is_file() else {'bundle_hash': ''}
  except (OSError, ValueError, RecursionError):
    return True
  return not isinstance(found, dict) or not found.keys() & {'bundle_hash', 'list_hash'}


def write(path: Path, table: Table) -> None:
  """Writes a score file where every sample has a label, and else the same without labels.

  Besides the scores there are columns of text: `used`, `decision`, `reasons`, and `unusable` (the
  modalities that were given and unusable, 'depth+ir') where any sample has such.

  Raises:
    ConfigError: not a place for it.
    DataError: an id that is there twice.
  """
  if not path.parent.is_dir():
    raise ConfigError(f'{path} cannot be written: No such folder: {path.parent}')
  extra = {
    'used': [d.subset for d in table.decisions],
    'decision': [d.outcome for d in table.decisions],
    'reasons': [_writable('; '.join(d.reasons)) for d in table.decisions],
  }
  if any(d.unusable for d in table.decisions):
    extra[unusable.COLUMN] = [schema.subset_name(d.unusable) for d in table.decisions]
  try:
    if not table.labelled:
      return _write_unlabelled(path, table, extra)
    scores = score_files.Scores(
      ids=[s.id for s in table.samples],
      label=[schema.LABELS.index(s.label) for s in table.samples],
      scores=table.scores,
      **{name: [s.facts.get(name, '') for s in table.samples] for name in schema.METADATA},
      extra=extra,
      header=table.header,
      nan_samples={s: np.flatnonzero(nan) for s, nan in table.nan.items() if nan.any()},
    )
    score_files.write(path, scores)
  except OSError as error:
    raise ConfigError(f'{path} cannot be written: {error.strerror}') from error


def _writable(text: str) -> str:
  """Text that a UTF-8 file of one row per line can hold: reasons may name paths."""
  text = text.encode('utf-8', 'backslashreplace').decode()
  return ' '.join(text.splitlines())


def _write_unlabelled(path: Path, table: Table, extra: Mapping[str, Sequence[str]]) -> None:
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['id', *extra, *table.scores])
  for i, sample in enumerate(table.samples):
    cells = [float(column[i]) for column in table.scores.values()]
    cells = ['' if math.isnan(cell) else repr(cell) for cell in cells]
    writer.writerow([sample.id, *(column[i] for column in extra.values()), *cells])
  header = json.dumps(table.header, indent=2, sort_keys=True) + '\n'
  write_text(score_files.header_path(path), header)
  write_text(path, text.getvalue())
