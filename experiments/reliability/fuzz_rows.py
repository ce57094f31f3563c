"""Mutated lists and manifests: compares the rows that lint and the builder read with an oracle's.

The oracle has the form of the file before the mutation, and reads it with the csv module alone. A
row must be read as the oracle reads it, or a finding must name its line: no row is lost silently.
"""

import csv
import io
import json
import pathlib
import posixpath
import random
import re
from collections.abc import Iterable, Mapping

from experiments.reliability import fuzz_shards, mutations
from flexfas_jax import label_mapping, lint
from flexfas_jax.data.manifest import manifest_dataset_builder
from flexfas_jax.errors import DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import list_format, lists
from flexfas_jax.protocols.findings import severity
from flexfas_jax.schema import LABELS, MODALITIES

_WHOLE_BUILD = 0.02  # of the manifests are built
_WITH_IMAGES = 0.1  # of the manifests are linted with their images
_ROWS_OF_A_SPLIT = 14  # few enough to be read without worker processes
_CELLS = (
  '', ' ', '\xa0', '\u3000', '\u200b', '0', '1', '1.0', '+1', '01', '2', '-1', 'true', 'False',
  'live', 'Attack', 'attack ', 'bona_fide', 'BONA_FIDE', 'nan', 'None', 'train', 'dev', 'test',
  'all', 'x/y', '../x.png', '/etc/passwd', 'C:\\a.png', 'a\\b.png', './a.png', 'a//b.png',
  'gs://b/x.png', 'a,b', 'a;b', 'a\tb', 'a b', '"', '"a', 'a"b', "'", '#', '\n', '\r', 'a\nb',
  '=1+1', 'Zo\u0308e', 'Zo\xeb', '\u0661', '\U0001f600', '\ufeffx', 'x' * 3000, 'print',
  'rigidmask', '12', '0012', '99999999999999999999', 'Training/x',
)  # fmt: skip

Oracle = dict[int, dict[str, str] | None]  # by line: the cells by column; None: not of the form


class Lists:
  """Mutations of protocol lists, through lint."""

  def __init__(self, scratch: pathlib.Path):
    self._path, self._json = scratch / 'train.txt', scratch / 'lint.json'

  def __call__(self, rng: random.Random) -> tuple[str, str]:
    form = rng.choice(FORMS)
    self._path.write_bytes(_mutated(form, rng))
    labels = {'0': 'bona_fide', '1': 'attack'} if len(form.names) == 2 else None
    return compare_with_oracle(self._path, form, labels, self._json)

  def lines(self) -> list[str]:
    """Lines to report: none."""
    return []

  def bad(self) -> list[str]:
    """Nothing but what was counted as wrong."""
    return []


