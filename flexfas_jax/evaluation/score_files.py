"""Score files: what a model said of every sample, under every subset of modalities, as text.

`NAME.csv` holds one row per sample: `id,dataset,subject,video,label,attack_type,attack_category`,
`ethnicity` where it is known, then one column per subset (`rgb`, `rgb+depth`, ...). `NAME.json`
beside it is the header: which weights, which list of samples, which config, and under `columns` the
names of further columns of text, which people may be grouped by.

A score is the probability of bona fide: high means accept. A label is `bona_fide` or `attack` (1
and 0 are read too, 1 being bona fide). An empty score is a failure to acquire; a subset whose
column is empty throughout is one that the model cannot serve. `nan` is a number that went wrong,
never an outcome: it is read, and remembered as such.

Any framework's CSV with `id,label,score` is a score file, header or not, its cells separated by
commas or tabs. It may have any of the columns above; others are ignored beside `score`, where no
column but it holds scores. Labels of other names, and scores that are high for attacks, are read
where the reader is told so; nothing is guessed.
"""

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import flexfas_jax
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.schema import LABELS, METADATA

POLARITY = 'high is bona fide'

_NUMBER_OF = {'attack': 0, 'bona_fide': 1, '0': 0, '1': 1}
_ROWS_AT_ONCE = 2048  # few enough to stay in the cache while rows are turned to columns
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
  # What stands in the header: weights_hash, list_hash, config, polarity, code_version.
  header: dict = dataclasses.field(default_factory=dict)
  path: Path | None = None  # the file that these were read from
  # By subset: [n] int64, the samples whose NaN is a fault of the model, not a failure to acquire.
  nan_samples: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    keep = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
    keep('ids', np.asarray(self.ids, np.str_))
    label = np.asarray(self.label)
    if not np.isin(label, (0, 1)).all():
      raise ValueError('a label is 1 (bona fide) or 0 (attack)')
    keep('label', label.astype(np.int8))
    keep('scores', {name: np.asarray(s, np.float64) for name, s in self.scores.items()})
    for name in METADATA:
      value = getattr(self, name)
      keep(name, np.full(len(self.ids), '') if value is None else np.asarray(value, np.str_))

    keep('nan_samples', {n: np.asarray(at, np.int64) for n, at in self.nan_samples.items()})
    keep('extra', {name: np.asarray(values, np.str_) for name, values in self.extra.items()})
    arrays = {name: getattr(self, name) for name in ('ids', 'label', *METADATA)}
    arrays |= self.extra | self.scores
    for name, array in arrays.items():
      if array.shape != (len(self.ids),):
        raise ValueError(f'{name} has shape {array.shape}, not [{len(self.ids)}]')
    if bad := {'id', 'label', *METADATA, *self.extra} & self.scores.keys():
      raise ValueError(f'a subset cannot be called {sorted(bad)}')
    if not self.scores or ('score' in self.scores and len(self.scores) > 1):
      raise ValueError('there must be scores; a subset called score is the only one')

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
  return Path(path).with_suffix('.json')


@dataclasses.dataclass(frozen=True)
class Dialect:
  """How another framework's file is to be understood."""

  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # its name: one of LABELS
  high_is_attack: bool = False  # scores become 1 - score
  text: tuple[str, ...] = ()  # columns that hold no scores


OURS = Dialect()


def number_of(cell: str, dialect: Dialect = OURS) -> int | None:
  """What a label's text means: 1 bona fide, 0 attack; None: it means nothing."""
  of = dialect.labels.get(cell)
  return _NUMBER_OF.get(cell) if of is None else LABELS.index(of)


