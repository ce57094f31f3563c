"""Base of the builders of data sets on disk, in the layouts of their distributors.

A subclass defines the triplets (`plan`) and the requirements on images (`RULES`). Reading on all
cores or on Beam, checks, the report of errors and the card are shared:

    class Builder(SourceBuilder):
      VERSION = tfds.core.Version('1.0.0')
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='release', description='...')]
      MANUAL_DOWNLOAD_INSTRUCTIONS = 'Signed agreement with ...; then --source=DIR'
      RULES = image_checks.Rules(bits={'rgb': 8, 'depth': 8, 'ir': 8})

      def plan(self):
        return Plan({'train': [SourceRow(...), ...]})

All errors are reported at once, and a failed build leaves no partial set.
"""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flexfas_jax import csv_dialect, schema
from flexfas_jax.data import features, reading, shared_images, triplets
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import files as image_files
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.protocols import lists, path_layouts, relative_paths
from flexfas_jax.protocols.findings import RULES as MEANING
from flexfas_jax.protocols.findings import WARNINGS, Finding, write_csv
from flexfas_jax.protocols.lint import linter

_TASK = 16  # triplets per task of a worker
_SHOWN = 20  # findings that an error lists; the report has all
_FINDINGS = 'findings'  # prefix of the files that Beam's workers write


@dataclasses.dataclass
class Plan:
  """The triplets of a source, before their images are read.

  Attributes:
    splits: {split: rows}, in the order of the source; empty splits are left out of the set.
    findings: errors in lists and folders, with the rules of `findings.RULES`. A finding with
      an id is about that sample or video, and one with a row of `lists` about the sample of that
      row: with on_bad='skip' these are left out, whether or not they are in `splits`.
    notes: information for the user, one line each, for the card.
    recorded: facts about the whole set (versions of lists, crop recipe), for the card.
    lists: files of which every row is a sample, without protocol lists, which only mark samples.
  """

  splits: dict[str, list[SourceRow]]
  findings: list[Finding] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  recorded: dict[str, Any] = dataclasses.field(default_factory=dict)
  lists: set[str] = dataclasses.field(default_factory=set)


