"""Images that samples of a prepared set share: leaks, contradictions, copies, near duplicates."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from flexfas_jax.data import cards
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.protocols import exact_duplicates, near_duplicates
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.schema import MODALITIES


def find(
  records: Sequence[Mapping], rows: Mapping[tuple[str, str], SourceRow], leak: bool = True
) -> list[Finding]:
  """Findings of images with the same bytes, see `exact_duplicates`, and of those that look alike.

  Files that rows of two splits name alike are left to the check of lists, and rows that are kept
  twice on purpose ('#2' behind their ids) are passed over.

  Args:
    records: of `cards.read_back`; those without a fingerprint have no near duplicates.
    rows: the source rows of the records, by (split, id).
    leak: whether an image in two splits is a leak, or a note.
  """
  records = [one for one in records if not re.search(r'#\d+$', one['id'])]
  parts = {
    split: list(some) for split, some in itertools.groupby(records, lambda one: one['split'])
  }
  digests = {split: _digests(some) for split, some in parts.items()}
  signal: dict[str, bool] = {}  # by digest

  def evidence(split: str):
    def carries(modality: str, i: int) -> bool:
      one = parts[split][i]
      digest = one[f'{modality}_sha256']
      if digest not in signal:
        signal[digest] = exact_duplicates.carries_signal(cards.image_of(one, modality), modality)
      return signal[digest]

    return carries

  def row_of(one: Mapping) -> SourceRow:
    return rows[one['split'], one['id']]

  def finding(rule: str, one: Mapping, text: str) -> Finding:
    row = row_of(one)
    return Finding(rule, row.list, row.row, text, one['id'])

  found = []  # sorted at the end: records are in the order of the shards
  for split, other in itertools.combinations(parts, 2):
    for i, k, modalities in exact_duplicates.find_shared(
      digests[split], digests[other], evidence(split)
    ):
      here, there = parts[other][i], parts[split][k]
      files = [[row_of(one).files.get(m, one['id']) for m in modalities] for one in (here, there)]
      if files[0] != files[1]:
        text = f'{" ".join(files[0])} of {other}: the same bytes as {" ".join(files[1])} of {split}'
        found.append(finding('leak-image' if leak else 'same-bytes', here, text))
  leaking = {f.id for f in found}
  for here, there, correlation in _alike(parts):
    files = [row_of(one).files.get(near_duplicates.MODALITY) for one in (here, there)]
    if here['id'] not in leaking and (files[0] != files[1] or not files[0]):
      text = f'{near_duplicates.MODALITY} of {here["id"]} of {here["split"]}: looks like that of '
      text += f'{there["id"]} of {there["split"]}, correlation {correlation:.2f}'
      found.append(finding('near-duplicate', here, text))
  for split, some in parts.items():
    for group in exact_duplicates.group_equal_rows(digests[split], evidence(split)):
      same = [some[i] for i in group]
      if len({one['label'] for one in same}) > 1:
        for one in same:
          other = next(o for o in same if o['label'] != one['label'])
          text = f'{one["id"]} is {one["label"]}, and {other["id"]} {other["label"]}'
          found.append(
            finding('label', one, f'{text}: the same bytes; take both out of the source')
          )
      else:
        text = f'the same bytes as {same[0]["id"]}'
        found += [finding('same-bytes', one, f'{one["id"]}: {text}') for one in same[1:]]
    videos = [one['video'] for one in some]
    for i, k, modality in exact_duplicates.find_frozen(digests[split], videos, evidence(split)):
      here, there = some[i], some[k]
      text = f'{modality} of {here["id"]}: the same bytes as of {there["id"]}, of another video'
      found.append(finding('frozen', here, text))
  return sorted(found, key=lambda f: (f.list, f.row, f.id))


def _alike(parts: Mapping[str, list[Mapping]]) -> Iterator[tuple[Mapping, Mapping, float]]:
  """Records of two splits and of different videos that look alike, and their correlation."""
  compared, fingerprints = {}, {}
  for split, part in parts.items():
    if records := [record for record in part if record.get('fingerprint')]:
      content = b''.join(record['fingerprint'] for record in records)
      compared[split] = records
      fingerprints[split] = np.frombuffer(content, np.uint8).reshape(len(records), -1)
  for split, other in itertools.combinations(fingerprints, 2):
    for row, place, correlation in near_duplicates.find(fingerprints[split], fingerprints[other]):
      here, there = compared[other][row], compared[split][place]
      if here['video'] != there['video']:
        yield here, there, correlation


def _digests(records: Sequence[Mapping]) -> dict[str, np.ndarray]:
  return {
    modality: exact_duplicates.digest_prefixes([one[f'{modality}_sha256'] for one in records])
    for modality in MODALITIES
  }
