"""Parses file paths in the layouts of published data sets.

`parse(path)` gives data set, subject, video, frame, modality, label and species of a path in a
known layout, otherwise None. Lists and builders share it, so that a row of any published list and a
file on disk have the same id: `casia_surf/CLKJ_AS0005/04_en_b/101`.

Sources: layouts and codes are from the data sets' documentation and FlexModal's protocol lists.
Inferred facts are marked here and in the builder's README.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from flexfas_jax import schema
from flexfas_jax.errors import DataError

UNKNOWN = 'unknown'  # species of an attack whose source names none

_MODALITY = {'color': 'rgb', 'profile': 'rgb', 'rgb': 'rgb', 'depth': 'depth', 'ir': 'ir'}
_PART = {'training': 'train', 'testing': 'test', 'dev': 'val', 'train': 'train', 'val': 'val'}
_PART |= {'test': 'test'}


class ParsedPath(NamedTuple):
  """The contents of a path; '' where it has none."""

  dataset: str
  modality: str  # one of `schema.MODALITIES`
  subject: str
  video: str  # within the subject
  frame: str  # as written: '0012'
  label: str  # 'bona_fide' or 'attack'
  attack_type: str  # the data set's own species
  attack_category: str  # the common vocabulary
  ethnicity: str = ''
  part: str = ''  # 'train', 'val' or 'test'

  @property
  def video_id(self) -> str:
    """Names the video among all data sets."""
    return '/'.join(filter(None, (self.dataset, self.subject, self.video)))

  @property
  def id(self) -> str:
    """Names the triplet among all data sets; the same for its three files."""
    return f'{self.video_id}/{self.frame}'

  def example_fields(self) -> dict:
    """The fields of an example (`data/triplets.py`) but its images."""
    return {
      'id': self.id,
      'label': self.label,
      'attack_type': self.attack_type,
      'attack_category': self.attack_category,
      'subject': self.subject and f'{self.dataset}/{self.subject}',
      'video': self.video_id,
      'frame': int(self.frame),
      'dataset': self.dataset,
      'ethnicity': self.ethnicity,
    }


def parse(path: str) -> ParsedPath | None:
  """Parses a path; None for an unknown layout or an unknown attack instrument.

  Args:
    path: with forward slashes, relative or absolute; only its end is parsed.
  """
  parsed = _parse(path)
  return parsed if isinstance(parsed, ParsedPath) else None


def find_unknown_instrument(path: str) -> str:
  """A message if a path names an attack instrument that its data set lacks, or ''.

  `parse` returns None for such a path, since its species and category would be invented.

  Args:
    path: as of `parse`.
  """
  parsed = _parse(path)
  return parsed if isinstance(parsed, str) else ''


_NUMBERED = re.compile(r'([0-9]+)((?:_resized)?\.\w+)')


def _parse(path: str) -> ParsedPath | str | None:
  """A parsed path, None for an unknown layout, or a message for an unknown instrument."""
  # Images of a folder differ only in the frame: the rest is parsed once.
  folder, slash, name = path.rpartition('/')
  if not (numbered := _NUMBERED.fullmatch(name)):
    return _parse_cached(path)
  frame, rest = numbered.groups()
  parsed = _parse_cached(f'{folder}{slash}0{rest}')
  if not isinstance(parsed, ParsedPath):
    return parsed
  return ParsedPath(*parsed[:4], frame, *parsed[5:])  # faster than _replace, in millions of rows


@functools.lru_cache(8192)  # folders; paths in unknown layouts, which are kept as long
def _parse_cached(path: str) -> ParsedPath | str | None:
  for marks, pattern, make in _LAYOUTS:
    if any(mark in path for mark in marks) and (match := pattern.search(path)):
      try:
        return make(match)
      except DataError as error:
        return str(error)
  return None


def device_of(parsed: ParsedPath) -> str:
  """The device of a CeFA path, which names it; '' for other layouts."""
  parts = parsed.video.split('_')
  if parsed.dataset != 'casia_cefa' or len(parts) < 5:
    return ''
  mask = parsed.subject.startswith(tuple(_CEFA_3D))
  number = parts[4] if mask else parts[2]
  return (_CEFA_MASK_DEVICE if mask else _CEFA_DEVICE).get(number, number)


# {word: modality}, as whole words of any path: 'a/Depth/1.png', 'a_ir.jpg'. CeFA has 'profile'.
MODALITY_WORDS = schema.ALIASES | {'profile': 'rgb'}
_WORD = re.compile(rf'(?:^|[/_.-])({"|".join(MODALITY_WORDS)})(?=[/_.-]|$)', re.IGNORECASE)


def modality_of(path: str) -> str:
  """The last modality that a path in any layout names, or ''."""
  words = _WORD.findall(_stem(path))
  return MODALITY_WORDS[words[-1].lower()] if words else ''


def without_modality(path: str) -> str:
  """A path in any layout without its extension and the words that name a modality.

  It is the same for the files of a triplet whose names differ only in the modality:
  'a/0012' for 'a/depth/0012.png' and 'a/color/0012.jpg'.
  """
  return _WORD.sub('', _stem(path)).lstrip('/')


def _stem(path: str) -> str:
  folder, slash, name = path.rpartition('/')
  return folder + slash + (name.rpartition('.')[0] or name)


# CASIA-SURF. Eyes, nose, mouth cut out (e, n, m); s is flat and b bent (inferred).
SURF_SPECIES = ('01_e_s', '02_e_b', '03_en_s', '04_en_b', '05_enm_s', '06_enm_b')
_SURF = re.compile(
  r'(?:(Training|Val|Testing)/)?(real|fake)_part/(?:(?:real|fake)_(train|val|test)_part/)?'
  r'(CLKJ_[A-Z]+\d+)/(real|\d\d(?:_[a-z]+_[a-z])?)\.rssdk/(color|depth|ir)/'
  r'(\d+)(?:_resized)?\.\w+$'
)
# The challenge's later phases: only a number; lists have the labels.
_SURF_PHASES = re.compile(r'(Val|Testing)/(\d+)/(\d+)-(color|depth|ir)\.\w+$')


def _surf(match: re.Match) -> ParsedPath:
  folder, part, subfolder, subject, clip, kind, frame = match.groups()
  live = part == 'real'
  # The number of live clips in the later release is not documented.
  species = '' if live else next((s for s in SURF_SPECIES if s.startswith(clip[:2])), '')
  if clip in SURF_SPECIES if live else not species:
    raise DataError(f'{subject}: CASIA-SURF has no clip {clip} in {part}_part')
  return ParsedPath(
    'casia_surf',
    _MODALITY[kind],
    subject,
    species or 'real',
    frame,
    'bona_fide' if live else 'attack',
    species,
    '' if live else 'cut_photo',
    part=_PART[(folder or subfolder or 'train').lower()] if folder or subfolder else '',
  )


def _surf_phase(match: re.Match) -> ParsedPath:
  folder, _, number, kind = match.groups()
  return ParsedPath(
    'casia_surf', _MODALITY[kind], '', folder, number, '', '', '', part=_PART[folder.lower()]
  )


# CeFA: Race_ID_AcqDevice_Session_PAI, below AF-000 (or AF-000-CARD in the raw release, CARD being
# an identity card's number, which is dropped), or below train/ in the challenge's phases.
_CEFA = re.compile(
  r'(?:(AF|CA|EA)-(\d+)(?:-\w+)?/|^|/)([123])_(\d+)_(\d)_(\d)_(\d)/'
  r'(color|profile|depth|ir)/(\d+)\.\w+$'
)
_CEFA_DEVICE = {'1': 'rssdk', '2': 'mp4', '3': 'bag', '4': 'MOV'}
_CEFA_MASK_DEVICE = {'1': 'camera', '2': 'D435i'}
_CEFA_RACE = {'1': 'AF', '2': 'CA', '3': 'EA'}
_CEFA_MASK = re.compile(
  r'(3D-Mask|Silicone-Mask)/(?:[^/]+/)?((\d)_(\d+)(?:_\d)+)/(color|profile|depth|ir)/(\d+)\.\w+$'
)
_CEFA_2D = {
  ('2', '1'): ('cloth_indoor', 'print'),
  ('2', '2'): ('cloth_outdoor', 'print'),
  ('3', '1'): ('picture_indoor', 'print'),
  ('3', '2'): ('picture_outdoor', 'print'),
  ('4', '1'): ('replay', 'replay'),
  ('4', '2'): ('replay_outdoor', 'replay'),
}
# The first number of their names is the kind of mask, not a race: the ethnicity is unknown. It is
# inferred that a mask printed in 3D is rigid, and one of silicone flexible.
_CEFA_3D = {
  '3D-Mask': ('3d_mask', 'rigidmask'),
  'Silicone-Mask': ('silicone_mask', 'flexiblemask'),
}


def without_cards(text: str) -> str:
  """Text without the numbers of identity cards in the names of CeFA's folders."""
  return re.sub(r'\b((?:AF|CA|EA)-\d{3})-\w+', r'\1', text)


