"""Score files: text files with the scores of every sample under every subset of modalities.

`NAME.csv` holds one row per sample: `id,dataset,subject,video,label,attack_type,attack_category`,
`ethnicity` where it is known, then one column per subset (`rgb`, `rgb+depth`, ...). `NAME.json`
next to it is the header: which weights, which list of samples, which config, under `columns` the
names of further columns of text, which subjects may be grouped by, and under `not_recorded` the
modalities of which no sample has an image.

A score is the probability of bona fide: high means accept. Scores on another scale are kept on it,
and the header states it as `scale` (see `scales`). A label is `bona_fide` or `attack` (1
and 0 are read too, 1 being bona fide). An empty score is a failure to acquire; a subset whose
column is empty throughout is one that the model cannot serve. `nan` is a number that went wrong,
never an outcome: it is read, and remembered as such.

Any framework's CSV with `id,label,score` is a score file, header or not, in the dialects that
`csv_dialect` reads. It may have any of the columns above; the scores are in `score`, or else in the
columns that are subsets (SUBSET, or SUBSET@VIEW), and other columns are ignored. Labels of other
names, and scores that are high for attacks, are read only by option; nothing is guessed.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import flexfas_jax
from flexfas_jax import csv_dialect, label_mapping, plain_csv, schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import grouping, scales
from flexfas_jax.files import write_text
from flexfas_jax.protocols import selection
from flexfas_jax.schema import LABELS, METADATA

POLARITY = 'high is bona fide'
WAY_OUT = (
  'State the scale (--scale=percent, --scale=logit), fit the threshold (--dev), or give one on the '
  'scale of the scores (--threshold=fixed=T)'
)

_SUBSETS = {
  schema.subset_name(names)
  for n in range(1, len(schema.MODALITIES) + 1)
  for names in itertools.permutations(schema.MODALITIES, n)
}
# A damaged file counts as a header if it has one of a header's keys, or ends before any key does.
_HEADER_KEY = re.compile('"(list_hash|polarity|code_version|weights_hash|bundle)"')
_PAIR = re.compile('"[^"]*"\\s*:|^\\s*[^{\\s]')
_NO_TEXT = {'', 'id', 'label', 'score'}
_KNOWN = {'id', 'label', 'score', *METADATA, *_SUBSETS}  # read in capitals too
_SHOWN = 5  # offenders that an error lists


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """The scores of N samples under some subsets of modalities.

  Raises:
    ValueError: arrays that do not fit together, a label that is neither 0 nor 1, a bad subset name.
  """

  ids: np.ndarray  # [N] str, each once
  label: np.ndarray  # [N] int8, 1 = bona fide
  scores: dict[str, np.ndarray]  # by subset: [N] float64, NaN = failure to acquire
  # [N] str, '' = not known
  dataset: np.ndarray | None = None
  subject: np.ndarray | None = None
  video: np.ndarray | None = None
  attack_type: np.ndarray | None = None
  attack_category: np.ndarray | None = None
  ethnicity: np.ndarray | None = None
  # Further columns of text, by name: [N] str each.
  extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  # The contents of the header: weights_hash, list_hash, config, polarity, code_version.
  header: dict = dataclasses.field(default_factory=dict)
  path: Path | None = None  # the file that these were read from
  ignored: tuple[str, ...] = ()  # columns of that file that are neither scores nor known
  scale: str = ''  # as in `scales`; '' = not stated
  # The same by subset, where several systems are on different scales.
  scale_of: dict[str, str] = dataclasses.field(default_factory=dict)
  # By subset: [n] int64, the samples whose NaN is a fault of the model, not a failure to acquire.
  nan_samples: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    label = np.asarray(self.label)
    if not np.isin(label, (0, 1)).all():
      raise ValueError('a label is 1 (bona fide) or 0 (attack)')
    arrays = {
      'ids': np.asarray(self.ids, np.str_),
      'label': label.astype(np.int8),
      'scores': {name: np.asarray(s, np.float64) for name, s in self.scores.items()},
      'nan_samples': {n: np.asarray(at, np.int64) for n, at in self.nan_samples.items()},
      'extra': {name: np.asarray(values, np.str_) for name, values in self.extra.items()},
    }
    for name in METADATA:
      value = getattr(self, name)
      arrays[name] = np.full(len(self.ids), '') if value is None else np.asarray(value, np.str_)
    for name, value in arrays.items():
      object.__setattr__(self, name, value)  # frozen
    arrays = {name: getattr(self, name) for name in ('ids', 'label', *METADATA)}
    arrays |= self.extra | self.scores
    for name, array in arrays.items():
      if array.shape != (len(self.ids),):
        raise ValueError(f'{name} has shape {array.shape}, not [{len(self.ids)}]')
    if bad := {'id', 'label', *METADATA, *self.extra} & self.scores.keys():
      raise ValueError(f'a subset cannot be called {sorted(bad)}')
    if not self.scores or ('score' in self.scores and len(self.scores) > 1):
      raise ValueError('there must be scores; a subset called score is the only one')

  def scale_under(self, subset: str) -> str:
    """The scale of a subset's scores."""
    return self.scale_of.get(subset, self.scale)

  @functools.cached_property
  def rendered(self) -> bool:
    """Whether samples are rendered images: as the header states, else by data sets and ids.

    A CSV that is copied without its header, or a folder of rendered images that is prepared as an
    own set, keeps the names of the embedded data sets.
    """
    if 'rendered' in self.header:
      return bool(self.header['rendered'])
    if not {*grouping.factorize(self.dataset)[0].tolist()}.isdisjoint(selection.RENDERED_DATASETS):
      return True
    return any(np.char.startswith(self.ids, f'{x}/').any() for x in selection.RENDERED_DATASETS)

  def not_recorded(self, subset: str) -> tuple[str, ...]:
    """The modalities of a subset that no sample has, as the header states.

    Its scores are then those of the other modalities, and its figures of another subset.

    Args:
      subset: a column, SUBSET or SUBSET@VIEW, of several systems 'SYSTEM: SUBSET'.
    """
    stated, (system, _, names) = self.header.get('not_recorded', ()), subset.rpartition(': ')
    if isinstance(stated, Mapping):  # of several systems, see `evaluate.merge_systems`
      stated = stated.get(system, ())
    return tuple(m for m in names.partition('@')[0].split('+') if m in stated)

  def only(self, keep: np.ndarray) -> 'Scores':
    """Those samples alone; keep: [N] bool."""
    place = np.cumsum(keep) - 1
    return dataclasses.replace(
      self,
      ids=self.ids[keep],
      label=self.label[keep],
      scores={name: s[keep] for name, s in self.scores.items()},
      **{name: getattr(self, name)[keep] for name in METADATA},
      extra={name: values[keep] for name, values in self.extra.items()},
      nan_samples={n: place[at[keep[at]]] for n, at in self.nan_samples.items() if keep[at].any()},
    )