def read(path, dialect: Dialect = OURS) -> Scores:
  """Reads a score file and the header beside it, where there is one.

  Args:
    path: the CSV, UTF-8 (a byte order mark and CRLF are fine). Errors count rows as lines of the
      file: the row of names is row 1.
    dialect: what is other than in our own files.

  Returns:
    `Scores`, in the order of the file.

  Raises:
    DataError: with file and row, for anything that is not such a file; or a header that speaks of
      other samples or of scores of the other polarity.
  """
  path = Path(path)
  reader = None
  number_of = _NUMBER_OF | {name: LABELS.index(of) for name, of in dialect.labels.items()}
  header = read_header(header_path(path))
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = _reader(file)
      names = next(reader, [])
      text = [n for n in names if n in (*header.get('columns', ()), *dialect.text)]
      subsets = _subsets(path, names, text)
      chunks = list(_chunks(path, reader, names, subsets, text, number_of))
  except UnicodeDecodeError as error:
    raise DataError(f'{path} is not a CSV: it is not UTF-8 text ({error.reason})') from error
  except csv.Error as error:
    raise DataError(f'{path}, row {reader.line_num}: not a CSV ({error})') from error
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if not chunks:
    raise DataError(f'{path} is empty: it names its columns and has no samples')

  column = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
  ids, label = column['id'], column['label']
  _check_ids(path, ids, lambda sample: _row(path, sample))
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
  turned = (lambda score: 1 - score) if dialect.high_is_attack else (lambda score: score)
  return Scores(
    ids=ids,
    label=label,
    scores={name: turned(column[name]) for name in subsets},
    **{name: column.get(name) for name in METADATA},
    extra={name: column[name] for name in text if name not in METADATA},
    header=header,
    path=path,
    nan_samples={name: at for name in subsets if (at := np.flatnonzero(column['nan', name])).size},
  )