class SourceBuilder(triplets.TripletBuilder, skip_registration=True):
  """Base of the builders of data sets on disk.

  Args:
    source: the folder of the unpacked data set.
    lists: protocol list files or a folder of them; None: the places that the builder documents.
    on_bad: 'fail': any error ends the build; 'skip': triplets with errors are left out and listed.
      Leaks, and channels that are exchanged in the whole source, always end it.
    accept_known_leaks: names of `linter.KNOWN_LEAKS` to accept.
    manifest: manifest.csv of an earlier preparation of the same set; other bytes are errors.
    options: fields of `OPTIONS`, e.g. facts that the source does not contain.
    max_pixels: limit of each image's width times height, checked before it is decoded.
    workers: reading processes; None takes one per core.
    **kwargs: TFDS's own.
  """

  RULES = image_checks.Rules()
  OPTIONS: Mapping[str, str] = {}  # {name: default}; documented in the builder's README
  # Whether images that two splits share are a leak or, in collections from the web, a note.
  SHARED_IMAGES_LEAK = True

  def __init__(
    self,
    *,
    source: str | None = None,
    lists: str | None = None,
    on_bad: str = 'fail',
    accept_known_leaks: Iterable[str] = (),
    manifest: str | None = None,
    options: Mapping[str, str] | None = None,
    max_pixels: int = image_files.MAX_PIXELS,
    workers: int | None = None,
    **kwargs,
  ):
    if on_bad not in ('fail', 'skip'):
      raise ConfigError(f'on_bad is {on_bad!r}; choose fail or skip')
    if unknown := set(options or {}) - set(self.OPTIONS):
      has = ', '.join(self.OPTIONS) or 'none'
      raise ConfigError(f'{self.name} has no option {sorted(unknown)[0]!r}; it has: {has}')
    self.source = pathlib.Path(source) if source else None
    self.lists = pathlib.Path(lists) if lists else None
    self.on_bad, self.manifest = on_bad, manifest
    self.accept_known_leaks = tuple(accept_known_leaks)
    self.options = {**self.OPTIONS, **(options or {})}
    self.max_pixels = image_files.check_pixel_limit(max_pixels)
    self._workers = workers
    super().__init__(**kwargs)

  def plan(self) -> Plan:
    """Lists the triplets of the source from its folders and lists, without reading images.

    Raises:
      DataError: the source has another layout; the message describes the expected one.
    """
    raise NotImplementedError

  def reader(self) -> reading.Reader:
    """The reader of rows; a subclass of `reading.Reader` if images are in containers."""
    return reading.Reader(str(self.source), self.RULES)

  def _reader(self) -> reading.Reader:
    return dataclasses.replace(
      self.reader(), max_pixels=self.max_pixels, pinned=bool(self.manifest)
    )

  def download_and_prepare(self, **kwargs):
    """As in TFDS, with worker processes.

    Raises:
      ConfigError: no source.
      DataError: the source does not exist or has errors; no partial set is left.
    """
    if self.data_path.exists():
      return
    if self.source is None:
      raise ConfigError(
        f'{self.name} requires the files of the data set: name their folder with --source=DIR. '
        f'{self.MANUAL_DOWNLOAD_INSTRUCTIONS.strip()}'
      )
    if not self.source.is_dir():
      raise DataError(f'--source={self.source}: there is no such folder')
    with Workers(self._workers) as self._pool:
      super().download_and_prepare(**kwargs)

  def _split_generators(self, dl_manager):
    plan = self.plan()
    self._findings, self._nothing = list(plan.findings), False
    self._stored = frozenset()  # findings about stored samples
    self._notes, self._recorded = list(plan.notes), dict(plan.recorded)
    plan.splits = {split: rows for split, rows in plan.splits.items() if rows}
    if not plan.splits:
      layout = self.MANUAL_DOWNLOAD_INSTRUCTIONS.strip()
      nothing = f'{self.source} holds no triplet of {self.name}. {layout}'
      if plan.findings:
        nothing += '\n' + self._report(plan.findings)
      raise DataError(nothing)
    self._check_root(plan.splits)
    if self.manifest:
      plan.splits, found = _with_expected_digests(plan.splits, self.manifest)
      plan.findings += found
      self._findings += found
    checked = _check(plan.splits, self.accept_known_leaks)
    self._findings += checked.findings
    self._notes += checked.notes
    sound, absent = _without_findings(plan, checked.faulty)
    self._listed = absent + sum(map(len, plan.splits.values()))
    # Of every file that is named, for `relative_paths.group_missing`.
    self._files = collections.Counter(
      itertools.chain.from_iterable(row.files for rows in plan.splits.values() for row in rows)
    )
    if self.on_bad == 'skip':
      plan.splits = sound
      if not all(sound.values()):
        raise DataError(self._report([f for f in self._findings if f.rule not in WARNINGS]))
    self._rows = {}  # {(split, id): row} of stored samples
    self.extra = {row.facts['id']: row.extra for rows in plan.splits.values() for row in rows}
    # With on_bad='fail', rows with findings are read too, so that one report lists all errors.
    if self._beam_runner:
      self._rows = {
        (split, row.facts['id']): row
        for split, rows in plan.splits.items()
        for row in _unique(rows)
      }
      self._order = [
        (row.facts['id'], row.list, row.row) for rows in plan.splits.values() for row in rows
      ]
      return {
        split: _read_on_beam(self._reader(), rows, f'{self.data_path}/{_FINDINGS}-{split}')
        for split, rows in plan.splits.items()
      }
    self._planned = {
      split: (len(rows), self._read(split, rows)) for split, rows in plan.splits.items()
    }
    return super()._split_generators(dl_manager)

  def _check_root(self, splits: Mapping[str, list[SourceRow]]) -> None:
    """Refuses a source without any of the files, with one line for all of them."""
    reader, rows = self._reader(), list(itertools.chain.from_iterable(splits.values()))
    paths = [path for row in rows for path in row.files.values()]
    if len(paths) > 3 and not any(map(reader.exists, paths)):
      where = relative_paths.suggest_root(self.source, paths[0].partition('#')[0])
      text = f'none of the {len(paths):,} files is below {self.source}, {where}'
      self._findings.append(Finding('missing-file', rows[0].list, 0, text))
      raise DataError(self._report([f for f in self._findings if f.rule not in WARNINGS]))

  def _splits(self, dl_manager):
    return self._planned

  def _read(self, split: str, rows: list[SourceRow]) -> Iterator[tuple[str, features.Example]]:
    tasks = (rows[i : i + _TASK] for i in range(0, len(rows), _TASK))
    with_fingerprint = self.SHARED_IMAGES_LEAK
    task = functools.partial(reading.read_and_describe, self._reader(), with_fingerprint)
    outcomes = itertools.chain.from_iterable(self._pool.map(task, tasks, few=8))
    good, seen = 0, set()
    for row, read in zip(rows, outcomes, strict=True):
      self._findings += self._findings_of(row, read.problems)
      id_ = row.facts['id']
      if read.described and id_ not in seen:
        good += 1
        seen.add(id_)
        self._rows[split, id_] = row
        if read.extra != row.extra:  # equal ones are shared
          self.extra[id_] = read.extra
        yield id_, {**row.facts, **read.images, triplets.DESCRIBED: read.described}
      else:
        yield triplets.SKIPPED
    if not good:
      # TFDS cannot write a split of nothing; the build fails when all splits have been read.
      self._nothing = True
      yield rows[0].facts['id'], {**rows[0].facts, 'rgb': b'nothing'}

  def _findings_of(
    self, row: SourceRow, problems: Sequence[image_checks.Problem]
  ) -> list['Finding | _MissingFiles']:
    """The findings of a row; of missing files that will be grouped, in little memory."""
    if not problems or self.on_bad == 'skip':
      return make_findings(row, problems)
    missing = {('missing-file', f'{m} {path}'): m for m, path in row.files.items()}
    if not all(problem in missing for problem in problems):
      return make_findings(row, problems)
    return [_MissingFiles(row, _share_modalities(*map(missing.get, problems)))]

  def _finish(self):
    """Fails, or completes the set with its card and the list of omitted samples."""
    if self._beam_runner:
      found, self._nothing = _collect_beam_findings(self.data_path, self._order, self.extra)
      self._findings += found
    records = []
    if not self._nothing:
      records = self.read_back(with_fingerprint=self.SHARED_IMAGES_LEAK)
      found = shared_images.find(records, self._rows, self.SHARED_IMAGES_LEAK)
      self._findings += found
      self._stored = frozenset(found)
    if self.on_bad == 'fail':  # with 'skip', each omitted row is listed
      self._findings = self._grouped(self._findings)
    wrong = [f for f in self._findings if f.rule not in WARNINGS]
    if self.on_bad == 'fail' or self._nothing:
      fatal = wrong
    else:  # stored samples cannot be left out any more
      fatal = [f for f in wrong if _ends_the_build(f) or f in self._stored]
    if fatal:
      raise DataError(self._report(fatal))
    if self._findings:
      mask = path_layouts.without_cards  # this file is distributed with the set
      masked = [f._replace(list=mask(f.list), text=mask(f.text)) for f in self._findings]
      write_csv(self.data_path / 'bad_files.csv', masked)
    self._failed()[1].unlink(missing_ok=True)  # of an earlier attempt
    counts = collections.Counter(finding.rule for finding in self._findings)
    self._note_converted()
    recorded = {
      'source': self.source.name,
      'options': self.options,
      'rules': dataclasses.asdict(self.RULES) | {'max_pixels': self.max_pixels},
      **self._recorded,
      'notes': self._notes,
      'left_out': self._listed - sum(split.num_examples for split in self.info.splits.values()),
      'findings': dict(sorted(counts.items())),
    }
    self.write_card(records, recorded)

  def _grouped(self, findings: 'list[Finding | _MissingFiles]') -> list[Finding]:
    """Findings with files that are missing in great numbers reported together."""

    def is_missing(finding: Finding) -> bool:
      # Other missing files are those of a folder or of an id.
      names_file = finding.text.partition(' ')[0] in self._files
      return finding.rule == 'missing-file' and names_file

    missing = _Selected(findings, is_missing)
    if (
      len(list(itertools.islice(missing, relative_paths.MAX_LISTED + 1)))
      <= relative_paths.MAX_LISTED
    ):
      return list(_expand(findings))
    others = [finding for finding in _expand(findings) if not is_missing(finding)]
    return others + relative_paths.group_missing(self.source, missing, self._files)

  def _note_converted(self) -> None:
    """Notes converted images, and renames the columns of their paths to `source_rgb`, ...

    The digests of the manifest are not those of these files.
    """
    formats = collections.Counter(
      described.partition(' ')[0]
      for extra in self.extra.values()
      for modality in schema.MODALITIES
      if (described := extra.get(f'source_{modality}_file'))
    )
    if formats:
      counts = ', '.join(f'{n} {name}' for name, n in sorted(formats.items()))
      self._notes.append(f'{formats.total()} images are converted to PNG without loss: {counts}')
      names = {modality: f'source_{modality}' for modality in schema.MODALITIES}
      self.extra = {
        id_: {names.get(column, column): text for column, text in extra.items()}
        for id_, extra in self.extra.items()
      }

  def _failed(self) -> tuple[str, pathlib.Path]:
    """The name of the set, and the file that lists its errors if it is not built."""
    name = '-'.join(filter(None, (self.name, self.builder_config and self.builder_config.name)))
    return name, pathlib.Path(self.data_dir_root) / f'{name}.bad_files.csv'

  def _report(self, fatal: list[Finding]) -> str:
    """Returns a summary of the errors and writes all of them to a file."""
    name, file = self._failed()
    write_csv(file, self._findings)
    counts = collections.Counter(finding.rule for finding in fatal)
    lines = [f'{name}: {len(fatal)} errors; nothing was built', *map(str, fatal[:_SHOWN])]
    if len(fatal) > _SHOWN:
      lines.append(f'... and {len(fatal) - _SHOWN} more')
    lines += [f'{rule}: {n} ({MEANING[rule]})' for rule, n in sorted(counts.items())]
    lines.append(f'All of them: {file}')
    lines += [
      f'A leak that the published lists have: --accept_known_leaks={name}'
      for name in _known_leaks(fatal)
    ]
    if any(finding.rule.startswith('leak') for finding in fatal):
      lines.append(
        'A leak ends the build also with --on_bad=skip, which cannot choose the split to correct: '
        'give each subject and each video one split, list each image in one split alone, and '
        'prepare again'
      )
    elif self.on_bad == 'skip' and any(f in self._stored for f in fatal):
      lines.append(
        'Samples that share their images cannot be left out: remove these rows from the list, and '
        'prepare again'
      )
    elif self.on_bad == 'skip' and all(f.row or f.id for f in fatal):
      lines.append('Without these samples a split would be empty: correct the source, or its lists')
    if self.on_bad == 'fail' and not all(_ends_the_build(f) or f in self._stored for f in fatal):
      lines.append('Correct the source, or leave out samples with errors with --on_bad=skip')
    return '\n'.join(lines)


