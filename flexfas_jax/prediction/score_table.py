"""Scores many samples and writes a score file, which `flexfas_jax.score` evaluates.

There is a column for each subset that the bundle serves, as in evaluation. Modalities that a sample
lacks are absent; without a required modality the score is empty. The decision uses all modalities
of a sample.

A modality that is given but unusable is a failure to acquire, in the decision and in the columns of
the subsets with that modality, unless the predictor allows it to be absent. Evaluation counts it as
absent; `as_evaluated` does the same, so that the figures of a prepared set equal `results.json`.
"""

import csv
import io
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import score_files, unusable
from flexfas_jax.files import write_text
from flexfas_jax.prediction.decision import FTA, Decision, decide
from flexfas_jax.prediction.predictor import Acquired, Predictor
from flexfas_jax.prediction.samples import Sample

BATCH = 64
_THREADS = 2  # for decoding


class ScoreTable(NamedTuple):
  """Scores and decisions of N samples."""

  samples: list[Sample]  # without their images
  decisions: list[Decision]
  scores: dict[str, np.ndarray]  # by subset: [N] float64, NaN = failure to acquire
  nan: dict[str, np.ndarray]  # by subset: [N] bool, True where the model computed nan
  faults: list[tuple[Sample, str]]  # samples with unusable image files, and the reasons
  header: dict  # of the score file

  @property
  def labelled(self) -> bool:
    return all(sample.label for sample in self.samples)


def score_samples(
  predictor: Predictor,
  samples: Iterable[Sample],
  max_skew: float | None = None,
  batch: int = BATCH,
  as_evaluated: bool = False,
  on_bad: str = 'fail',
) -> ScoreTable:
  """Scores samples with every served subset, and decides about each.

  A sample with an unusable image file is a failure to acquire, or is left out. It is listed in
  `faults`, and the other samples are scored.

  Args:
    predictor: the predictor.
    samples: read lazily.
    max_skew: seconds, see `Predictor`.
    batch: batch size of the model.
    as_evaluated: a modality that is given but unusable is absent, even if the predictor does not
      allow it; sizes, units and ranges are not checked, because the set's builder has checked them.
    on_bad: 'fail': a sample with a bad image is a failure to acquire; 'skip': it is left out.

  Raises:
    ConfigError: see `Predictor`.
    DataError: there are no samples, or, with 'skip', only bad ones.
    StateError: the bundle has no threshold for the modalities of a sample.
  """
  subsets = [s for s in predictor.card.subsets if set(s.split('+')) <= set(predictor.modalities)]
  allowed = predictor.allow_absent
  if as_evaluated:
    allowed = tuple(m for m in predictor.modalities if m not in predictor.require)
  scored, decisions, faults = [], [], []
  recorded: set[str] = set()  # modalities that a sample was given, usable or not
  score_parts = {subset: [] for subset in subsets}
  nan_parts = {subset: [] for subset in subsets}

  def acquire(sample: Sample) -> Acquired | str:
    return _acquire(predictor, sample, max_skew, as_evaluated)

  with ThreadPoolExecutor(_THREADS) as pool:
    for batch_samples in _batches(samples, batch):
      acquired = list(pool.map(acquire, batch_samples))
      recorded.update(*(sample.given for sample in batch_samples))
      batch_samples = [sample._replace(given={}) for sample in batch_samples]  # free the images
      pairs = list(zip(batch_samples, acquired, strict=True))
      faults += [pair for pair in pairs if isinstance(pair[1], str)]
      if on_bad == 'skip':
        pairs = [pair for pair in pairs if not isinstance(pair[1], str)]
      scores = _scores(predictor, [one for _, one in pairs], allowed, subsets, batch)
      for subset, (score, nan) in scores.items():
        score_parts[subset].append(score)
        nan_parts[subset].append(nan)
      for i, (sample, one) in enumerate(pairs):
        own = {subset: float(score[i]) for subset, (score, _) in scores.items()}
        decisions.append(_decide(predictor, sample, one, allowed, own))
        scored.append(sample)
  if not scored:
    first = f': {faults[0][0].id}: {faults[0][1]}' if faults else ''
    raise DataError(f'there are no usable samples{first}')
  return ScoreTable(
    scored,
    decisions,
    {subset: np.concatenate(parts) for subset, parts in score_parts.items()},
    {subset: np.concatenate(parts) for subset, parts in nan_parts.items()},
    faults,
    {**_header(predictor, allowed, as_evaluated), **_not_recorded(predictor, recorded)},
  )


