"""TFDS builder of CASIA-SURF. See README.md in this folder."""

import collections
import os
import re
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from flexfas_jax import label_mapping, schema
from flexfas_jax.data import flexmodal_lists, folders
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols import list_format, lists, path_layouts
from flexfas_jax.protocols.findings import Finding

_PHASES = {'Training': 'train', 'Val': 'val', 'Testing': 'test'}
_PUBLISHED_AS = {
  'challenge': (
    'the challenge of CVPR 2019: Training/{real_part,fake_part}/CLKJ_*/*.rssdk/'
    '{color,depth,ir}/101.jpg, Val/0000/000000-{color,depth,ir}.jpg, Testing/...'
  ),
  'release': (
    'the later release: Data/{Training,Val,Testing}/{real_part,fake_part}/CLKJ_*/*.rssdk/'
    '{color,depth,ir}/0015.jpg'
  ),
}
_DESCRIPTIONS = {
  'challenge': _PUBLISHED_AS['challenge'] + '; labels of Val and Testing from lists.',
  'release': _PUBLISHED_AS['release'] + '.',
  'flexmodal': 'the triplets of the FlexModal lists, each once and none in two splits.',
  'flexmodal_published': 'the rows of the FlexModal lists as published, redundant ones too.',
}
# MM-FAS wrote copies of depth and infrared beside those of Training, in the size of its RGB.
_RESIZED = re.compile(r'_resized\.\w+$')
# MM-FAS: leave one attack out. Their val_list.txt is the official Val, whatever the fold.
_FOLD = re.compile(r'fold(\d+)/(train_list|val_list_orgl)\.txt$')


