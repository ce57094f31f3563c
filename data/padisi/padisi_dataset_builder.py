"""TFDS builder of PADISI-Face. See README.md in this folder."""

import collections
import re
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from flexfas_jax import schema
from flexfas_jax.data import folders, reading, tables
from flexfas_jax.data.padisi import samples
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols.findings import Finding

_LAYOUT = (
  'ID_<transaction>_<trial>_<name>.npz anywhere below it, with '
  'padisi_USC_FACE_ground_truth.csv and padisi_USC_FACE_dataset_partition_3folds_part0.csv (1, 2) '
  'there or in --lists'
)
_SAMPLE = ('transaction_id', 'trial_id', 'trial_name')  # columns that name a sample
_CODE = re.compile(r'(m5\d\d)(\d\d)?')  # of an attack: what it is, and which one of them
_BONA_FIDE = re.compile(r'm0+')
_FOLD = re.compile(r'.*part([0-2])\.csv', re.IGNORECASE)
_PARTS = {'train': 'train', 'valid': 'val', 'val': 'val', 'validation': 'val', 'test': 'test'}
_CATEGORIES = {'m506': 'makeup'}  # from the documentation of the data set; others must be stated
_TRUTH = {'false': 'bona_fide', '0': 'bona_fide', 'true': 'attack', '1': 'attack'}
_VALUES = {
  'subject': 'participant_id|transaction_id',
  'rounding': 'round|ceil',
  'depth_bits': '8|16',
}
_SHOWN = 5  # names that a note lists