def _known_leaks(fatal: Iterable[Finding]) -> list[str]:
  """Names of the published leaks in findings."""
  texts = [
    f'{f.id} {f.text}' for f in fatal if f.rule.startswith('leak') and f.rule != 'leak-image'
  ]
  found = []
  for name, leaks in linter.KNOWN_LEAKS.items():
    subjects = [path_layouts.parse(file) for file, _ in leaks]
    if any(f'{one.dataset}/{one.subject}' in text for one in subjects for text in texts):
      found.append(name)
  return found


def _check(splits: Mapping[str, list[SourceRow]], accepted: Iterable[str]) -> linter.Checked:
  """Duplicates and contradicting labels within splits, leaks between them."""
  # Intended repetitions are not compared.
  places = {
    split: [i for i, row in enumerate(rows) if not re.search(r'#\d+$', row.facts['id'])]
    for split, rows in splits.items()
  }
  listed = {split: _Listed(splits[split], some) for split, some in places.items()}
  checked = linter.check_rows(listed, tuple(accepted))
  wrong = {split: {places[split][i] for i in some} for split, some in checked.faulty.items()}
  return checked._replace(faulty=wrong)


class _Listed(Sequence):
  """Rows as list rows, made on access: they are large."""

  def __init__(self, rows: Sequence[SourceRow], places: Sequence[int]):
    self._rows, self._places = rows, places

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, i: int) -> lists.ListRow:
    row = self._rows[self._places[i]]
    return lists.make_row(
      row.files,
      row.facts['label'],
      list=row.list,
      line=row.row,
      **{key: str(row.facts[key]) for key in ('id', 'dataset', 'subject', 'video', 'frame')},
    )