class Builder(SourceBuilder):
  """CASIA-SURF: cut photos worn before the face, 1,000 subjects, RGB, depth and infrared."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, description=f'CASIA-SURF: {text}')
    for name, text in _DESCRIPTIONS.items()
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'CASIA-SURF is handed out for research on a signed agreement (jun.wan@ia.ac.cn). Give '
    f'--source=DIR that holds {_PUBLISHED_AS["challenge"]} (challenge); or '
    f'{_PUBLISHED_AS["release"]} (release); or CASIA-SURF-CROP/{{real,fake}}_part/... '
    '(flexmodal, flexmodal_published)'
  )
  # Crops: depth and infrared have other sizes than RGB.
  RULES = image_checks.Rules(
    bits={'rgb': 8, 'depth': 8, 'ir': 8}, sizes=image_checks.SIZES_OF['casia_surf']
  )
  OPTIONS = {'resized': 'no'}

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    if self.options['resized'] not in ('no', 'yes'):
      raise ConfigError(f'--option resized={self.options["resized"]}: choose no or yes')

  def plan(self) -> Plan:
    """The triplets of the folders, or of the FlexModal lists."""
    config = self.builder_config.name
    if config in _PUBLISHED_AS:
      return self._folders()
    published = config == 'flexmodal_published'
    return flexmodal_lists.plan(self, 'casia_surf', flexmodal_lists.SURF_CEFA, published)

  def _folders(self) -> Plan:
    below = folders.find_folders(self.source, _PHASES)
    if not below:
      raise DataError(
        f'--source={self.source} has no folder Training, Val or Testing. Expected: '
        f'{_PUBLISHED_AS[self.builder_config.name]}'
      )
    resized = []

    def skip(path: str) -> bool:
      if _RESIZED.search(path):
        resized.append(path)
        return True
      return False

    found, findings = folders.find_triplets(self.source, below, 'casia_surf', skip=skip)
    self._check_layout(found)
    plan = Plan({split: [] for split in _PHASES.values()}, findings)
    if resized and self.options['resized'] == 'no':
      plan.notes.append(f'{len(resized)} images with _resized in their names are skipped')
    phases = []
    for triplet in found:
      if not triplet.parsed_path.part:
        place = next(iter(triplet.files.values()))
        text = f'{place} is in none of {", ".join(_PHASES)}'
        findings.append(Finding('row', place.rpartition('/')[0], 0, text, triplet.parsed_path.id))
      elif triplet.parsed_path.label:
        plan.splits[triplet.parsed_path.part].append(_row(triplet))
      else:
        phases.append(triplet)
    files = folders.list_files(self.source, self.lists)
    if phases:
      _add_phases(plan, phases, _labels(files, findings))
    if self.options['resized'] == 'yes':
      plan.splits['train'] = [self._with_resized(row) for row in plan.splits['train']]
      plan.notes.append("train: depth and infrared are MM-FAS's resized copies")
    if self.builder_config.name == 'challenge':
      _add_folds(plan, files)
    return plan

  def _check_layout(self, found: list[folders.Triplet]) -> None:
    """Only Val and Testing differ in form: numbers only, or subjects and attacks."""
    config = self.builder_config.name
    forms = {
      'release' if triplet.parsed_path.label else 'challenge'
      for triplet in found
      if triplet.parsed_path.part in ('val', 'test')
    }
    if forms and config not in forms:
      other = forms.pop()
      raise DataError(
        f'--source={self.source} is {_PUBLISHED_AS[other]}: prepare casia_surf/{other}. Expected '
        f'for casia_surf/{config}: {_PUBLISHED_AS[config]}'
      )

  def _with_resized(self, row: SourceRow) -> SourceRow:
    files = {
      modality: path if modality == 'rgb' else '{}_resized{}'.format(*os.path.splitext(path))
      for modality, path in row.files.items()
    }
    return row._replace(files=files)


def _row(triplet: folders.Triplet) -> SourceRow:
  path = next(iter(triplet.files.values()))
  return SourceRow(triplet.parsed_path.example_fields(), triplet.files, path.rpartition('/')[0])


class _Label(NamedTuple):
  """The label of a triplet of Val or Testing in a list."""

  label: str
  list: str
  line: int


def _labels(files: list[Path], findings: list[Finding]) -> dict[str, _Label]:
  """{id: label} from all lists, of triplets without a label in their path."""
  labels = {}
  for file in files:
    wrong = []

    def found(rule: str, line: int, text: str, file=file, wrong=wrong) -> None:
      wrong.append(Finding(rule, str(file), line, label_mapping.strip_advice(text)))

    try:
      form = list_format.detect(file)
      if 'label' not in form.names or not set(form.names) & set(schema.MODALITIES):
        continue
      rows = list(lists.scan(file, None, found, form=form))
    except DataError:
      continue  # not a list
    named = [row for row in rows if row.parsed_path and _of_phase(row.parsed_path)]
    if not named:
      continue  # of something else: what is wrong with it does not matter here
    ids = {row.line: row.id for row in named}
    findings += [finding._replace(id=ids.get(finding.row, '')) for finding in wrong]
    for row in named:
      if not row.label:
        continue
      parsed = labels.setdefault(row.id, _Label(row.label, str(file), row.line))
      if parsed.label != row.label:
        text = f'{row.id} is {row.label} here, and {parsed.label} in {parsed.list}:{parsed.line}'
        findings.append(Finding('label', str(file), row.line, text, row.id))
  return labels


def _of_phase(parsed: path_layouts.ParsedPath) -> bool:
  return parsed.dataset == 'casia_surf' and not parsed.label


def _add_phases(plan: Plan, phases: list[folders.Triplet], labels: dict[str, _Label]) -> None:
  """Adds the triplets of Val and Testing that have labels; notes what is left out."""
  there = collections.Counter(triplet.parsed_path.part for triplet in phases)
  without = collections.Counter()
  for triplet in phases:
    known = labels.pop(triplet.parsed_path.id, None)
    if known is None:
      without[triplet.parsed_path.part] += 1
      continue
    facts = triplet.parsed_path.example_fields() | {'label': known.label}
    # The videos are unknown: each image counts as one.
    facts['video'] = facts['id']
    if known.label == 'attack':
      # All attacks of CASIA-SURF are cut photos; which kind is unknown.
      facts |= {'attack_type': path_layouts.UNKNOWN, 'attack_category': 'cut_photo'}
    plan.splits[triplet.parsed_path.part].append(
      SourceRow(facts, triplet.files, known.list, known.line)
    )
  for split, n in without.items():
    plan.notes.append(
      f'{split}: {n} of {there[split]} triplets left out: no list in --lists or the source has '
      'a label for them'
    )
  absent = collections.Counter()
  for id_, known in labels.items():
    part = _PHASES[id_.split('/')[1]]
    if there[part]:
      plan.findings.append(
        Finding('missing-file', known.list, known.line, f'{id_} is not there', id_)
      )
    else:
      absent[part] += 1
  for split, n in absent.items():
    plan.notes.append(f'{split}: lists name {n} triplets, and the source has none of them')


def _add_folds(plan: Plan, files: list[Path]) -> None:
  """Adds the columns mm_fas_fold1 and so on: train or val, where MM-FAS's lists name a triplet."""
  columns: dict[str, dict[str, str]] = collections.defaultdict(dict)
  train = {row.facts['id'] for row in plan.splits['train']}
  for file in files:
    if not (matched := _FOLD.search(file.as_posix())):
      continue
    column, part = f'mm_fas_fold{matched[1]}', matched[2].partition('_')[0]

    def found(rule: str, line: int, text: str, file=file) -> None:
      plan.findings.append(Finding(rule, str(file), line, label_mapping.strip_advice(text)))

    for row in lists.scan(file, None, found):
      if row.id not in train:
        found('missing-file', row.line, f'{row.id} is not in Training')
      elif columns[row.id].setdefault(column, part) != part:
        found('leak-file', row.line, f'{row.id} is in train and val of {column}')
  if columns:
    plan.splits['train'] = [
      row._replace(extra=columns.get(row.facts['id'], {})) for row in plan.splits['train']
    ]
    plan.notes.append(
      'the folds of MM-FAS leave out an attack, and the live videos of a third of the subjects: '
      'subjects are in train and val'
    )
