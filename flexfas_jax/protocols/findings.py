"""The rules that lint, prepare and predict apply to lists and images, and findings of them."""

import csv
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

# {rule: what it finds; what to do}. Printed with findings and by `lint --help`.
RULES = {
  'row': 'a malformed row or an unreadable list; the text names the fault',
  'label': 'an unknown label or attack instrument, or one that contradicts the path; map labels '
  'with --labels',
  'duplicate': 'a triplet that is listed twice; remove all but one',
  'leak-file': 'a file in two splits; remove it from one',
  'leak-image': 'an image whose bytes are in another split, under another name; remove one',
  'leak-video': 'a video in two splits; remove it from one',
  'leak-subject': 'a subject in two splits; remove it from one',
  'triplet': 'frame, video or subject differ within a row',
  'swapped': 'an image in the column of another modality',
  'same-image': 'a modality is a copy of another, also mirrored, shifted or in other tones',
  'black': 'no signal: one colour, noise, or hardly any depth measured; treated as absent',
  'missing-file': 'no such file below the root',
  'unreadable': 'not a complete image: truncated, damaged, empty, no image, or outside the limits',
  'bit-depth': 'not the bit depth of this data set; bits are never dropped silently',
  'range': 'values that the stated unit cannot have',
  'colour': 'a colour image instead of one channel: a colour map cannot be inverted',
  'size': 'sizes of a triplet that registered images cannot have; --sizes selects another rule',
  'rotated': 'EXIF requires a rotation, which training does not apply: rotate it, or crop faces',
  'no-face': 'no face that can be cropped: none, cut by the border, or too small',
  'sha256': 'the bytes do not match the digest in the manifest',
  'outside-root': 'a path that leaves the root: absolute, or with ..',
  'shortcut': 'a property that predicts the label: balance it, or process all images alike',
  'line-endings': 'CRLF, or a byte order mark; harmless here, other readers keep them in the label',
  'frozen': 'a sensor repeats an image of another video, while the others do not; record it again',
  'same-bytes': 'all images of a sample equal those of another one of its split; remove one',
  'near-duplicate': 'an RGB image that looks like one of another split: encoded again or resized?',
  'no-split': 'rows without a split, where other rows have one; they form the split whole',
  'no-category': 'an attack type that is no category; prepare requires one, see --categories',
  'no-last-newline': 'the last line has no newline; a list appended to it loses its first row',
  'misspelt-column': 'a column whose name resembles a known one; rename it if it was meant',
}
# Rules of severity 'note': no action is needed. A builder records them and continues; lint
# exits with 0. All other rules are of severity 'error'.
WARNINGS = frozenset(
  {
    'black',
    'shortcut',
    'line-endings',
    'misspelt-column',
    'near-duplicate',
    'no-category',
    'no-last-newline',
    'no-split',
    'same-bytes',
  }
)


def severity(rule: str) -> str:
  """The severity of a rule of `RULES`: 'error' or 'note'."""
  return 'note' if rule in WARNINGS else 'error'


class Finding(NamedTuple):
  """One fault, and where it is."""

  rule: str  # of RULES
  list: str  # the list file, or the folder that was read
  row: int  # line of the file, counted from 1; 0: concerns several rows
  text: str  # the fault: paths, ids, values
  id: str = ''  # of the sample, if known

  def __str__(self) -> str:
    where = f'{self.list}:{self.row}' if self.row else self.list
    return f'{where}: {self.rule}: {self.text}'


def write_csv(path: str | pathlib.Path, findings: Iterable[Finding]) -> None:
  """Writes findings as CSV with the columns rule, list, row, text, id."""
  with open(path, 'w', encoding='utf-8', newline='', errors='backslashreplace') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(Finding._fields)
    writer.writerows(findings)
