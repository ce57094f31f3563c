"""The vocabulary that every module shares: modalities, labels, metadata columns.

Each is defined here once, in one order, so that a number means the same in files, arrays and
tables. A further sensor is one more row of `TABLE`, after the others:
`Modality('thermal', 1, 'intensity', ('lwir',))`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Modality(NamedTuple):
  """A kind of sensor.

  Attributes:
    name: in columns, configs and subset names.
    channels: of a decoded image.
    values: 'color' (8 bits per channel), 'distance' (8 bits, or 16 bits in millimetres, 0 where
      nothing was measured) or 'intensity' (8 or 16 bits over the whole range).
    aliases: other names in column headers, folders and file names, in lower case.
  """

  name: str
  channels: int
  values: str
  aliases: tuple[str, ...] = ()


TABLE = (
  Modality('rgb', 3, 'color', ('color', 'colour')),
  Modality('depth', 1, 'distance'),
  Modality('ir', 1, 'intensity', ('infrared', 'nir')),
)
MODALITIES = tuple(modality.name for modality in TABLE)  # the order of `present` and subset names
LABELS = ('attack', 'bona_fide')  # a label's number is its index: attack 0, bona fide 1
CATEGORIES = (  # of attacks, whatever a data set calls its species
  'print',
  'replay',
  'cut_photo',
  'papermask',
  'rigidmask',
  'flexiblemask',
  'fakehead',
  'glasses',
  'makeup',
  'other',
)
METADATA = ('dataset', 'subject', 'video', 'attack_type', 'attack_category', 'ethnicity')

_BY_NAME = {modality.name: modality for modality in TABLE}
# {a modality's name or alias: its name}
ALIASES = {word: modality.name for modality in TABLE for word in (modality.name, *modality.aliases)}


def channels(modality: str) -> int:
  """Channels of a modality's decoded images."""
  return _BY_NAME[modality].channels


def is_color(modality: str) -> bool:
  """Whether a modality's images have colours."""
  return _BY_NAME[modality].values == 'color'


def is_distance(modality: str) -> bool:
  """Whether a modality's values are distances."""
  return _BY_NAME[modality].values == 'distance'


def is_intensity(modality: str) -> bool:
  """Whether a modality's values are intensities of one band."""
  return _BY_NAME[modality].values == 'intensity'


def subset_name(subset: Sequence[str]) -> str:
  """The name of a subset of the modalities, as score files have it.

  >>> subset_name(('rgb', 'depth'))
  'rgb+depth'
  """
  return '+'.join(subset)
