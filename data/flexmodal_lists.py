"""The published FlexModal lists as plans: three data sets share them, and so do their builders.

The lists sample most videos at three frames and name the images of the authors' exports. They
have faults, which were counted: redundant rows (20 in train, 60 in test), and one file of subject
AF-300 both in val and in test. A plan is either cleaned of them, or as published, so that figures
weigh as the papers' do; which of the two, and how much it is about, goes on the card.
"""

import collections
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from flexfas_jax import label_mapping
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import DataError
from flexfas_jax.protocols import list_format, lists, path_layouts, relative_paths
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint import linter

SURF_CEFA = {split: f'CASIA-SURF_CeFA_{split}.txt' for split in ('train', 'val', 'test')}
WMCA = {'test': 'WMCA_test.txt'}
LEAK = 'flexmodal_v1'  # a name of `linter.KNOWN_LEAKS`
# Videos whose modalities are numbered apart from each other.
MISMATCHED = linter.EXCEPTIONS['wmca_frame_indices']


def plan(builder: SourceBuilder, dataset: str, lists: Mapping[str, str], published: bool) -> Plan:
  """The triplets of one data set in the FlexModal lists.

  Args:
    builder: its `source` is the folder that the lists' paths start from; its `lists`, a folder or
      files separated by commas, is where the lists are, or else the source. A published plan
      makes it accept the known leak.
    dataset: 'casia_surf', 'casia_cefa' or 'wmca': rows of others are passed over.
    lists: {split: name of the list's file}, as `SURF_CEFA` and `WMCA`.
    published: keep the faults of the lists. A redundant row is an example of its own, '#2' or '#3'
      behind its id.

  Raises:
    DataError: a list is not there, or the source is not what its paths start from.
  """
  files = find(builder, lists)
  made = Plan({}, recorded={'lists': {}})
  for split, path in files.items():
    form = list_format.detect(path)
    made.recorded['lists'][path.name] = form.sha256
    made.lists.add(str(path))
    rows = list(_rows(path, form, dataset, made.findings))
    if leaks := _leaks(split, rows):
      ids = ', '.join(row.facts['id'] for row in leaks)
      if published:
        builder.accept_known_leaks = (*builder.accept_known_leaks, LEAK)
      else:
        rows = [row for row in rows if row not in leaks]
      done = f'kept: the known leak {LEAK}' if published else 'left out'
      made.notes.append(f'{path.name}: {ids}, which is of another split, {done}')
    made.splits[split] = _repeated(rows, path.name, published, made.notes)
  _check_source(builder.source, made)
  if dataset == 'wmca':
    made.splits = {
      split: _what_is_there(builder.source, rows, made.notes) for split, rows in made.splits.items()
    }
  return made


def find(builder: SourceBuilder, lists: Mapping[str, str]) -> dict[str, Path]:
  """Where lists are: --lists or the source, and Protocols below either.

  Args:
    builder: its `lists`, a folder or files separated by commas, or its `source`.
    lists: {split: name of a file}; capital letters do not matter.

  Raises:
    DataError: some are not there; all of them are named.
  """
  places = [Path(part) for part in str(builder.lists or builder.source).split(',')]
  there = {}
  for file in _candidates(places):
    there.setdefault(file.name.lower(), file)
  if missing := [name for name in lists.values() if name.lower() not in there]:
    where = ', '.join(map(str, places))
    raise DataError(
      f'{where}: no {", ".join(missing)} there or in Protocols below; name the folder of the '
      'published FlexModal lists with --lists=DIR'
    )
  return {split: there[name.lower()] for split, name in lists.items()}


def _candidates(places: list[Path]) -> Iterator[Path]:
  for place in places:
    if place.is_file():
      yield place
    elif place.is_dir():
      below = sorted(place.iterdir())
      yield from (path for path in below if path.is_file())
      for folder in below:
        if folder.name.lower() == 'protocols' and folder.is_dir():
          yield from (path for path in sorted(folder.iterdir()) if path.is_file())
    else:
      raise DataError(f'--lists: there is no {place}')