def _without_findings(
  plan: Plan, wrong: Mapping[str, Collection[int]]
) -> tuple[dict[str, list[SourceRow]], int]:
  """The rows without findings.

  Args:
    plan: of the builder.
    wrong: by split, positions of rows that have other findings.

  Returns:
    Rows by split; and the number of samples with findings that are in no split.
  """
  found = [f for f in plan.findings if f.rule not in WARNINGS]
  keys = {f.id or (f.list, f.row) for f in found if f.id or (f.row and f.list in plan.lists)}
  absent, sound = set(keys), {}
  for split, rows in plan.splits.items():
    sound[split] = []
    for i, row in enumerate(rows):
      own = {row.facts['id'], row.facts['video'], (row.list, row.row)} & keys
      absent -= own
      if not own and i not in wrong[split]:
        sound[split].append(row)
  return sound, len(absent)


def _ends_the_build(finding: Finding) -> bool:
  """Whether leaving out samples is no remedy: leaks, channels exchanged in the whole source."""
  whole = not finding.row and not finding.id
  return finding.rule.startswith('leak') or (finding.rule == 'swapped' and whole)


def _unique(rows: list[SourceRow]) -> list[SourceRow]:
  """The first row of every id."""
  return list({row.facts['id']: row for row in reversed(rows)}.values())[::-1]