def list_hash(ids, label) -> str:
  """The identity of a list of samples, whatever their order: SHA-256 over sorted ids and labels.

  Args:
    ids: [N] str.
    label: [N] integer, 1 = bona fide.

  Returns:
    64 hexadecimal digits.
  """
  ids, label = np.asarray(ids, np.str_), np.asarray(label).astype(np.int8)
  lines = sorted(map('{}\t{}\n'.format, ids.tolist(), label.tolist()))
  return hashlib.sha256(''.join(lines).encode()).hexdigest()


def header_path(path) -> Path:
  """The header's file beside a score file."""
  path = Path(path)
  return path.parent / f'{path.stem}.json'  # also of `.`, which is no file, and has no suffix


@dataclasses.dataclass(frozen=True)
class Dialect:
  """How another framework's file is to be understood."""

  labels: Mapping[str, str] | None = None  # from `label_mapping.parse`; None: 1 is bona fide
  high_is_attack: bool = False  # scores are negated
  scale: str = ''  # one of `scales.OPTIONS`; '' = not stated
  text: tuple[str, ...] = ()  # columns that hold no scores
  score_column: str = ''  # the column that is read as `score`
  views: tuple[str, ...] = ()  # columns that hold scores, whatever they are called


DEFAULT_DIALECT = Dialect()