def _rows(path: Path, form, dataset: str, findings: list[Finding]) -> Iterator[SourceRow]:
  """The rows of one data set that are sound; findings get what is wrong with the others."""

  wrong_rows = collections.defaultdict(list)

  def found(rule: str, line: int, text: str) -> None:
    text = label_mapping.strip_advice(text)
    wrong_rows[line].append(Finding(rule, str(path), line, text))

  for row in lists.scan(path, None, found, form=form):
    if row.dataset and row.dataset != dataset:
      wrong_rows.pop(row.line, None)
      continue
    wrong = _contradictions(row)
    for rule, text in wrong:
      found(rule, row.line, text)
    outside = any(relative_paths.leaves_root(file) for file in row.paths.values())
    if row.label and not wrong and not outside:  # `scan` has reported these
      yield SourceRow(row.example_fields(), row.paths, str(path), row.line)
  findings += itertools.chain.from_iterable(wrong_rows.values())


def _contradictions(row: lists.ListRow) -> list[tuple[str, str]]:
  """(rule, text) of contradictions between the parts of a row."""
  if not row.parsed_path:
    return [('row', f'{next(iter(row.paths.values()))} is of no layout that is known')]
  wrong = []
  parsed = {modality: path_layouts.parse(path) for modality, path in row.paths.items()}
  for modality, one in parsed.items():
    if one is None or one.id != row.parsed_path.id:
      wrong.append(('triplet', f'{row.paths[modality]} is not of {row.parsed_path.id}'))
    elif one.modality != modality:
      wrong.append(('swapped', f'{row.paths[modality]} is in the column of {modality}'))
  if row.label and row.label != row.parsed_path.label:
    wrong.append(('label', f'{row.label}, and the path of {row.id} means {row.parsed_path.label}'))
  return wrong


def _leaks(split: str, rows: list[SourceRow]) -> list[SourceRow]:
  """The rows of a split that are of the known leak, and belong in another split."""
  known = {
    parsed.id
    for file, splits in linter.KNOWN_LEAKS[LEAK]
    if split in splits and (parsed := path_layouts.parse(file)).part != split
  }
  return [row for row in rows if row.facts['id'] in known]


def _repeated(
  rows: list[SourceRow], name: str, published: bool, notes: list[str]
) -> list[SourceRow]:
  """Redundant rows dropped, or given ids of their own."""
  seen = collections.Counter()
  kept, redundant = [], 0
  for row in rows:
    id_ = row.facts['id']
    seen[id_] += 1
    if seen[id_] == 1:
      kept.append(row)
      continue
    redundant += 1
    if published:
      kept.append(row._replace(facts={**row.facts, 'id': f'{id_}#{seen[id_]}'}))
  if redundant:
    twice = sum(n > 1 for n in seen.values())
    done = 'kept, with #2, #3 behind their ids' if published else 'left out'
    notes.append(f'{name}: {redundant} redundant rows, of {twice} triplets, {done}')
  return kept


def _check_source(source: Path, made: Plan) -> None:
  """Checks that the lists' paths start at the source, before each missing file is reported."""
  rows = [row for rows in made.splits.values() for row in rows]
  paths = [path for row in rows for path in row.files.values()]
  starts = sorted({path.split('/')[0] for path in paths})
  if not starts or any((source / start).is_dir() for start in starts):
    return
  hint = f'; give the folder above, {source.resolve().parent}' if source.name in starts else ''
  raise DataError(
    f'--source={source} has no folder {" or ".join(starts)}. It is the folder that the paths of '
    f'the lists start from, e.g. {paths[0]}{hint}'
  )


def _what_is_there(source: Path, rows: list[SourceRow], notes: list[str]) -> list[SourceRow]:
  """Takes absent files out of the videos whose frames are known not to match."""
  kept = []
  lacking = collections.Counter()
  for row in rows:
    if row.facts['video'] in MISMATCHED:
      there = {
        m: p for m, p in row.files.items() if os.path.exists(relative_paths.locate(source, p))
      }
      if there and len(there) < len(row.files):  # nothing at all there: missing as any other
        row = row._replace(files=there)
        lacking[row.facts['video']] += 1
    kept.append(row)
  for video, n in sorted(lacking.items()):
    notes.append(f'{video}: {n} triplets lack a modality; its frames are known not to match')
  return kept