def cefa_part(subject: int) -> str:
  """The official split of a CeFA subject of the 2D part, by its number (0 to 499)."""
  return 'train' if subject < 200 else 'val' if subject < 300 else 'test'


def _cefa(match: re.Match) -> ParsedPath | None:
  folder, same, first, number, device, session, pai, kind, frame = match.groups()
  race = _CEFA_RACE[first]
  if folder and (folder, same) != (race, number):
    return None  # two subjects in one path
  clip = f'{first}_{number}_{device}_{session}_{pai}'
  species, category = ('', '')
  if pai != '1':
    if (pai, session) not in _CEFA_2D:
      raise DataError(f'{clip}: CeFA has no instrument {pai} in session {session}')
    species, category = _CEFA_2D[pai, session]
  return ParsedPath(
    'casia_cefa',
    _MODALITY[kind],
    f'{race}-{number}',
    clip,
    frame,
    'attack' if species else 'bona_fide',
    species,
    category,
    race,
    cefa_part(int(number)),
  )


def _cefa_mask(match: re.Match) -> ParsedPath:
  folder, clip, _, number, kind, frame = match.groups()
  return ParsedPath(
    'casia_cefa',
    _MODALITY[kind],
    f'{folder}-{number}',
    clip,
    frame,
    'attack',
    *_CEFA_3D[folder],
    part='test',
  )