def read(path, dialect: Dialect = DEFAULT_DIALECT) -> Scores:
  """Reads a score file and the header beside it, where there is one.

  Args:
    path: the CSV, UTF-8. Errors count rows as lines of the file.
    dialect: what differs from our own files.

  Returns:
    `Scores`, in the order of the file.

  Raises:
    DataError: with file and row, for anything that is not such a file; or a header that speaks of
      other samples or of scores of the other polarity.
  """
  path = Path(path)
  header = read_header(header_path(path))
  layout = csv_dialect.sniff(path, _KNOWN)
  text = {*header.get('columns', ()), *dialect.text} - _NO_TEXT - {dialect.score_column}
  text = [name for name in layout.names if name in text]
  subsets = _subsets(path, layout, text, dialect)
  styles = {name: {} for name in subsets}
  chunks = list(_chunks(path, layout, styles, text, label_mapping.LabelMapping(dialect.labels)))
  for name, of in styles.items():
    if 'percent' in of and dialect.scale:
      at = csv_dialect.line_number(path, layout, of['percent'])
      raise DataError(
        f'{path}, row {at}: {name} has percent signs, and is read as a probability; leave out '
        f'--scale={dialect.scale}'
      )
  if not chunks:
    raise DataError(f'{path} is empty: it names its columns and has no samples')

  column = {}
  for name in list(chunks[0]):
    parts = [chunk.pop(name) for chunk in chunks]  # freed one after the other
    join = plain_csv.join_texts if parts[0].dtype.kind in 'SU' else np.concatenate
    column[name] = join(parts)
  ids, label = column['id'], column['label']
  _check_ids(path, ids, lambda sample: csv_dialect.line_number(path, layout, sample))
  if header and (found := list_hash(ids, label)) != header['list_hash']:
    raise DataError(
      f'{path}: its ids and labels are not those that {header_path(path)} was written for '
      f'(list_hash {header["list_hash"]}, found {found}); restore the pair, or remove the header'
    )
  if header.get('polarity', POLARITY) != POLARITY:
    raise DataError(
      f'{header_path(path)}: polarity is {header["polarity"]!r}, and must be {POLARITY!r}; '
      'turn the scores round, so that high means accept'
    )
  scale, turn = scale_of(path, header, dialect)
  scores = Scores(
    ids=ids,
    label=label,
    scores={
      'score' if name == dialect.score_column else name: scales.orient(column[name], turn)
      for name in subsets
    },
    **{name: column.get(name) for name in METADATA},
    extra={name: column[name] for name in text if name not in METADATA},
    header=header,
    path=path,
    scale=scale,
    ignored=_ignored(layout, subsets, text),
    nan_samples={
      'score' if name == dialect.score_column else name: at
      for name in subsets
      if (at := np.flatnonzero(column['nan', name])).size
    },
  )
  _require_kinds_of_attacks(scores, lambda sample: csv_dialect.line_number(path, layout, sample))
  if dialect.scale:
    require_scale(scores, f'--scale={dialect.scale}')
  return scores


def scale_of(path: Path, header: Mapping, dialect: Dialect) -> tuple[str, bool]:
  """(scale of a file's scores as they are kept, whether they have to be negated for it).

  A header that states the scale is of scores that were kept on it: the dialect is that of others.
  So is what a high score means, where the header states that.

  Raises:
    DataError: a header with an unknown scale.
  """
  if 'scale' not in header:
    turn = dialect.high_is_attack and 'polarity' not in header
    return scales.kept_scale(dialect.scale, turn), turn
  if not scales.is_valid(header['scale']):
    raise DataError(f'{header_path(path)}: unknown scale {header["scale"]!r}')
  return header['scale'], False


def row_number(path: Path, sample: int) -> int:
  """The row of a sample in a file. It reads the file again, which only errors need."""
  return csv_dialect.line_number(path, csv_dialect.sniff(path, _KNOWN), sample)


def require_scale(
  scores: Scores, why: str, way_out: str = WAY_OUT, if_stated: bool = False
) -> None:
  """Raises DataError, by file and row, for a score that its scale cannot have.

  Args:
    scores: in the order of their file.
    why: they have to be on that scale.
    way_out: what to do about it.
    if_stated: only the subsets whose scale is.
  """
  for subset, values in scores.scores.items():
    scale = scores.scale_under(subset)
    if if_stated and not scale:
      continue
    if not (at := scales.out_of_range(values, scale)).size:
      continue
    first = int(at[0])
    row = f', row {row_number(scores.path, first)}' if scores.path else ''
    stated = scales.as_stated(float(values[first]), scale)
    limits = '[0, 100]' if scale.endswith('percent') else '[0, 1]'
    raise DataError(
      f'{scores.path or "the scores"}{row}: {subset} of {scores.ids[first]} is {stated!r}, outside '
      f'{limits}, as are {at.size} of its {values.size} scores ({why}). {way_out}'
    )


