"""TFDS builder of CASIA-SURF CeFA. See README.md in this folder."""

import collections
import dataclasses
import re
from pathlib import Path

import tensorflow_datasets as tfds

from flexfas_jax import label_mapping, schema
from flexfas_jax.data import flexmodal_lists, folders
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols import lists, path_layouts
from flexfas_jax.protocols.findings import Finding

_ETHNICITIES = ('AF', 'CA', 'EA')
_MASKS = ('3D-Mask', 'Silicone-Mask')
# The folders that there are may stand below any others; none is looked for below another.
_FOLDERS = ('Ethnicity', 'CeFA-Race', *_ETHNICITIES, 'Mask', 'CeFA-Mask', *_MASKS)
_LAYOUT = (
  'Ethnicity/{AF,CA,EA}/AF-000/1_000_1_1_1/{color,depth,ir}/0001.jpg and '
  'Mask/{3D-Mask,Silicone-Mask}/001/1_001_0_0_2_1_3/{color,depth,ir}/0001.jpg; or CeFA-Race and '
  'CeFA-Mask in their places, and profile in that of color'
)
_DESCRIPTIONS = {
  'release': 'all frames of the release; masks are a split of their own.',
  'flexmodal': 'the triplets of the FlexModal lists, each once and none in two splits.',
  'flexmodal_published': 'the rows of the FlexModal lists as published, redundant ones too.',
}
# 4@1_train.txt of the challenge, CASIA_CeFA@p1.1_video_train.txt of the release. The challenge's
# other lists (4@1_dev_res.txt) name videos by numbers that lead nowhere.
_PROTOCOL = re.compile(r'(?:.*@)?(p\d[\d.]*|\d@\d)_(?:(image|video)_)?(train|dev|test)\.txt')
_CHOICES = {
  'incomplete_masks': ('leave_out', 'keep', 'report'),
  'sizes': image_checks.SIZES,
}