class Manifests(Lists):
  """Mutations of manifests, through lint, the plan of data/manifest, and whole builds."""

  def __init__(self, data_dir: str, scratch: pathlib.Path):
    super().__init__(scratch)
    self._path, self._n, self._scratch = scratch / 'manifest.csv', 0, scratch
    self._root = scratch / 'images'
    self._form = Form(*_write_images(data_dir, self._root), ',')

  def __call__(self, rng: random.Random) -> tuple[str, str]:
    self._path.write_bytes(_mutated(self._form, rng))
    look, whole = rng.random() < _WITH_IMAGES, rng.random() < _WHOLE_BUILD
    how, what = compare_with_oracle(
      self._path, self._form, None, self._json, self._root if look or whole else None
    )
    if how == 'wrong':
      return how, what
    planned, reason = self._plan()
    if how == 'refused' or planned != 'accepted':
      return (planned, reason) if planned != 'accepted' else (how, what)
    return self._build() if whole else (how, what)

  def _plan(self) -> tuple[str, str]:
    builder = manifest_dataset_builder.Builder(
      config='fuzz', data_dir=str(self._scratch / 'built'), file_format='array_record',
      source=str(self._root), lists=str(self._path),
    )  # fmt: skip
    try:
      plan = builder.plan()
    except DataError:
      return 'refused', 'plan'
    oracle = read(self._path.read_bytes(), self._form)
    errors = [f for f in plan.findings if severity(f.rule) == 'error']
    named = {f.row for f in errors}
    rows = {row.row: (row, split) for split, some in plan.splits.items() for row in some}
    if set(self._form.names) == oracle.names:
      for line, cells in oracle.rows.items():
        if line in named or 0 in named or line >= oracle.until:
          continue
        if line not in rows or cells is None:
          return (
            'wrong',
            'plan: a row is lost silently' if cells else 'plan: a bad row is read',
          )
        row, split = rows[line]
        expected = (_label(cells['label'], None), _below('fuzz', cells['subject']), _paths(cells))
        if expected != (row.facts['label'], row.facts['subject'], _paths(row.files)):
          return 'wrong', 'plan: a row is read differently'
        if split != (lists.split_name(cells['split'].strip()) or manifest_dataset_builder.SPLIT):
          return 'wrong', 'plan: a split is read differently'
    return ('refused', errors[0].rule) if errors else ('accepted', 'plan')

  def _build(self) -> tuple[str, str]:
    self._n += 1
    oracle = read(self._path.read_bytes(), self._form)
    data_dir, name = str(self._scratch / 'built'), f'manifest/fuzz{self._n}'
    try:
      sources.prepare(name, data_dir, source=str(self._root), lists=str(self._path), workers=1)
    except DataError:
      # A row without a split is in the split whole then; lint notes that it is not compared.
      if any(not (cells or {}).get('split', '').strip() for cells in oracle.rows.values()):
        return 'refused', 'prepare'
      return 'wrong', 'prepare refuses what lint and the plan accept'
    if set(self._form.names) != oracle.names:
      return 'accepted', 'built'
    built = 0
    for split in {cells['split'].strip() or 'whole' for cells in oracle.rows.values()}:
      source = sources.open_source(f'{name}:{lists.split_name(split)}', data_dir)
      built += len(source)
    return ('accepted', 'built') if built == len(oracle.rows) else ('wrong', 'a build lost rows')


class Form:
  """A sound list, and how it is written."""

  def __init__(self, names: tuple[str, ...], rows: list[list[str]], delimiter: str, header=True):
    self.names, self.rows, self.delimiter, self.header = names, rows, delimiter, header

  def content(self, rows: list[list[str]]) -> bytes:
    """The file with other rows, the header among them."""
    text = io.StringIO(newline='')
    if self.header:
      csv.writer(text, delimiter=self.delimiter, lineterminator='\n').writerows(rows)
    else:
      text.write(''.join(self.delimiter.join(row) + '\n' for row in rows))
    return text.getvalue().encode('utf-8', 'surrogatepass')


class Read:
  """What the oracle reads: names of columns, rows by line, and the line from which it cannot."""

  def __init__(self, names: Iterable[str], rows: Oracle, until: float = float('inf')):
    self.names, self.rows, self.until = set(names), rows, until


def compare_with_oracle(
  path: pathlib.Path,
  form: Form,
  labels: Mapping[str, str] | None,
  report: pathlib.Path,
  root: pathlib.Path | None = None,
) -> tuple[str, str]:
  """The results of lint and of the reader of lists, compared with the oracle's.

  Args:
    path: the mutated file.
    form: of the file before the mutation.
    labels: the label mapping.
    report: a file for lint's JSON.
    root: of the images; None: images are not read.
  """
  options = [f'--json={report}']
  if root:
    options.append(f'--root={root}')
  if labels:
    options.append('--labels=' + ','.join(f'{k}={v}' for k, v in labels.items()))
  code = lint.main([str(path), *options])
  if code not in (0, 3):
    return 'wrong', f'lint ends with {code}'
  whole = json.loads(report.read_text())
  errors = [f for f in whole['findings'] if severity(f['rule']) == 'error']
  if bool(errors) != (code == 3):
    return 'wrong', f'lint ends with {code} and has {len(errors)} errors'
  named, rows = {f['row'] for f in errors}, {}
  try:
    findings = []

    def report_finding(rule, line, _):
      findings.append((rule, line))

    rows = {row.line: row for row in lists.scan(path, labels, report_finding)}
    named |= {line for rule, line in findings if severity(rule) == 'error'}
  except DataError:
    return ('refused', 'row') if errors else ('wrong', 'lint accepts what cannot be read')
  oracle = read(path.read_bytes(), form)
  if oracle.names != set(form.names) or list_format.detect(path).names != form.names:
    return ('refused', errors[0]['rule']) if errors else ('another', 'a list of other columns')
  if text := _differ(rows, oracle, named, labels, path):
    return 'wrong', text
  if errors:
    return 'refused', errors[0]['rule']
  known = [cells for cells in oracle.rows.values() if cells]
  bona_fide = sum(_label(cells['label'], labels) == 'bona_fide' for cells in known)
  counted = whole['lists'][0]['rows'], whole['lists'][0]['bona_fide']
  if counted != (len(known), bona_fide):
    return 'wrong', f'lint counts {counted}, not {len(known), bona_fide}'
  return 'accepted', 'as it is written'


