"""Names that everything shares: modalities, labels, what is recorded of a sample.

Each stands here once, in one order, so that a number means the same in files, arrays
and tables.
"""

from collections.abc import Sequence

MODALITIES = ('rgb', 'depth', 'ir')  # the order of `present` and of subsets' names
LABELS = ('attack', 'bona_fide')  # a label's number is its index: attack 0, bona fide 1
METADATA = ('dataset', 'subject', 'video', 'attack_type', 'attack_category', 'ethnicity')


def subset_name(subset: Sequence[str]) -> str:
  """The name of a subset of the modalities, as score files have it.

  >>> subset_name(('rgb', 'depth'))
  'rgb+depth'
  """
  return '+'.join(subset)