class Builder(SourceBuilder):
  """PADISI-Face: one image per sample, nine kinds of attack; one split, three folds."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(
      name='face',
      description='PADISI-Face: 2,029 samples of the preprocessed multi-spectral release, and the '
      'columns part0, part1, part2 of its three folds.',
    )
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'PADISI-Face is handed out by USC ISI under an agreement that a principal investigator and '
    'the institution sign (https://github.com/ISICV/PADISI_USC_Dataset). Give --source=DIR that '
    f'holds {_LAYOUT}'
  )
  RULES = image_checks.Rules(bits={'rgb': 8, 'depth': 8, 'ir': 8}, units=None, sizes='equal')
  OPTIONS = {'subject': 'participant_id', 'rounding': 'round', 'depth_bits': '8', 'codes': ''}

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    for option, pattern in _VALUES.items():
      if not re.fullmatch(pattern, self.options[option]):
        text = f'--option {option}={self.options[option]}: {pattern.replace("|", " or ")}'
        raise ConfigError(text)
    if self.options['depth_bits'] == '16':
      bits = {'rgb': 8, 'depth': 16, 'ir': 8}
      self.RULES = image_checks.Rules(bits=bits, units=None, sizes='equal')

  def reader(self) -> reading.Reader:
    """Images are channels of the array in an npz file."""
    return samples.SampleReader(
      str(self.source), self.RULES, self.options['rounding'], int(self.options['depth_bits'])
    )

  def plan(self) -> Plan:
    """A row per npz file that the ground truth names."""
    categories = {**_CATEGORIES, **_read_codes(self.options['codes'])}
    where = tables.places(self.lists, self.source)
    there = {path.stem: path for path in folders.find_files(self.source, 'ID_*.npz')}
    truths = _of_faces(tables.files(where, '*ground_truth*.csv'))
    if not there or len(truths) != 1:
      raise DataError(self._refusal(len(there), truths))
    plan = Plan({})
    truth = self._read_truth(truths[0], there, plan)
    folds = self._read_folds(where, truth, plan)
    rows, unknown = [], collections.Counter()
    for name, (line, cells) in truth.items():
      if facts := self._facts(name, cells, categories, str(truths[0]), line, plan):
        if facts['attack_category'] == 'other':
          unknown[facts['attack_type']] += 1
        path = there[name].relative_to(self.source).as_posix()
        files = {modality: f'{path}#{modality}' for modality in schema.MODALITIES}
        extra = {'pai': cells['ground_truth'].lower(), **folds.get(name, {})}
        rows.append(SourceRow(facts, files, str(truths[0]), line, extra=extra))
    plan.splits = {'whole': rows}  # not 'all', which TFDS keeps for itself
    if unknown:
      some = ', '.join(f'{code} ({n})' for code, n in sorted(unknown.items()))
      plan.notes.append(
        f'attack codes of category "other", whose meaning is unknown: {some}; '
        '--option codes=FILE names their categories'
      )
    return plan

  def _refusal(self, found: int, truths: list[Path]) -> str:
    lines = [f'--source={self.source} is not PADISI-Face. Expected: {_LAYOUT}; found: {found} npz '
             f'files, {len(truths)} tables of ground truth']  # fmt: skip
    lines += [f'  {path}' for path in truths]
    if not found and folders.find_files(self.source, '*.bz2'):
      lines.append('The .bz2 release is a pickle with colour alone: it is not read')
    return '\n'.join(lines)

  def _read_truth(
    self, path: Path, there: Mapping[str, Path], plan: Plan
  ) -> dict[str, tuple[int, dict[str, str]]]:
    """{sample: (line, cells)} of the samples that are there."""
    subject = self.options['subject']
    rows = tables.read(path, list(dict.fromkeys([*_SAMPLE, 'ground_truth', subject])),
                       plan.findings)  # fmt: skip
    plan.recorded['lists'] = {path.name: image_checks.digest(path.read_bytes())}
    plan.lists.add(str(path))

    def found(rule: str, line: int, text: str, name: str = '') -> None:
      plan.findings.append(Finding(rule, str(path), line, text, name and _id(name)))

    truth = {}
    for line, cells in rows:
      name = _name(cells)
      if name in truth:
        first, other = truth[name]
        found('duplicate', line, f'{name} is in line {first} too')
        codes = other['ground_truth'], cells['ground_truth']
        if codes[0].lower() != codes[1].lower():
          found('label', first, f'{name} is {codes[0]} here, and {codes[1]} in line {line}')
      else:
        truth[name] = (line, cells)
    for name, (line, _) in truth.items():
      if name not in there:
        found('missing-file', line, f'there is no {name}.npz')
    for name in there:
      if rows and name not in truth:
        found('label', 0, f'{name}.npz is in no row', name)
    return {name: row for name, row in truth.items() if name in there}

  def _read_folds(self, where, truth, plan: Plan) -> dict[str, dict[str, str]]:
    """{sample: {part0: train, val or test, ...}}, from the files of the three folds."""
    folds, there = collections.defaultdict(dict), {}
    for path in _of_faces(tables.files(where, '*.csv')):
      if (found := _FOLD.fullmatch(path.name)) and not there.setdefault(found[1], path).samefile(
        path
      ):
        plan.notes.append(f'{path}: not read, {there[found[1]]} is of the same fold')
    for number, path in sorted(there.items()):
      self._read_fold(path, f'part{number}', truth, folds, plan)
    if missing := [f'part{number}' for number in '012' if number not in there]:
      plan.notes.append(f'no file of the folds {", ".join(missing)}: without their columns')
    return folds

  def _read_fold(self, path: Path, column: str, truth, folds, plan: Plan) -> None:
    def found(rule: str, line: int, text: str) -> None:
      plan.findings.append(Finding(rule, str(path), line, text))

    subjects = collections.defaultdict(set)
    for line, cells in tables.read(path, [*_SAMPLE, 'partition_name'], plan.findings):
      name, part = _name(cells), _PARTS.get(cells['partition_name'].lower())
      if not part:
        partition = cells['partition_name']
        found('row', line, f'{name}: the partition {partition!r} is none of train, valid, test')
      elif column in folds[name]:
        rule = 'duplicate' if folds[name][column] == part else 'leak-file'
        found(rule, line, f'{name} is in {folds[name][column]} and again in {part}')
      else:
        folds[name][column] = part
        if name in truth:
          subjects[truth[name][1][self.options['subject']]].add(part)
    plan.recorded['lists'][path.name] = image_checks.digest(path.read_bytes())
    unnamed = [name for name in truth if column not in folds[name]]
    shared = sorted(who for who, parts in subjects.items() if len(parts) > 1)
    for text, names in (('samples are not in', unnamed), ('subjects are in two parts of', shared)):
      if names:
        more = ', ...' if len(names) > _SHOWN else ''
        some = ', '.join(names[:_SHOWN])
        plan.notes.append(f'{column}: {len(names)} {text} it: {some}{more}')

  def _facts(
    self, name: str, cells: Mapping[str, str], categories, path: str, line: int, plan: Plan
  ) -> dict | None:
    """The fields of an example but its images; None where the label is not known."""
    code = cells['ground_truth'].lower()
    attack = _CODE.fullmatch(code)
    if not attack and not _BONA_FIDE.fullmatch(code):
      text = f'{name}: the code {cells["ground_truth"]!r} is neither m00000 (bona fide) nor m5....'
      plan.findings.append(Finding('label', path, line, text))
      return None
    label = 'attack' if attack else 'bona_fide'
    if cells.get('label') and _TRUTH.get(cells['label'].lower()) != label:
      text = f'{name}: the label is {cells["label"]}, and {code} is {label}'
      plan.findings.append(Finding('label', path, line, text))
      return None
    subject = cells[self.options['subject']]
    return {
      'id': _id(name),
      'label': label,
      'attack_type': attack[1] if attack else '',
      'attack_category': _category(attack, categories),
      'subject': f'padisi/{subject}' if subject else '',
      'video': f'padisi/{name}',
      'frame': 0,
      'dataset': 'padisi',
      'ethnicity': cells.get('ethnicity', ''),
    }


def _category(attack: re.Match | None, categories: Mapping[str, str]) -> str:
  """Of a code's species, or else of the code, or else 'other'."""
  if not attack:
    return ''
  return categories.get(attack[0]) or categories.get(attack[1]) or 'other'


def _of_faces(paths: list[Path]) -> list[Path]:
  """Without the tables of the set's fingers, which lie beside them."""
  return [path for path in paths if 'finger' not in path.name.lower()]


def _id(name: str) -> str:
  return f'padisi/{name}/0'


def _name(cells: Mapping[str, str]) -> str:
  return 'ID_' + '_'.join(cells[column] for column in _SAMPLE)


def _read_codes(file: str) -> dict[str, str]:
  """{code: category} of --option codes.

  Raises:
    ConfigError: no such file, or another content.
  """
  if not file:
    return {}
  path, findings, codes = Path(file), [], {}
  if not path.is_file():
    raise ConfigError(f'--option codes={file}: there is no such file')
  for line, cells in tables.read(path, ('code', 'category'), findings):
    code, category = cells['code'].lower(), cells['category']
    if not _CODE.fullmatch(code) or category not in schema.CATEGORIES:
      raise ConfigError(
        f'--option codes={file}: line {line} has {cells["code"]}, {category}; a code is like m501 '
        f'or m50102, a category one of {", ".join(schema.CATEGORIES)}'
      )
    codes[code] = category
  if findings:
    raise ConfigError(f'--option codes: {findings[0]}')
  return codes
