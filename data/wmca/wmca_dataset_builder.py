"""TFDS builder of WMCA. See README.md in this folder."""

import collections
import functools
import re
from collections.abc import Mapping

import tensorflow_datasets as tfds

from flexfas_jax.data import flexmodal_lists, folders, reading
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.data.wmca import frames, protocols
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols import path_layouts
from flexfas_jax.protocols.findings import Finding

_LAYOUT = (
  'WMCA_preprocessed_RGB/WMCA/face-station/<dd.mm.yy>/<name>.hdf5 and '
  'WMCA_preprocessed_CDIT/WMCA/face-station/<dd.mm.yy>/<name>.hdf5'
)
_HALF = re.compile(r'.*_(RGB|CDIT)')  # of a folder: WMCA_preprocessed_RGB, face-station_RGB
# What options may be.
_VALUES = {
  'channel_order': 'rgb|bgr',
  'bits': '8|16',
  'every': r'[1-9]\d*',
  'frames': r'all|[1-9]\d*',
}
_AT_ONCE = 16  # files whose frames a worker lists
_CHECKED_VIDEOS = 20  # bona fide videos by which the order of the channels is checked
_SHOWN = 5  # names that a note lists

_CONFIGS = {
  'preprocessed': 'all frames that both halves of the preprocessed release hold, and the columns '
  "of WMCA's own protocols.",
  'flexmodal': 'the triplets of the published FlexModal list, without its redundant rows.',
  'flexmodal_published': 'the published FlexModal list row by row, redundant ones included.',
}


