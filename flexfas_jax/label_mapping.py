"""What the labels of a file mean: the one rule of lists, manifests and score files.

`bona_fide` and `attack` always mean themselves. Besides, 1 is bona fide and 0 attack, unless the
user gives a mapping (`--labels=live=bona_fide,spoof=attack`): it replaces this default, so that a
value that is not in it is refused. Nothing else is guessed.
"""

import functools
import re
from collections.abc import Mapping

from flexfas_jax.errors import ConfigError
from flexfas_jax.schema import LABELS

DEFAULT = {'0': 'attack', '1': 'bona_fide'}
_WHOLE = re.compile(r'([+-]?[0-9]+)[.,]0*')  # 1.0 or 1,0, as a table of floats has it
_WAY_OUT = '. Map it with '
_BONA_FIDE = {'bonafide', 'live', 'genuine', 'real', 'none', 'noattack'}
_BOOLEANS = {'false': '0', 'true': '1'}


def parse(text: str) -> dict[str, str]:
  """A mapping of labels as it is written on a command line.

  >>> parse('live=bona_fide,0=attack')
  {'live': 'bona_fide', '0': 'attack'}

  Raises:
    ConfigError: anything else; no pair at all; a value mapped twice; a target that is no label.
  """
  labels = {}
  for pair in filter(str.strip, text.split(',')):
    value, _, label = (part.strip() for part in pair.rpartition('='))
    if not value or label not in LABELS:
      raise ConfigError(
        f'{pair!r} in the labels: write VALUE=bona_fide or VALUE=attack, separated by commas, '
        'e.g. live=bona_fide,0=attack'
      )
    value = normalize(value)
    if value in labels or (value in LABELS and value != label):
      raise ConfigError(f'{pair!r} in the labels: {value!r} already means something')
    labels[value] = label
  if not labels:
    raise ConfigError('the labels are empty: write VALUE=bona_fide or VALUE=attack')
  return labels


def normalize(cell: str) -> str:
  """A label's text as mappings have it: without blanks; 1.0 and 1,0 are 1, `Attack` `attack`."""
  text = cell.strip()
  if text.casefold() in LABELS:
    return text.casefold()
  whole = _WHOLE.fullmatch(text)
  return str(int(whole[1])) if whole else text


def means_bona_fide(kind: str) -> bool:
  """Whether an attack's kind names none: a row that has it contradicts its label."""
  return re.sub(r'[\W_]+', '', kind).casefold() in _BONA_FIDE


def strip_advice(text: str) -> str:
  """What `LabelMapping.unknown` reports, for a builder that takes no mapping."""
  return text.partition(_WAY_OUT)[0]


class LabelMapping:
  """What the text of a cell means.

  Args:
    mapping: {value: label} from `parse`; None is `DEFAULT`. Booleans are read as the numbers 0 and
      1 where the mapping has no entry of their own.
  """

  def __init__(self, mapping: Mapping[str, str] | None = None):
    self._labels = {label: label for label in LABELS}
    self._labels |= DEFAULT if mapping is None else mapping
    self._given = ''.join(f'{value}={label},' for value, label in (mapping or {}).items())
    self.label = functools.cache(self._interpret)  # files have millions of cells and few spellings

  def _interpret(self, cell: str) -> str:
    """The label, one of LABELS.

    Raises:
      KeyError: the cell, if it has no meaning.
    """
    text = normalize(cell)
    if text not in self._labels:
      text = _BOOLEANS.get(text.casefold(), text)
    if text not in self._labels:
      raise KeyError(cell)
    return self._labels[text]

  def unknown(self, cell: str) -> str:
    """What to report about a cell without a meaning, and the way out, whatever its polarity."""
    value = cell.strip()
    expected = sorted(v for v in self._labels if v not in LABELS) + ['bona_fide', 'attack']
    listed = f'{", ".join(expected[:-1])} or {expected[-1]}'
    if not value:
      return f'the label is empty; expected {listed}'
    if ',' in value:  # no mapping can name it
      return f'unknown label {value!r}; expected {listed}. Rename it in the file, without commas'
    return (
      f'unknown label {value!r}; expected {listed}{_WAY_OUT}'
      f'--labels={self._given}{value}=bona_fide or --labels={self._given}{value}=attack'
    )