class _MissingFiles(NamedTuple):
  """Findings of files of a row that are missing, before they are made."""

  row: SourceRow
  modalities: tuple[str, ...]


@functools.cache
def _share_modalities(*modalities: str) -> tuple[str, ...]:
  return modalities


def _expand(findings: Iterable[Finding | _MissingFiles]) -> Iterator[Finding]:
  for one in findings:
    if isinstance(one, _MissingFiles):
      problems = [('missing-file', f'{m} {one.row.files[m]}') for m in one.modalities]
      yield from make_findings(one.row, problems)
    else:
      yield one


class _Selected:
  """Some findings, made each time they are iterated: there may be hundreds of thousands."""

  def __init__(self, findings: list[Finding | _MissingFiles], selects: Callable[[Finding], bool]):
    self._findings, self._selects = findings, selects

  def __iter__(self) -> Iterator[Finding]:
    return filter(self._selects, _expand(self._findings))


def make_findings(row: SourceRow, problems: Iterable[image_checks.Problem]) -> list[Finding]:
  """The problems of a row as findings with its list and line."""
  # Rules and paths from workers are copies: share them, there may be a problem for each file.
  known = {path: path for path in row.files.values()}
  return [
    Finding(sys.intern(rule), row.list, row.row, known.get(text, text), row.facts['id'])
    for rule, text in problems
  ]