class Builder(SourceBuilder):
  """WMCA: faces, masks, prints and more, with 72 bona fide clients; one split, many protocols."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, description=f'WMCA: {text}')
    for name, text in _CONFIGS.items()
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "WMCA is handed out by Idiap under an academic end user's licence "
    f'(https://www.idiap.ch/dataset/wmca). Give --source=DIR that holds {_LAYOUT} (preprocessed), '
    'or WMCA-Image/R_CDIT/<name>/{color,depth,ir}/0012.jpg (flexmodal, flexmodal_published)'
  )
  RULES = image_checks.Rules(bits={'rgb': 8, 'depth': 8, 'ir': 8}, units=None, sizes='aspect')
  OPTIONS = {'channel_order': 'rgb', 'bits': '8', 'every': '1', 'frames': 'all'}

  def __init__(self, **kwargs):
    super().__init__(**kwargs)
    frames_of = self.builder_config.name == 'preprocessed'
    for option, value in self.options.items():
      if not re.fullmatch(_VALUES[option], value):
        raise ConfigError(f'--option {option}={value}: {_VALUES[option].replace("|", " or ")}')
      if value != self.OPTIONS[option] and not frames_of:
        raise ConfigError(f'--option {option}: only for wmca/preprocessed; the list has images')
    if not frames_of:
      sizes = image_checks.SIZES_OF['wmca']
      self.RULES = image_checks.Rules(bits=self.RULES.bits, units=None, sizes=sizes)
    elif self.options['bits'] == '16':
      bits = {'rgb': 8, 'depth': 16, 'ir': 16}
      self.RULES = image_checks.Rules(bits=bits, units=None, sizes='aspect')

  def reader(self) -> reading.Reader:
    """Frames come out of HDF5 files; the FlexModal export is files."""
    if self.builder_config.name != 'preprocessed':
      return super().reader()
    return frames.FrameReader(
      str(self.source), self.RULES, self.options['channel_order'], int(self.options['bits'])
    )

  def plan(self) -> Plan:
    """All videos, their frames by the keys of their files; or the rows of the FlexModal list."""
    if self.builder_config.name == 'preprocessed':
      return self._preprocessed()
    published = self.builder_config.name == 'flexmodal_published'
    plan = flexmodal_lists.plan(self, 'wmca', flexmodal_lists.WMCA, published)
    names = {_name(row) for rows in plan.splits.values() for row in rows}
    protocol_rows = protocols.read(self, names)
    plan.splits = {
      split: [
        row._replace(extra={**row.extra, **_columns(_name(row), protocol_rows)}) for row in rows
      ]
      for split, rows in plan.splits.items()
    }
    plan.findings += protocol_rows.findings
    plan.notes += protocol_rows.notes
    return plan

  def _preprocessed(self) -> Plan:
    plan = Plan({})
    halves = self._halves(plan)
    videos = self._videos(halves, plan)
    protocol_rows = protocols.read(self, [*halves['RGB'], *halves['CDIT']])
    plan.findings += protocol_rows.findings
    plan.notes += protocol_rows.notes
    plan.recorded['protocols'] = protocol_rows.sha256
    rows = []
    for name, numbers in videos.items():
      paths = {half: halves[half][name] for half in halves}
      extra = _columns(name, protocol_rows)
      rows += [_row(name, paths, frame, extra) for frame in self._chosen(numbers)]
    plan.splits = {'whole': rows}  # not 'all', which TFDS keeps for itself
    self._check_channel_order(rows, plan)
    return plan

  def _halves(self, plan: Plan) -> dict[str, dict[str, str]]:
    """{half: {video: path below the source}}."""
    halves = {'RGB': {}, 'CDIT': {}}
    elsewhere = 0
    for path in folders.find_files(self.source, '*.hdf5'):
      below = path.relative_to(self.source)
      marks = [found[1] for part in below.parts[:-1] if (found := _HALF.fullmatch(part))]
      if not marks:
        elsewhere += 1
        continue
      half = halves[marks[-1]]
      if path.stem in half:
        text = f'{path.stem} is there twice: {half[path.stem]} and {below.as_posix()}'
        plan.findings.append(
          Finding('duplicate', str(self.source), 0, text, path_layouts.wmca_id(path.stem))
        )
      half.setdefault(path.stem, below.as_posix())
    if not halves['RGB'] or not halves['CDIT']:
      have = ', '.join(f'{len(videos)} of {half}' for half, videos in halves.items())
      raise DataError(
        f'--source={self.source} is not the preprocessed release of WMCA. Expected: {_LAYOUT}; '
        f'found: {have}, {elsewhere} other HDF5 files'
      )
    if elsewhere:
      plan.notes.append(f'{elsewhere} HDF5 files in no folder of either half: not read')
    return halves

  def _videos(self, halves: Mapping[str, Mapping[str, str]], plan: Plan) -> dict[str, list[int]]:
    """{video: frames that both halves hold}, and what is wrong or left out."""

    def found(rule: str, text: str, name: str) -> None:
      plan.findings.append(Finding(rule, str(self.source), 0, text, path_layouts.wmca_id(name)))

    names = []
    for name in sorted(set(halves['RGB']) | set(halves['CDIT'])):
      lacking = [half for half, videos in halves.items() if name not in videos]
      try:
        path_layouts.wmca_video(name)
      except DataError as error:
        found('label', str(error), name)
      else:
        if lacking:
          found('missing-file', f'{name} has no file in the {lacking[0]} half', name)
        else:
          names.append(name)
    paths = [halves[half][name] for name in names for half in halves]
    tasks = [paths[i : i + _AT_ONCE] for i in range(0, len(paths), _AT_ONCE)]
    listing = functools.partial(frames.numbers, str(self.source))
    listed = [one for some in self._pool.map(listing, tasks, few=8) for one in some]
    videos, alone = {}, {}
    for i, name in enumerate(names):
      both = listed[2 * i : 2 * i + 2]
      if wrong := [text for _, text in both if text]:
        for text in wrong:
          found('unreadable', text, name)
        continue
      rgb, cdit = (set(numbers) for numbers, _ in both)
      if not rgb & cdit:
        text = f'{name}: no frame is in both halves ({len(rgb)} RGB, {len(cdit)} CDIT)'
        found('triplet', text, name)
        continue
      if rgb ^ cdit:
        alone[name] = len(rgb ^ cdit)
      videos[name] = sorted(rgb & cdit)
    if alone:
      some = ', '.join(list(alone)[:_SHOWN])
      more = ', ...' if len(alone) > _SHOWN else ''
      plan.notes.append(
        f'{sum(alone.values())} frames of {len(alone)} videos are in one half alone, and left '
        f'out: {some}{more}'
      )
    return videos

  def _chosen(self, numbers: list[int]) -> list[int]:
    """Every n-th frame, and at most so many of them, evenly spread."""
    numbers = numbers[:: int(self.options['every'])]
    if self.options['frames'] == 'all' or len(numbers) <= int(self.options['frames']):
      return numbers
    wanted = int(self.options['frames'])
    return [numbers[k * len(numbers) // wanted] for k in range(wanted)]

  def _check_channel_order(self, rows: list[SourceRow], plan: Plan) -> None:
    """Checks the channel order by skin, which has more red than blue."""
    reader, first = self.reader(), {}
    for row in rows:
      if row.facts['label'] == 'bona_fide':
        first.setdefault(row.facts['video'], row)
    redder = collections.Counter()
    for row in list(first.values())[:: max(1, len(first) // _CHECKED_VIDEOS)][:_CHECKED_VIDEOS]:
      path = row.files['rgb'].partition('#')[0]
      try:
        redder[frames.middle_is_red(reader, path, row.facts['frame'])] += 1
      except (image_checks.Unreadable, OSError):
        continue  # reported when it is read
    order = self.options['channel_order']
    text = (
      f'channel_order={order}: the middle of the face has more red than blue in {redder[True]} '
    )
    text += f'of {redder.total()} bona fide videos'
    if redder[False] > redder[True]:
      other = 'bgr' if order == 'rgb' else 'rgb'
      text += f'; skin has, so red and blue are exchanged: --option channel_order={other}'
      plan.findings.append(Finding('swapped', str(self.source), 0, text))
    elif redder:
      plan.notes.append(text)


def _row(name: str, paths: Mapping[str, str], frame: int, extra: Mapping[str, str]) -> SourceRow:
  # With four digits, as images exported from these files: the same triplet, the same id.
  number = f'{frame:04d}'
  facts = path_layouts.wmca_video(name, frame=number).example_fields()
  files = {
    'rgb': f'{paths["RGB"]}#color/{number}',
    'depth': f'{paths["CDIT"]}#depth/{number}',
    'ir': f'{paths["CDIT"]}#ir/{number}',
  }
  return SourceRow(facts, files, paths['RGB'], 0, extra=extra)


def _name(row: SourceRow) -> str:
  return row.facts['video'].rpartition('/')[2]


def _columns(name: str, protocol_rows: protocols.Protocols) -> dict[str, str]:
  """The columns of a video: its protocols, and the facts in its name."""
  _, session, presenter, _, _ = name.split('_')
  return {'presenter': presenter, 'session': session, **protocol_rows.columns.get(name, {})}