# WMCA: client_session_presenter_type_pai.
_WMCA_NAME = re.compile(r'(\d{3})_(\d{2})_(\d{3})_(\d)_(\d{2})')
_WMCA = re.compile(
  r'(\d{3}_\d{2}_\d{3}_\d_\d{2})(?:\.hdf5)?[/#](color|depth|ir)[/#](?:Frame_)?(\d+)(?:\.\w+)?$'
)


def wmca_category(kind: int, pai: int) -> str | None:
  """WMCA's category of a pair of type and instrument: '' for bona fide, None for no known pair.

  The type alone is not enough: masks and heads share type 2, glasses and masks type 1.
  """
  return _WMCA_CATEGORY.get((kind, pai))


def _pairs(category: str, kind: int, *numbers: int) -> dict:
  return {(kind, number): category for number in numbers}


_WMCA_CATEGORY = {
  **_pairs('', 0, 0, 1, 2),
  **_pairs('glasses', 1, 1, 4, 5, 6, 7, 15, 16),
  **_pairs('rigidmask', 1, 2, 13, 14),
  **_pairs('rigidmask', 2, *range(12, 18)),
  **_pairs('fakehead', 2, *range(1, 8)),
  **_pairs('papermask', 2, *range(8, 12)),
  **_pairs('flexiblemask', 2, 18, *range(75, 100)),
  **_pairs('print', 3, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14),
  **_pairs('replay', 3, 5, 10, 15),
  **_pairs('replay', 4, *range(1, 19)),
}


def wmca_id(name: str) -> str:
  """The unique name of a WMCA video such as '001_01_000_2_08' among all data sets."""
  return f'wmca/{name.partition("_")[0]}/{name}'


def wmca_video(name: str, modality: str = 'rgb', frame: str = '0') -> ParsedPath:
  """Parses the name of a WMCA video.

  Args:
    name: client_session_presenter_type_pai, e.g. '001_01_000_2_08'.
    modality, frame: of the result.

  Raises:
    DataError: an invalid name, or a pair of type and instrument that the data set lacks.
  """
  match = _WMCA_NAME.fullmatch(name)
  if not match:
    raise DataError(f'{name!r} is not a WMCA video: client_session_presenter_type_pai')
  client, _, _, kind, pai = match.groups()
  category = wmca_category(int(kind), int(pai))
  if category is None:
    raise DataError(f'{name}: WMCA has no type {kind} with instrument {pai}')
  live = kind == '0'
  return ParsedPath(
    'wmca',
    modality,
    client,
    name,
    frame,
    'bona_fide' if live else 'attack',
    '' if live else f'{kind}_{pai}',
    category,
  )


def _wmca(match: re.Match) -> ParsedPath:
  name, kind, frame = match.groups()
  return wmca_video(name, _MODALITY[kind], frame)


# (Texts of which a path must contain one, for speed; pattern; function of a match.)
_LAYOUTS: tuple[tuple[tuple[str, ...], re.Pattern, Callable], ...] = (
  (('.rssdk',), _SURF, _surf),
  (('_1_', '_2_', '_3_'), _CEFA, _cefa),
  (('-Mask/',), _CEFA_MASK, _cefa_mask),
  (('_',), _WMCA, _wmca),
  (('Val/', 'Testing/'), _SURF_PHASES, _surf_phase),
)