def _differ(rows, oracle: Read, named: set[int], labels, path: pathlib.Path) -> str:
  """The first difference between the reader of lists and the oracle; empty if there is none."""
  for line in sorted({*rows, *oracle.rows}):
    if line >= oracle.until or line in named:
      continue
    row, cells = rows.get(line), oracle.rows.get(line)
    if row is None:
      return '' if 0 in named else 'a row is lost silently'
    if cells is None:
      return 'a row is read that is not of the form'
    if _paths(row.paths) != _paths(cells):
      return 'a path is read differently'
    if row.label != _label(cells['label'], labels):
      return 'a label is read differently'
    if cells.get('subject', '').strip() and row.subject != _below(row.dataset, cells['subject']):
      return 'a subject is read differently'
    if cells.get('split', '').strip() and row.split != lists.split_name(cells['split'].strip()):
      return 'a split is read differently'
  if oracle.until < float('inf') and not any(line >= oracle.until for line in named):
    return 'a quoted cell that is not ended is read without a word'
  return ''


def read(content: bytes, form: Form) -> Read:
  """The oracle."""
  text = content.removeprefix(b'\xef\xbb\xbf').decode('utf-8', 'surrogateescape')
  if not form.header:
    rows = {}
    for line, one in enumerate(re.split('\r\n|\r|\n', text), 1):
      if one := one.strip(' \t'):
        cells = re.split('[ \t]+', one)
        if len(cells) != 4 and '\t' in one:
          cells = [cell.strip(' ') for cell in one.split('\t')]
        rows[line] = _row(form.names, cells)
    return Read(form.names, rows)
  delimiter = form.delimiter
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimiter, strict=True, skipinitialspace=True
  )
  names, rows, line = None, {}, 1
  try:
    for cells in reader:
      if any(map(str.strip, cells)):
        if names is None:
          names = [cell.strip(' \t').lower() for cell in cells]
          while not names[-1]:
            names.pop()
          if len(set(names)) < len(names):
            return Read((), {})
        else:
          rows[line] = _row(names, cells)
      line = reader.line_num + 1
  except csv.Error:
    return Read(names or (), rows, line)
  return Read(names or (), rows)


def _row(names, cells: list[str]) -> dict[str, str] | None:
  cells = [cell.strip(' \t') for cell in cells]
  while len(cells) > len(names) and not cells[-1].strip():
    cells.pop()
  if len(cells) != len(names) or any(
    c == '\ufeff' or '\ud800' <= c <= '\udfff' for c in ''.join(cells)
  ):
    return None
  return dict(zip(names, cells, strict=True))


def _label(cell: str, labels: Mapping[str, str] | None) -> str | None:
  """'bona_fide', 'attack', or None."""
  text = cell.strip().casefold()
  if text in LABELS:
    return text
  text = {'true': '1', 'false': '0'}.get(text, text)
  number = re.fullmatch(r'([+-]?[0-9]+)([.,]0*)?', text)
  return (labels or label_mapping.DEFAULT).get(str(int(number[1]))) if number else None


def _paths(cells: Mapping[str, str]) -> dict[str, str]:
  """The paths among cells, or of a row, in one spelling."""
  found = {m: cells[m].replace('\\', '/') for m in MODALITIES if cells.get(m)}
  return {m: p if '://' in p else posixpath.normpath(p) for m, p in found.items()}


def _below(dataset: str, subject: str) -> str:
  subject = subject.strip()
  whole = not dataset or not subject or subject.startswith(f'{dataset}/')
  return subject if whole else f'{dataset}/{subject}'