def read_columns(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
  """{id: {column: text}} of CSV files with a column `id`, e.g. the manifests of prepared sets.

  Raises:
    DataError: a file that cannot be read, without that column, or with another value for an id.
  """
  found = {}
  for path in map(Path, paths):
    layout = csv_dialect.sniff(path, ('id',))
    if 'id' not in layout.names:
      raise DataError(f'{path}, row {layout.line}: no column id in {list(layout.names)}')
    line = 0
    for line, row in csv_dialect.read_records(path, layout):
      cells = dict(zip(layout.names, row, strict=True))
      cells.pop('', None)
      id_ = cells.pop('id')
      if found.setdefault(id_, cells) != cells:
        raise DataError(f'{path}, row {line}: {id_} stands elsewhere with other cells')
    if not line:
      raise DataError(f'{path} is empty: it names its columns and has no rows')
  return found


def join_columns(scores: Scores, columns: Mapping[str, Mapping[str, str]]) -> Scores:
  """Scores with further columns of text; metadata that is not known is filled in from them.

  Args:
    scores: what gets them.
    columns: from `read_columns`.

  Raises:
    DataError: none of the ids is there.
  """
  if not columns:
    return scores
  rows = [columns.get(id_, {}) for id_ in scores.ids.tolist()]
  if not any(rows):
    raise DataError(
      f'{scores.path}: none of its ids (the first is {scores.ids[0]}) is in the files of --columns'
    )
  names = dict.fromkeys(name for row in rows for name in row)
  of = {name: np.array([row.get(name, '') for row in rows]) for name in names}
  known = {n: getattr(scores, n) for n in METADATA if n in of}
  taken = {'label', *METADATA, *scores.scores}
  joined = dataclasses.replace(
    scores,
    **{name: np.where(own == '', of[name], own) for name, own in known.items()},
    extra={**{n: v for n, v in of.items() if n not in taken}, **scores.extra},
  )
  _require_kinds_of_attacks(joined)
  return joined


def write(path, scores: Scores) -> None:
  """Writes a score file and its header, each whole or not at all; equal scores give equal bytes.

  The header gets `list_hash`, and `polarity` and `code_version` where it has none; `weights_hash`
  and `config` are the caller's. A score that is read back is the same float64.

  Args:
    path: `NAME.csv`, in a folder that exists.
    scores: what to write.

  Raises:
    ConfigError: the name does not end in `.csv`.
    DataError: an id that is empty or there twice, a carriage return, an infinite score, a header
      of the other polarity.
  """
  path = Path(path)
  if path.suffix != '.csv':
    raise ConfigError(f'{path}: a score file is called NAME.csv, its header NAME.json')
  _check_ids(path, scores.ids, lambda sample: sample + 2)
  for name, values in scores.scores.items():
    if (at := np.flatnonzero(np.isinf(values))).size:
      raise DataError(f'{path}: {name} of {scores.ids[at[0]]} is infinite')
  header = {
    'polarity': POLARITY,
    'code_version': flexfas_jax.__version__,
    **scores.header,
    'list_hash': list_hash(scores.ids, scores.label),
  }
  if header['polarity'] != POLARITY:
    raise DataError(f'{path}: polarity is {header["polarity"]!r}, and must be {POLARITY!r}')
  header.pop('columns', None)
  header.pop('scale', None)
  if scores.scale:
    header['scale'] = scores.scale
  if scores.extra:
    header['columns'] = list(scores.extra)

  columns = {
    'id': scores.ids,
    'dataset': scores.dataset,
    'subject': scores.subject,
    'video': scores.video,
    'label': np.array(LABELS)[scores.label],
    'attack_type': scores.attack_type,
    'attack_category': scores.attack_category,
    **({'ethnicity': scores.ethnicity} if (scores.ethnicity != '').any() else {}),
    **scores.extra,
  }
  columns = {name: column.tolist() for name, column in columns.items()}
  for name, values in scores.scores.items():
    columns[name] = cells = list(map(repr, values.tolist()))  # the shortest text that reads back
    for sample in np.flatnonzero(np.isnan(values)):
      cells[sample] = ''
    for sample in scores.nan_samples.get(name, ()):
      cells[sample] = 'nan'
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(columns)
  writer.writerows(zip(*columns.values(), strict=True))
  if '\r' in text.getvalue():  # csv may leave it unquoted, and then reads a new row
    raise DataError(f'{path}: an id or another name has a carriage return in it')

  # The CSV last: where it is, its header is.
  write_text(header_path(path), json.dumps(header, indent=2, sort_keys=True) + '\n')
  write_text(path, text.getvalue())


def _is_subset(name: str) -> bool:
  """Whether a column's name is that of scores: SUBSET, SUBSET@VIEW or score."""
  subset, at, view = name.partition('@')
  return subset in {'score', *_SUBSETS} and bool(view) == bool(at)


def _subsets(
  path: Path, layout: csv_dialect.Layout, text: Sequence[str], dialect: Dialect
) -> list[str]:
  """The columns that hold scores, by the names of all."""
  names, where = [name for name in layout.names if name], f'{path}, row {layout.line}'
  if missing := {'id', 'label'} - set(names):
    raise DataError(
      f'{where}: no column {sorted(missing)} in {names}; id, label and a column per subset of '
      'modalities (or score), separated by commas, semicolons or tabs'
    )
  if dialect.score_column:
    if dialect.score_column in {'id', 'label', *METADATA}:
      raise ConfigError(f'--score_column={dialect.score_column} is a column of something else')
    if dialect.score_column not in names:
      raise DataError(f'{where}: no column {dialect.score_column} (--score_column) in {names}')
    return [dialect.score_column]
  if views := [name for name in names if name in dialect.views]:
    return views
  if 'score' in names:
    return ['score']
  known = {'id', 'label', *METADATA, *text}
  if subsets := [name for name in names if name not in known and _is_subset(name)]:
    return subsets
  others = [name for name in names if name not in known]
  raise DataError(
    f'{where}: no column of scores in {names}: it is called score, or by the modalities that the '
    'model was given (rgb, rgb+depth, ...)'
    + (
      f'; if {" or ".join(others)} holds the scores, name it: --score_column=NAME' if others else ''
    )
  )


def _ignored(layout: csv_dialect.Layout, subsets: Sequence[str], text) -> tuple[str, ...]:
  known = {'', 'id', 'label', *METADATA, *text, *subsets}
  return tuple(name for name in layout.names if name not in known)


def _chunks(path: Path, layout: csv_dialect.Layout, styles: dict[str, dict], text, meaning):
  """Yields {column: [n] array} for some rows at a time, every cell checked.

  ('nan', subset) is added, [n] bool: true where a score is the text nan. Texts may be bytes of
  ASCII, see `plain_csv.join_texts`.
  """
  metadata = [name for name in layout.names if name in METADATA or name in text]
  n_before = 0
  for part in csv_dialect.read_parts(path, layout):
    batches = [part]
    if isinstance(part, plain_csv.Cells):
      if chunk := _plain_chunk(part, layout, styles, metadata, meaning, n_before):
        yield chunk
        n_before += len(part)
        continue
      batches = part.rows(csv_dialect.ROWS_AT_ONCE)
    for rows in filter(None, batches):
      yield _chunk(path, rows, layout, styles, metadata, meaning, n_before)
      n_before += len(rows)


def _plain_chunk(cells, layout, styles, metadata, meaning, n_before) -> dict | None:
  """As `_chunk`, of `plain_csv.Cells`; None where a cell needs a closer look."""
  place = {name: i for i, name in enumerate(layout.names)}
  chunk = {name: cells.column(place[name]) for name in ('id', *metadata)}
  texts = cells.column(place['label'])
  chunk['label'] = np.full(len(cells), -1, np.int8)
  while (left := np.flatnonzero(chunk['label'] < 0)).size:  # once for each spelling of a label
    try:
      label = LABELS.index(meaning.label(texts[left[0]].decode()))
    except KeyError:
      return None
    chunk['label'][texts == texts[left[0]]] = label
  for name in styles:
    numbers = csv_dialect.plain_numbers(cells, place[name], styles[name], n_before)
    if numbers is None:
      return None
    chunk[name], chunk['nan', name] = numbers, np.zeros(len(cells), bool)
  return chunk


def _chunk(path, rows, layout, styles, metadata, meaning, n_before) -> dict:
  """The columns of some rows, see `_chunks`."""
  number = {label: LABELS.index(label) for label in LABELS}
  column = dict(zip(layout.names, zip(*rows, strict=True), strict=True))
  chunk = {name: np.array(column[name], np.str_) for name in ('id', *metadata)}
  try:
    chunk['label'] = np.array([number[meaning.label(cell)] for cell in column['label']], np.int8)
  except KeyError as error:
    cell = error.args[0]
    at = csv_dialect.line_number(path, layout, n_before + column['label'].index(cell))
    raise DataError(f'{path}, row {at}: {meaning.unknown(cell)}') from None
  for name in styles:
    try:
      numbers = csv_dialect.parse_numbers(column[name], layout.delimiter, styles[name], n_before)
    except csv_dialect.CellError as error:
      at = csv_dialect.line_number(path, layout, n_before + error.at)
      raise DataError(
        f'{path}, row {at}: {name} is {column[name][error.at]!r}, {error} (an empty cell is a '
        'failure to acquire)'
      ) from None
    chunk[name], chunk['nan', name] = numbers
  return chunk


def _require_kinds_of_attacks(
  scores: Scores, row_number: Callable[[int], int] | None = None
) -> None:
  """Raises DataError for an attack whose kind is bona fide: its label or its kind is wrong.

  Args:
    scores: of some samples.
    row_number: of a sample in the file; None: only its id is stated.
  """
  for name in ('attack_type', 'attack_category'):
    column = getattr(scores, name)
    kinds, index = grouping.factorize(column)  # few among millions
    if not (wrong := [label_mapping.means_bona_fide(kind) for kind in kinds.tolist()]):
      continue
    at = np.flatnonzero(np.array(wrong)[index] & (scores.label == 0))
    if at.size:
      first = int(at[0])
      row = f', row {row_number(first)}' if row_number else ''
      raise DataError(
        f'{scores.path or "the scores"}{row}: {scores.ids[first]} is labelled attack, and its '
        f'{name} is {str(column[first])!r}, as in {at.size} rows. Correct the label (--labels '
        f'states what labels mean) or name the attack; leave {name} empty where it is unknown'
      )


def _check_ids(path: Path, ids: np.ndarray, row_number: Callable[[int], int]) -> None:
  """Raises DataError where an id is empty or there twice; `row_number` gives a sample's row."""
  if (empty := ids == '').any():
    raise DataError(f'{path}, row {row_number(int(np.argmax(empty)))}: the id is empty')
  if grouping.are_distinct(ids) or len(set(ids.tolist())) == len(ids):
    return
  _, first, index = np.unique(ids, return_index=True, return_inverse=True)
  again = np.flatnonzero(first[index] != np.arange(len(ids)))
  shown = [
    f'{ids[i]} in rows {row_number(int(first[index[i]]))} and {row_number(int(i))}'
    for i in again[:_SHOWN]
  ]
  if again.size > _SHOWN:
    shown.append(f'and {again.size - _SHOWN} more')
  raise DataError(f'{path}: every id must stand once: ' + '; '.join(shown))


def read_header(path: Path) -> dict:
  """The header in a file; {} where there is no such file, or it is a JSON of something else.

  Raises:
    DataError: a file that cannot be read, or a header that is damaged.
  """
  try:
    text = path.read_bytes().decode('utf-8', 'replace')
  except FileNotFoundError:
    return {}
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  try:
    header = json.loads(text)
  except (ValueError, RecursionError) as error:
    if _HEADER_KEY.search(text) or not _PAIR.search(text):
      raise DataError(
        f'{path}, the header of a score file, is damaged: {error}. Restore it, or remove it'
      ) from None
    return {}  # another program's file
  if not isinstance(header, dict) or 'list_hash' not in header:
    return {}
  for key in ('columns', 'not_recorded'):
    names = header.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
      raise DataError(f'{path}: {key} is {names!r}, and must be a list of names')
  return header