def _with_expected_digests(
  splits: dict[str, list[SourceRow]], manifest: str
) -> tuple[dict[str, list[SourceRow]], list[Finding]]:
  """Adds the digests of an earlier manifest to rows; findings for ids in only one of both."""
  try:
    digests = [f'{m}_sha256' for m in schema.MODALITIES]
    layout = csv_dialect.sniff(manifest, ('id', *digests))
    wanted = {}
    for _, cells in csv_dialect.read_records(manifest, layout):
      row = dict(zip(layout.names, cells, strict=True))
      wanted[row['id']] = {m: row[f'{m}_sha256'] for m in schema.MODALITIES}
  except (DataError, KeyError) as error:
    raise DataError(
      f"--manifest={manifest} is not a prepared set's manifest.csv: {error}"
    ) from None
  ids = {row.facts['id'] for rows in splits.values() for row in rows}
  found = [Finding('missing-file', manifest, 0, f'{one} is not in the source')
           for one in sorted(wanted.keys() - ids)]  # fmt: skip
  found += [Finding('sha256', manifest, 0, f'{one} is not in the manifest', one)
            for one in sorted(ids - wanted.keys())]  # fmt: skip
  expecting = {
    split: [row._replace(sha256=wanted.get(row.facts['id'], {})) for row in rows]
    for split, rows in splits.items()
  }
  return expecting, found


def _read_on_beam(reader: reading.Reader, rows: list[SourceRow], findings: str):
  """A Beam transform to (key, example) that also writes findings beside the shards."""
  import apache_beam as beam

  again = {(row.list, row.row) for row in rows} - {(row.list, row.row) for row in _unique(rows)}
  nothing = (rows[0].facts['id'], features.check({**rows[0].facts, 'rgb': b'nothing'}))

  class Read(beam.PTransform):
    def expand(self, pipeline):
      outcomes = (
        pipeline
        | beam.Create([rows[i : i + _TASK] for i in range(0, len(rows), _TASK)])
        | beam.Reshuffle()
        | beam.FlatMap(reading.make_task(reader))
      )
      examples = outcomes | 'Examples' >> beam.FlatMap(_keyed_examples, again)
      # As in `_read`: TFDS cannot write a split of nothing.
      empty = (
        examples
        | beam.combiners.Count.Globally()
        | 'Empty' >> beam.FlatMap(lambda n: [] if n else [nothing])
      )
      lines = (
        outcomes | 'Found' >> beam.FlatMap(_finding_lines),
        empty | 'Nothing' >> beam.Map(lambda _: json.dumps(None)),
      )
      _ = lines | 'Lines' >> beam.Flatten() | beam.io.WriteToText(findings)
      return (examples, empty) | 'All' >> beam.Flatten()

  return Read()


def _finding_lines(outcome: reading.Outcome) -> list[str]:
  found, extra = make_findings(outcome.row, outcome.problems), outcome.row.extra
  converted = any(f'source_{modality}_file' in extra for modality in schema.MODALITIES)
  return [json.dumps([outcome.row.facts['id'], found, dict(extra)])] if found or converted else []


def _keyed_examples(
  outcome: reading.Outcome, again: Collection[tuple[str, int]]
) -> list[tuple[str, features.Example]]:
  """The example of a row, if it has no errors and is not in `again`: Beam refuses repeated ids."""
  if (outcome.row.list, outcome.row.row) in again or any(
    rule not in WARNINGS for rule, _ in outcome.problems
  ):
    return []
  return [(outcome.row.facts['id'], features.check({**outcome.row.facts, **outcome.images}))]


def _collect_beam_findings(
  folder, order: Iterable[tuple[str, str, int]], columns: dict[str, Mapping[str, str]]
) -> tuple[list[Finding], bool]:
  """Collects the findings of Beam's workers and removes their files.

  Args:
    folder: of the shards.
    order: (id, list, row) of the planned rows, which determines the order of findings.
    columns: {id: further columns}; columns added by readers are put there.

  Returns:
    The findings, and whether a split has no sample without errors.
  """
  found, nothing = [], False
  for path in pathlib.Path(folder).glob(f'{_FINDINGS}-*'):
    for line in path.read_text(encoding='utf-8').splitlines():
      if one := json.loads(line):
        found.append(one)
        columns[one[0]] = one[2]
      else:
        nothing = True
    path.unlink()
  place = {key: i for i, key in enumerate(order)}
  findings = [Finding(*finding) for _, some, _ in found for finding in some]
  return sorted(findings, key=lambda f: place[f.id, f.list, f.row]), nothing