def _mutated(form: Form, rng: random.Random) -> bytes:
  rows = [list(row) for row in ([list(form.names)] if form.header else []) + form.rows]
  if rng.random() < 0.5:
    return mutations.of_text(form.content(rows), rng)
  first = int(form.header)
  for _ in range(rng.choice((1, 1, 2, 4))):
    row = rows[rng.randrange(first, len(rows))] if rng.random() < 0.9 else rows[0]
    at, how = rng.randrange(len(row)) if row else 0, rng.randrange(9)
    if how < 4 and row:
      row[at] = rng.choice(_CELLS)
    elif how == 4 and row:
      del row[at]
    elif how == 5:
      row.insert(at, rng.choice(_CELLS))
    elif how == 6:
      rows.insert(rng.randrange(first, len(rows)), list(rng.choice(rows)))
    elif how == 7:
      del rows[rng.randrange(len(rows))]
    elif row:  # a cell of another row
      row[at] = rng.choice((rng.choice(rows) or [''])[at : at + 1] or [''])
  return form.content(rows)


def _surf(row: int) -> tuple[list[str], str]:
  """The paths of a row in the layout of CASIA-SURF, and its label."""
  live, subject, frame = row % 2, 100 + row // 4, 1 + row % 7
  kind = 'real_part' if live else 'fake_part'
  clip = 'real' if live else '04_en_b'
  below = f'Training/{kind}/CLKJ_AS{subject:04d}/{clip}.rssdk'
  return [f'{below}/{m}/{frame}.jpg' for m in ('color', 'depth', 'ir')], str(live)


def _cefa(row: int) -> tuple[list[str], str]:
  live, subject, frame = row % 2, row // 4, 1 + row % 7
  below = f'train/1_{subject:03d}_1_1_{1 if live else 4}'
  return [f'{below}/{m}/{frame:04d}.jpg' for m in ('profile', 'depth', 'ir')], str(live)


def _own(row: int) -> tuple[list[str], str]:
  live, subject, frame = row % 2, row // 4, row % 7
  below = f'Zo\xeb {subject}' if row % 8 == 3 else f'client {subject}, a'
  return [f'{below}/{m}/{row}_{frame}.png' for m in MODALITIES], ('attack', 'bona_fide')[live]


_FOUR = (*MODALITIES, 'label')
_OWN = [[*paths, label, f'p{row // 4}', ('train', 'val')[row // 4 % 2]]
        for row in range(40) for paths, label in [_own(row)]]  # fmt: skip
FORMS = (
  Form(_FOUR, [[*paths, label] for paths, label in map(_surf, range(40))], ' ', False),
  Form(_FOUR, [[*paths, label] for paths, label in map(_surf, range(40))], '\t', False),
  Form(_FOUR, [[*paths, label] for paths, label in map(_cefa, range(40))], ' ', False),
  Form(('rgb', 'label'), [[paths[0], str(1 - int(label))]
                          for paths, label in map(_surf, range(40))], ' ', False),
  Form((*_FOUR, 'subject', 'split'), _OWN, ','),
  Form((*_FOUR, 'subject', 'split'), _OWN, ';'),
  Form((*_FOUR, 'subject', 'split'), _OWN, '\t'),
)  # fmt: skip


def _write_images(data_dir: str, root: pathlib.Path) -> tuple[tuple[str, ...], list[list[str]]]:
  """Writes the images of rendered sets; returns the names of columns and the rows about them."""
  names = (*MODALITIES, 'label', 'attack_type', 'attack_category', 'subject', 'video', 'frame',
           'split')  # fmt: skip
  rows = []
  for split in ('train', 'val'):
    source = sources.open_source(f'rendered_faces/{fuzz_shards.CONFIG}:{split}', data_dir)
    for i in range(_ROWS_OF_A_SPLIT):
      one, paths = source[i], []
      for modality in MODALITIES:
        suffix = 'png' if one[modality].startswith(b'\x89PNG') else 'jpg'
        path = f'{one["id"]}/{modality}.{suffix}'
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(one[modality])
        paths.append(path)
      kind = [one['attack_type'], one['attack_category'], one['subject'], one['video']]
      rows.append([*paths, LABELS[one['label']], *kind, str(one['frame']), split])
  return names, rows
