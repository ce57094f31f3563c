"""TFDS builder of a user's own set from a CSV of image paths; see README.md in this folder."""

import collections
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from flexfas_jax import label_mapping, schema
from flexfas_jax.data.manifest import cropping
from flexfas_jax.data.packed_rows import pack_facts, pack_paths
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, units
from flexfas_jax.protocols import bit_depths, list_format, lists, path_layouts, row_checks
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.path_consistency import PathConsistency

_LAST_FRAME = 2**31 - 1  # that 32 bits hold
_DIGESTS = {f'{modality}_sha256': modality for modality in schema.MODALITIES}
_NO_DIGESTS: dict[str, str] = {}  # digests of most rows
_READER_COLUMNS = {f'source_{modality}_file' for modality in schema.MODALITIES}  # of an earlier set
_SUFFIXES = ('.csv', '.tsv', '.txt')
_WAY_OUT = 'name each video in a column video, or give --option video=picture where each is alone'


class Builder(SourceBuilder):
  """Reads a manifest and its images; the name of the config is that of the set."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Your own images: --source=DIR with images and manifest.csv (or --lists=FILE.csv). Its first '
    'row names the columns: rgb, depth, ir (paths below DIR; at least one of the three), label '
    '(bona_fide or attack), and what else is known: attack_type, attack_category, subject, video, '
    'frame, split, ... as in data/manifest/README.md'
  )
  OPTIONS = {
    'labels': '',
    'categories': '',
    'video': 'folder',
    'sizes': 'aspect',
    'depth_bits': '',
    'depth_unit': '',
    'ir_bits': '',
    **cropping.OPTIONS,
  }

  def _create_builder_config(self, builder_config, version):
    # Any name is valid: its config is made on request.
    name = getattr(builder_config, 'name', builder_config) or ''
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
      raise ConfigError(
        f'a set of your own needs a name: --dataset=manifest/NAME, of the letters A to Z, digits, '
        f'_ and -; it is {name!r}'
      )
    return tfds.core.BuilderConfig(name=name, description='A set made of a manifest.')

  def plan(self) -> Plan:
    """Lists the rows of the manifest, with what is wrong with them.

    Raises:
      ConfigError: an option that cannot be.
      DataError: no manifest, or one without images or labels; a detector with another digest.
    """
    self._parse_options()
    made = Plan({}, recorded={'options': self._recorded_options(), 'lists': {}})
    rows = []
    for path in self._manifests():
      form = list_format.detect(path)
      if 'label' not in form.names or not set(form.names) & set(schema.MODALITIES):
        raise DataError(
          f'{path}, row 1: due are the column label and one of {", ".join(schema.MODALITIES)}, and '
          f'the columns are: {form}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
        )
      for text in list_format.describe_misspelt(form):
        made.findings.append(Finding('misspelt-column', str(path), form.header, text))
        made.notes.append(f'{path.name}: {text}')
      made.recorded['lists'][path.name] = form.sha256
      made.lists.add(str(path))
      n_before, without = len(rows), []  # lines without a split
      for row in self._rows(path, form, made.findings):
        if not row.split:
          without.append(row.row)
          row = row._replace(split=lists.DEFAULT_SPLIT)
        rows.append(row)
      if 0 < len(without) < len(rows) - n_before:
        text = lists.describe_without_split(len(without), len(rows) - n_before)
        made.findings.append(Finding('no-split', str(path), without[0], text))
        made.notes.append(f'{path.name}: {text}')
    rows = _with_own_ids(self._with_videos(rows, made), made.findings)
    for row in rows:
      made.splits.setdefault(row.split, []).append(row)
    self._set_rules(rows, made.notes)
    if nameless := sum(not row.facts['subject'] for row in rows):
      made.notes.append(
        f'{nameless} of {len(rows)} rows name no subject: their leakage between splits cannot '
        'be checked for them'
      )
    if self._recipe:
      made.recorded['faces'] = self._recipe.record() | {'quality': self._quality or 'PNG'}
    return made

  def reader(self) -> cropping.Reader:
    """Reads one row, and changes it as the options want."""
    recipe = self._recipe
    read = image_checks.Rules(
      self.RULES.bits,
      # Sizes are compared after images are turned upright.
      sizes='any' if recipe else self.RULES.sizes,
      frame=bool(recipe),
      units=self._units,
    )
    return cropping.Reader(
      str(self.source), read, self.RULES, recipe, self.options['yunet'], self._quality
    )

  def _parse_options(self) -> None:
    options = self.options
    for name, choices in (
      ('video', ('folder', 'picture')),
      ('sizes', image_checks.SIZES),
      ('depth_bits', ('', '8', '16')),
    ):
      if options[name] not in choices:
        known = ', '.join(filter(None, choices))
        raise ConfigError(f'{name} is {options[name]!r}; choose one of: {known}')
    self._labels = label_mapping.parse(options['labels']) if options['labels'] else {}
    self._categories = row_checks.parse_categories(options['categories'])
    self._units = units.parse(options['depth_unit'], options['ir_bits'])
    if self._units.depth and options['depth_bits'] == '8':
      raise ConfigError('depth_unit is of 16-bit depth; depth_bits=8 has none')
    self._recipe = cropping.recipe(options)
    self._quality = cropping.quality(options)
    if self._recipe and self._recipe.method == 'yunet':
      face_crop.load_yunet(options['yunet'], self._recipe.model_sha256)

  def _recorded_options(self) -> dict[str, str]:
    """Options for the card, without where on this machine the detector lies."""
    return self.options | {'yunet': pathlib.Path(self.options['yunet']).name}

  def _manifests(self) -> list[pathlib.Path]:
    named = str(self.lists or self.source / 'manifest.csv')
    paths = [
      pathlib.Path(part) for part in ([named] if os.path.exists(named) else named.split(','))
    ]
    found = []
    for path in paths:
      if path.is_dir():
        below = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
        if not below:
          raise DataError(f'{path} holds no list ({", ".join(_SUFFIXES)})')
        found += below
      elif path.exists():
        found.append(path)
      else:
        raise DataError(f'there is no manifest {path}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}')
    return found

  def _rows(
    self, path: pathlib.Path, form: list_format.ListFormat, findings: list[Finding]
  ) -> Iterator[SourceRow]:
    """Yields what is sound; findings get what is not."""
    wrong = set()

    def found(rule: str, line: int, text: str) -> None:
      for option in ('labels', 'categories'):
        text = text.replace(f'--{option}=', f'--option {option}=')
      wrong.add(line)
      findings.append(Finding(rule, str(path), line, text))

    name, consistency = self.builder_config.name, PathConsistency()
    for listed in lists.scan(path, self._labels, found, dataset=name, form=form):
      for rule, text in self._problems(listed):
        found(rule, listed.line, text)
      # Of such a row the images are read all the same.
      problems, _ = consistency.check(listed)
      findings += [Finding(rule, str(path), listed.line, text) for rule, text in problems]
      if listed.line not in wrong:
        yield self._row(listed)

  def _problems(self, row: lists.ListRow) -> Iterator[image_checks.Problem]:
    """Problems of the cells of a row that `lists.scan` does not report."""
    yield from row_checks.find_problems(row, self._categories)
    if text := row_checks.type_without_category(row, self._categories):
      yield 'row', text
    if self._recipe and self._recipe.method != 'yunet':
      try:
        face_crop.face_from_columns(row.extra, (1, 1), self._recipe)
      except face_crop.NoFace as error:
        yield 'no-face', f'{row.id}: {error}'
      except ValueError as error:
        yield 'row', f'{row.id}: {error}'

  def _row(self, row: lists.ListRow) -> SourceRow:
    facts = row.example_fields()
    dataset = facts['dataset']
    if not facts['id'].startswith(f'{dataset}/'):
      facts['id'] = f'{dataset}/{facts["id"]}'
    if facts['frame'] > _LAST_FRAME:
      facts['frame'] = 0  # a time stamp; the id has it
    if row.label == 'attack':
      facts['attack_category'] = row_checks.category_of(row, self._categories)
      facts['attack_type'] = facts['attack_type'] or facts['attack_category']
    changed = bool(self._recipe or any(self._units))
    drop = {'', *_DIGESTS, *_READER_COLUMNS}
    extra = {name: text for name, text in row.extra.items() if name not in drop}
    # Many rows have nothing else, and share what they have.
    files = pack_paths(row.paths)
    paths = {f'source_{m}': path for m, path in row.paths.items()} if changed else files
    extra = {**extra, **paths} if extra else paths
    digests = {modality: text.lower() for modality, text in lists.digests(row.extra).items()}
    if changed:
      extra |= {f'source_{m}_sha256': digest for m, digest in digests.items()}
    digests = digests or _NO_DIGESTS
    return SourceRow(pack_facts(facts), files, row.list, row.line, digests, extra, row.split)

  def _with_videos(self, rows: Sequence[SourceRow], made: Plan) -> list[SourceRow]:
    """Rows with the video that they do not name: their folder, or themselves."""
    if self.options['video'] == 'picture':
      return [_with_video(row, row.facts['video'] or row.facts['id']) for row in rows]
    folders = collections.defaultdict(list)
    for row in rows:
      if not row.facts['video']:
        folders[_folder(row)].append(row)
    # A folder that holds several is no video; as one it would hide a leak, or feign one.
    several = {}
    for folder, inside in folders.items():
      splits = sorted({row.split for row in inside})
      kinds = sorted({row.facts['attack_type'] or 'bona_fide' for row in inside})
      if len(splits) > 1:
        several[folder] = 'leak-video', ', '.join(splits)
      elif len(kinds) > 1:
        several[folder] = 'label', ', '.join(kinds)
    named = []
    for row in rows:
      if row.facts['video']:
        named.append(row)
        continue
      folder = _folder(row)
      if folder in several:
        rule, holds = several[folder]
        text = f'names no video, and its folder {folder} is not one, with rows of {holds}'
        made.findings.append(Finding(rule, row.list, row.row, f'{text}; {_WAY_OUT}'))
      else:
        named.append(_with_video(row, folder))
    if n := sum(len(inside) for folder, inside in folders.items() if folder not in several):
      made.notes.append(f'{n} rows name no video: the folder of their images is used')
    return named

  def _set_rules(self, rows: Sequence[SourceRow], notes: list[str]) -> None:
    """Sets the requirements on images; bits that are not stated are those of most headers."""
    paths = {m: [row.files[m] for row in rows if m in row.files] for m in schema.MODALITIES}
    depth_bits = int(self.options['depth_bits'] or 0)
    bits, found = bit_depths.required(self.source, paths, self._units, depth_bits)
    notes += found
    self.RULES = image_checks.Rules(
      bits,
      sizes='any' if self._recipe else self.options['sizes'],
      units=units.after_conversion(self._units),
    )


def _with_video(row: SourceRow, video: str) -> SourceRow:
  return row._replace(facts=pack_facts({**row.facts, 'video': video}))


def _with_own_ids(rows: Sequence[SourceRow], findings: list[Finding]) -> list[SourceRow]:
  """The rows without those whose id another split has for other images: scores use ids only."""
  first, own = {}, []
  for row in rows:
    before = first.setdefault(row.facts['id'], row)
    if row.split != before.split and row.files != before.files:
      text = f'the id {row.facts["id"]} is also that of row {before.row}, in {before.split}, '
      text += 'with other images'
      findings.append(Finding('duplicate', row.list, row.row, text))
    else:
      own.append(row)
  return own


def _folder(row: SourceRow) -> str:
  """The folder of a row's images, as a video of its subject."""
  folder = next(iter(row.files.values())).rpartition('/')[0]
  folder = path_layouts.without_modality(f'{folder}/x').rpartition('/')[0]
  return f'{row.facts["subject"] or row.facts["dataset"]}/{folder or "images"}'