def read_columns(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
  """{id: {column: text}} of CSV files with a column `id`, e.g. the manifests of prepared sets.

  Raises:
    DataError: a file that cannot be read, without that column, or with another value for an id.
  """
  found = {}
  for path in map(Path, paths):
    try:
      with path.open(encoding='utf-8-sig', newline='') as file:
        reader = _reader(file)
        names = next(reader, [])
        if 'id' not in names:
          raise DataError(f'{path}, row 1: no column id in {names}')
        for row in filter(None, reader):
          if len(row) != len(names):
            raise DataError(
              f'{path}, row {reader.line_num}: {len(row)} cells where row 1 has {len(names)}'
            )
          cells = dict(zip(names, row, strict=True))
          id_ = cells.pop('id')
          if found.setdefault(id_, cells) != cells:
            raise DataError(
              f'{path}, row {reader.line_num}: {id_} stands elsewhere with other cells'
            )
    except (UnicodeDecodeError, csv.Error) as error:
      raise DataError(f'{path} is not a CSV: {error}') from error
    except OSError as error:
      raise DataError(f'{path} cannot be read: {error.strerror}') from error
  return found


def joined(scores: Scores, columns: Mapping[str, Mapping[str, str]]) -> Scores:
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
  return dataclasses.replace(
    scores,
    **{name: np.where(own == '', of[name], own) for name, own in known.items()},
    extra={**{n: v for n, v in of.items() if n not in taken}, **scores.extra},
  )


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


def write_text(path: Path, text: str) -> None:
  """Writes a file that is never seen half written: a temporary one beside it takes its place."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with temporary.open('w', encoding='utf-8', newline='') as file:
      file.write(text)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def _reader(file):
  """A CSV reader, of tabs where the first line has some and no comma."""
  first = file.readline()
  file.seek(0)
  tabs = '\t' in first and ',' not in first
  return csv.reader(file, strict=True, delimiter='\t' if tabs else ',')


def _subsets(path: Path, names: list[str], text: Sequence[str] = ()) -> list[str]:
  """The columns that hold scores, by the first row of a file."""
  if not names:
    raise DataError(f'{path} is empty: its first row must name the columns')
  if missing := {'id', 'label'} - set(names):
    raise DataError(
      f'{path}, row 1: no column {sorted(missing)} in {names}; '
      'id, label and a column per subset of modalities (or score), separated by commas'
    )
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise DataError(f'{path}, row 1: the columns {twice} are there twice')
  if 'score' in names:
    return ['score']
  subsets = [name for name in names if name not in ('id', 'label', *METADATA, *text)]
  if not subsets:
    raise DataError(f'{path}, row 1: no column of scores in {names}')
  return subsets


def _chunks(path: Path, reader, names: list[str], subsets: list[str], text, number_of):
  """Yields {column: [n] array} for some rows at a time, every cell checked.

  ('nan', subset) is added, [n] bool: true where a score is the text nan.
  """
  metadata = [name for name in names if name in METADATA or name in text]
  n_before = 0
  while rows := list(itertools.islice(reader, _ROWS_AT_ONCE)):
    rows = list(filter(None, rows))  # without empty lines
    for i, row in enumerate(rows):
      if len(row) != len(names):
        at = _row(path, n_before + i)
        raise DataError(f'{path}, row {at}: {len(row)} cells where row 1 has {len(names)}')
    column = dict(zip(names, zip(*rows, strict=True), strict=False))  # rows may all be empty
    column = {name: column.get(name, ()) for name in names}
    chunk = {name: np.array(column[name], np.str_) for name in ('id', *metadata)}
    try:
      chunk['label'] = np.array([number_of[cell] for cell in column['label']], np.int8)
    except KeyError as error:
      at = _row(path, n_before + column['label'].index(error.args[0]))
      raise DataError(
        f'{path}, row {at}: label {error} is neither bona_fide or 1, nor attack or 0; what else '
        'the labels mean has to be told, e.g. --labels=live=bona_fide,spoof=attack'
      ) from None
    for name in subsets:
      numbers, nan, wrong = _numbers(column[name])
      if wrong is not None:
        raise DataError(
          f'{path}, row {_row(path, n_before + wrong)}: {name} is {column[name][wrong]!r}, not a '
          'finite number (an empty cell is a failure to acquire; a column of text that is not to '
          f'be judged: --group_by={name})'
        )
      chunk[name], chunk['nan', name] = numbers, nan
    yield chunk
    n_before += len(rows)


def _numbers(cells: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, int | None]:
  """A column's scores, [n] float64; where they are the text nan, [n] bool; a cell that is wrong."""
  try:
    numbers = np.array([float(cell or 'nan') for cell in cells], np.float64)
  except ValueError:
    return *np.empty((2, 0)), next(i for i, cell in enumerate(cells) if not _is_number(cell))
  if (infinite := np.isinf(numbers)).any():
    return numbers, infinite, int(np.argmax(infinite))
  nan = np.isnan(numbers)
  nan[nan] = [cells[i] != '' for i in np.flatnonzero(nan)]
  return numbers, nan, None


def _row(path: Path, sample: int) -> int:
  """The line of a file that a sample ends on. Reading again costs only those who made an error."""
  with path.open(encoding='utf-8-sig', newline='') as file:
    reader = _reader(file)
    next(itertools.islice(filter(None, reader), sample + 1, None))  # the names are no sample
    return reader.line_num


def _is_number(cell: str) -> bool:
  try:
    float(cell or 'nan')
  except ValueError:
    return False
  return True


def _check_ids(path: Path, ids: np.ndarray, row_of: Callable[[int], int]) -> None:
  """Raises DataError where an id is empty or there twice; `row_of` gives a sample's row."""
  if (empty := ids == '').any():
    raise DataError(f'{path}, row {row_of(int(np.argmax(empty)))}: the id is empty')
  if len(set(ids.tolist())) == len(ids):
    return
  _, first, index = np.unique(ids, return_index=True, return_inverse=True)
  again = np.flatnonzero(first[index] != np.arange(len(ids)))
  shown = [
    f'{ids[i]} in rows {row_of(int(first[index[i]]))} and {row_of(int(i))}' for i in again[:_SHOWN]
  ]
  if again.size > _SHOWN:
    shown.append(f'and {again.size - _SHOWN} more')
  raise DataError(f'{path}: every id must stand once: ' + '; '.join(shown))


def read_header(path: Path) -> dict:
  """The header in a file; {} where there is no such file, or it is a JSON of something else."""
  try:
    header = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return {}
  except (OSError, ValueError) as error:
    raise DataError(f'{path}, the header of a score file, is damaged: {error}') from error
  return header if isinstance(header, dict) and 'list_hash' in header else {}