class Builder(SourceBuilder):
  """CASIA-SURF CeFA: prints, replay and masks, 1,607 subjects of three ethnicities."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, description=f'CASIA-SURF CeFA: {text}')
    for name, text in _DESCRIPTIONS.items()
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'CASIA-SURF CeFA is handed out for research on a signed agreement (jun.wan@ia.ac.cn). Give '
    f'--source=DIR that holds {_LAYOUT} (release); or CeFA/CeFA-Race/... and CeFA/CeFA-Mask/... '
    '(flexmodal, flexmodal_published)'
  )
  RULES = image_checks.Rules(bits={'rgb': 8, 'depth': 8, 'ir': 8})
  OPTIONS = {
    'frames': 'all',
    'incomplete_masks': 'leave_out',
    'sizes': image_checks.SIZES_OF['casia_cefa'],
  }

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    for option, values in _CHOICES.items():
      if self.options[option] not in values:
        raise ConfigError(f'--option {option}={self.options[option]}: choose {", ".join(values)}')
    frames = self.options['frames']
    if frames != 'all' and not re.fullmatch('[1-9][0-9]*', frames):
      raise ConfigError(f'--option frames={frames}: all, or a whole number from 1')
    self.RULES = dataclasses.replace(self.RULES, sizes=self.options['sizes'])

  def plan(self) -> Plan:
    """The triplets of the folders, or of the FlexModal lists."""
    if self.builder_config.name == 'release':
      return self._release()
    published = self.builder_config.name == 'flexmodal_published'
    plan = flexmodal_lists.plan(self, 'casia_cefa', flexmodal_lists.SURF_CEFA, published)
    plan.splits = {split: list(map(_with_device, rows)) for split, rows in plan.splits.items()}
    return plan

  def _release(self) -> Plan:
    below = folders.find_folders(self.source, _FOLDERS)
    if not below:
      raise DataError(
        f'--source={self.source} has none of the folders {", ".join(_FOLDERS)}. Expected, below '
        f'any other folders: {_LAYOUT}'
      )
    lenient = self.options['incomplete_masks'] != 'report'
    found, findings = folders.find_triplets(
      self.source, below, 'casia_cefa', may_lack=lambda parsed: lenient and _is_mask(parsed)
    )
    plan = Plan({'train': [], 'val': [], 'test': [], 'masks': []}, findings)
    columns = _Columns(found, plan)
    for file in _protocol_files(folders.list_files(self.source, self.lists)):
      columns.add(file)
    if self.options['incomplete_masks'] == 'leave_out':
      whole = [triplet for triplet in found if len(triplet.files) == len(schema.MODALITIES)]
      if left := len(found) - len(whole):
        plan.notes.append(f'masks: {left} triplets that lack a modality left out')
      found = whole
    for triplet in self._thinned(found):
      parsed = triplet.parsed_path
      extra = {'device': path_layouts.device_of(parsed)}
      extra |= {**columns.by_video.get(parsed.video_id, {}), **columns.by_id.get(parsed.id, {})}
      path = next(iter(triplet.files.values()))
      row = SourceRow(parsed.example_fields(), triplet.files, path.rpartition('/')[0], extra=extra)
      plan.splits['masks' if _is_mask(parsed) else parsed.part].append(row)
    if not plan.splits['masks']:
      plan.notes.append('no masks in the source; the tests of the official protocols include them')
    return plan

  def _thinned(self, found: list[folders.Triplet]) -> list[folders.Triplet]:
    """As many frames of each video as the option requests, evenly spread."""
    if self.options['frames'] == 'all':
      return found
    wanted = int(self.options['frames'])
    videos = collections.defaultdict(list)
    for triplet in found:
      videos[triplet.parsed_path.video_id].append(triplet)
    return [
      video[k * len(video) // n]
      for video in videos.values()
      for n in [min(wanted, len(video))]
      for k in range(n)
    ]


def _is_mask(parsed: path_layouts.ParsedPath) -> bool:
  return parsed.subject.startswith(_MASKS)


def _protocol_files(files: list[Path]) -> list[Path]:
  """The protocol lists; of lists of images and lists of videos, the latter."""
  found = {}
  for file in files:
    if matched := _PROTOCOL.fullmatch(file.name):
      column, kind, part = matched.groups()
      found.setdefault((column, part), {})[kind] = file
  return [kinds.get('video') or next(iter(kinds.values())) for kinds in found.values()]


class _Columns:
  """The columns of protocols for the manifest: train, dev or test."""

  def __init__(self, found: list[folders.Triplet], plan: Plan):
    self.by_id: dict[str, dict[str, str]] = {}
    self.by_video: dict[str, dict[str, str]] = {}
    self._ids = {triplet.parsed_path.id for triplet in found}
    self._videos = {triplet.parsed_path.video_id for triplet in found}
    self._plan = plan

  def add(self, file: Path) -> None:
    """Reads a list; what it names and the source lacks is a finding."""
    column, _, part = _PROTOCOL.fullmatch(file.name).groups()
    anonymous = 0

    def found(rule: str, line: int, text: str) -> None:
      self._plan.findings.append(Finding(rule, str(file), line, label_mapping.strip_advice(text)))

    # Only the paths are used: releases disagree on what 0 and 1 mean, and paths do not.
    for row in lists.scan(file, label_mapping.DEFAULT, found):
      parsed = row.parsed_path or path_layouts.parse(
        f'{row.paths["rgb"]}/0.jpg'
      )  # a video is its folder
      if parsed is None or parsed.dataset != 'casia_cefa':
        anonymous += 1
        continue
      name = parsed.id if row.parsed_path else parsed.video_id
      place, there = (self.by_id, self._ids) if row.parsed_path else (self.by_video, self._videos)
      if name not in there:
        found('missing-file', row.line, f'{name} is not there')
      elif place.setdefault(name, {}).setdefault(column, part) != part:
        other = place[name][column]
        found('leak-video', row.line, f'{name} is in {other} and {part} of {column}')
    if anonymous:
      self._plan.notes.append(
        f'{file.name}: {anonymous} rows without a video in their names are skipped'
      )


def _with_device(row: SourceRow) -> SourceRow:
  """The row with the device that its path names as a column of the manifest."""
  device = path_layouts.device_of(path_layouts.parse(row.files['rgb']))
  return row._replace(extra={**row.extra, 'device': device})