def _batches(samples: Iterable[Sample], n: int) -> Iterator[list[Sample]]:
  samples = iter(samples)
  while batch := list(itertools.islice(samples, n)):
    yield batch


def _acquire(
  predictor: Predictor, sample: Sample, max_skew: float | None, prepared: bool
) -> Acquired | str:
  """The acquired sample, or what is wrong with its files."""
  given = {m: one for m, one in sample.given.items() if m in predictor.modalities}
  box = sample.box if predictor.cropper is not None else None
  times = sample.times if max_skew is not None else None
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
  """{subset: (scores [n] float64, [n] bool where the model computed nan)}."""
  n, modalities = len(acquired), predictor.modalities
  present = np.zeros((batch, len(modalities)), bool)  # always a full batch: compiled once
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
  scores = {}
  for subset in subsets:
    names = subset.split('+')
    of_subset = np.array([m in names for m in modalities])
    has = present & of_subset
    needed = np.array([m in predictor.require for m in modalities])
    servable = has.any(1) & (has | ~needed).all(1) & ~(blocked & of_subset).any(1)
    score = np.full(batch, math.nan)
    if servable.any():
      # A model without the input `present` rejects absent modalities in any row.
      fed = has | ~servable[:, None]
      score = np.where(servable, predictor.scores(images, fed), math.nan)
    scores[subset] = score[:n], (servable & np.isnan(score))[:n]
  return scores


def _decide(
  predictor: Predictor,
  sample: Sample,
  acquired: Acquired | str,
  allowed: Sequence[str],
  scores: Mapping[str, float],
) -> Decision:
  if isinstance(acquired, str):
    return Decision(FTA, reasons=(acquired,))
  used = predictor.used(acquired)
  if refusal := predictor.refusal(used, acquired.unusable, allowed):
    reasons = (*acquired.reasons, refusal)
    return Decision(FTA, used=used, reasons=reasons, unusable=acquired.unusable)
  subset = '+'.join(used)
  try:
    threshold = predictor.card.threshold(subset)
  except StateError as error:
    raise StateError(f'{sample.id}: {error}') from None
  return decide(scores[subset], threshold, used, acquired.reasons, acquired.unusable)


def _header(predictor: Predictor, allowed: Sequence[str], as_evaluated: bool) -> dict:
  card = predictor.card
  note = 'RENDERED: the model was trained and evaluated on rendered faces'
  return {
    **({'notes': [note]} if card.is_rendered else {}),
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


def _not_recorded(predictor: Predictor, recorded: Collection[str]) -> dict[str, list[str]]:
  """What a header states of modalities that no sample has; {} if there is none."""
  lacking = [m for m in predictor.modalities if m not in recorded]
  return {'not_recorded': lacking} if lacking else {}


def is_foreign(header: Path) -> bool:
  """Whether a file exists and is not the header of a score file, but e.g. a card."""
  if not header.is_file():
    return False
  try:
    fields = json.loads(header.read_bytes())
  except (OSError, ValueError, RecursionError):
    return True
  return not isinstance(fields, dict) or not fields.keys() & {'bundle_hash', 'list_hash'}


def write(path: Path, table: ScoreTable) -> None:
  """Writes a score file, without labels if a sample has none.

  Besides the scores there are the columns `used`, `decision`, `reasons`, and, if any sample has
  one, `unusable`: the modalities that were given but unusable, as in 'depth+ir'.

  Raises:
    ConfigError: the file cannot be written.
    DataError: a repeated id.
  """
  if not path.parent.is_dir():
    raise ConfigError(f'{path} cannot be written: no such folder: {path.parent}')
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
  """Makes a text a single line of UTF-8; reasons may contain any path."""
  text = text.encode('utf-8', 'backslashreplace').decode()
  return ' '.join(text.splitlines())


def _write_unlabelled(path: Path, table: ScoreTable, extra: Mapping[str, Sequence[str]]) -> None:
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
