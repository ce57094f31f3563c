"""The members of an ensemble: which network, seed, fold and view each score file is of, and whether
they belong together.

A member's coordinates are in its header, `"member": {"network": ..., "seed": ..., "fold": ...,
"view": ...}`, or in its name. Views may also be columns of one file, called SUBSET@VIEW; the plain
SUBSET beside them is a view too. What is averaged over what is in `ensembles`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.evaluation.ensemble import averaging
from flexfas_jax.evaluation.score_files import Scores

COORDINATES = averaging.COORDINATES
PLAIN = 'plain'  # the view of a column without @VIEW beside columns with one
_DEFAULT = re.compile(
  r'(?P<network>.+?)(?:_seed(?P<seed>[^_/]+))?(?:_fold(?P<fold>[^_/]+))?(?:_view(?P<view>[^_/]+))?'
)


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
  """A score file and where it stands."""

  scores: Scores  # its columns called SUBSET or SUBSET@VIEW
  at: averaging.Key  # (network, seed, fold, view), '' = not known
  sha256: str  # of the file

  @property
  def path(self) -> Path:
    return self.scores.path

  @property
  def subsets(self) -> list[str]:
    return list(dict.fromkeys(name.partition('@')[0] for name in self.scores.scores))

  def views(self, subset: str) -> dict[str, np.ndarray]:
    """{view: [N]} of a subset; the only view is called as the file is."""
    found = {}
    for name, score in self.scores.scores.items():
      own, at, view = name.partition('@')
      if own == subset:
        found[view if at else PLAIN] = score
    if list(found) == [PLAIN]:
      return {self.at[3]: found[PLAIN]}
    return {'/'.join(filter(None, (self.at[3], view))): score for view, score in found.items()}


def compile_pattern(text: str) -> re.Pattern:
  """What finds coordinates in the end of a path without its `.csv`.

  Args:
    text: e.g. '{network}_{seed}_{fold}' or 'runs/{network}_seed{seed}/scores/*'; a coordinate or *
      stands for anything but a slash, and as little of it as fits.

  Raises:
    ConfigError: no coordinate, an unknown one, or one that is there twice.
  """
  parts = re.split(r'(\{\w*\}|\*)', text)
  names = [part[1:-1] for part in parts if part.startswith('{')]
  if not names or set(names) - set(COORDINATES) or len(set(names)) < len(names):
    raise ConfigError(
      f'--name={text}: it must have some of {", ".join(f"{{{c}}}" for c in COORDINATES)}, each once'
    )
  found = ''
  for part in parts:
    if part.startswith('{'):
      found += f'(?P<{part[1:-1]}>[^/]+?)'
    else:
      found += '[^/]*?' if part == '*' else re.escape(part)
  return re.compile(found)


def read(
  paths: Sequence[Path],
  reader: Callable[[Path], Scores] = score_files.read,
  name: re.Pattern | None = None,
  views: Sequence[str] = (),
) -> tuple[list[Member], bool]:
  """Reads members and finds their coordinates.

  Args:
    paths: of score files.
    reader: reads one.
    name: from `compile_pattern`; None: the header of the file, or names like NETWORK_seedN_foldN of
      the file or of the run that contains scores/.
    views: columns that are views of one subset, which is then called score; others are left out.

  Returns:
    (members, whether their coordinates are known; they are alike otherwise, each a network).

  Raises:
    ConfigError: a file that is given twice; one without coordinates where others have them; two
      with the same; a column of `views` that is not there.
    DataError: a file that cannot be read; a header whose member makes no sense; the same scores in
      two files.
  """
  whole = {}
  for path in map(Path, paths):
    if (same := whole.setdefault(path.resolve(), path)) is not path:
      other_name = f' (also as {same})' if same != path else ''
      raise ConfigError(f'{path} is given twice{other_name}')
  found = [(reader(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in whole.values()]
  places = [_place(scores, name) for scores, _ in found]
  known = any(places)
  if known and not all(places):
    path = found[places.index(None)][0].path
    raise ConfigError(
      f'{path}: neither its header nor its name states its network, seed and fold, as those of '
      'other members do; give the pattern of the names: '
      "--name='{network}_seed{seed}_fold{fold}'"
    )
  stems = _distinct_names([scores.path for scores, _ in found])
  members = []
  for (scores, digest), place, stem in zip(found, places, stems, strict=True):
    place = place or {'network': stem}
    at = tuple(place.get(c) or '' for c in COORDINATES)
    members.append(Member(_with_views(scores, views), at, digest))
  _each_once(members)
  return members, known


def _place(scores: Scores, name: re.Pattern | None) -> dict[str, str] | None:
  tail = scores.path.with_suffix('').as_posix()
  if name is not None:
    found = re.search(f'(?:^|/){name.pattern}$', tail)
    return found.groupdict('') if found else None
  if (coordinates := scores.header.get('member')) is not None:
    names_are_valid = (
      isinstance(coordinates, Mapping) and coordinates and set(coordinates) <= set(COORDINATES)
    )
    if not names_are_valid or not all(
      isinstance(x, str | int) and '/' not in str(x) for x in coordinates.values()
    ):
      raise DataError(
        f'{score_files.header_path(scores.path)}: member is {coordinates!r}; it must have some of '
        f'{", ".join(COORDINATES)}, each a short text or a number'
      )
    return {c: str(x) for c, x in coordinates.items()}
  candidates = [scores.path.stem]
  if scores.path.parent.name == 'scores':
    candidates.append(scores.path.absolute().parent.parent.name)  # RUN/scores/TEST.csv
  for candidate in candidates:
    found = _DEFAULT.fullmatch(candidate)
    if found and any(found[c] for c in COORDINATES[1:]):
      return found.groupdict('')
  return None


def _distinct_names(paths: Sequence[Path]) -> list[str]:
  """Stems, or the shortest parts of the paths that are unique."""
  stems = [path.stem for path in paths]
  same = {stem for stem in stems if stems.count(stem) > 1}
  return [
    p.with_suffix('').as_posix() if s in same else s for p, s in zip(paths, stems, strict=True)
  ]


def _with_views(scores: Scores, views: Sequence[str]) -> Scores:
  if lacking := [view for view in views if view not in scores.scores]:
    raise ConfigError(
      f'--views: {scores.path} has no scores {lacking[0]}, only {", ".join(scores.scores)}'
    )
  if views:
    scores = dataclasses.replace(
      scores,
      scores={f'score@{v}': scores.scores[v] for v in views},
      nan_samples={f'score@{v}': scores.nan_samples[v] for v in views if v in scores.nan_samples},
    )
  for column in scores.scores:
    subset, at, view = column.partition('@')
    if at and (not subset or not view or '@' in view or '/' in view or view == PLAIN):
      raise DataError(f'{scores.path}: the column {column} must be called SUBSET@VIEW')
  return scores


def _each_once(members: Sequence[Member]) -> None:
  """Raises where a member is there twice, under whatever name."""
  places, digests, hashes = {}, {}, {}
  for length in range(3):  # a coordinate is known of all parts of a mean, or of none
    of = {}
    for member in members:
      lacks = not member.at[length]
      if (other := of.setdefault(member.at[:length], (lacks, member)))[0] != lacks:
        pair = [member, other[1]][:: 1 if lacks else -1]
        raise ConfigError(
          f'{pair[0].path} ({describe(pair[0].at)}) has no {COORDINATES[length]}, but '
          f'{pair[1].path} ({describe(pair[1].at)}) has one; give the pattern of the names (--name)'
        )
  for member in members:
    weights = member.scores.header.get('weights_hash')
    if (other := places.setdefault(member.at, member)) is not member:
      raise ConfigError(
        f'{other.path} and {member.path} are both {describe(member.at)}; give the pattern of '
        'the names (--name), or only one of them'
      )
    if (other := digests.setdefault(_content(member), member)) is not member:
      raise DataError(
        f'{other.path} and {member.path} have the same scores: one network counts once'
      )
    if weights and (other := hashes.setdefault((weights, member.at[3]), member)) is not member:
      raise StateError(
        f'{other.path} and {member.path} are of the same weights ({weights}): one network counts '
        'once, and its score files must differ in their view'
      )


def _content(member: Member) -> bytes:
  order = np.argsort(member.scores.ids)
  digest = hashlib.sha256()
  for name, score in sorted(member.scores.scores.items()):
    digest.update(name.encode() + score[order].tobytes())
  return digest.digest()


def describe(at: averaging.Key) -> str:
  """'exp2, seed 1, fold 3'."""
  parts = [f'{c} {x}' if c != 'network' else x for c, x in zip(COORDINATES, at, strict=False) if x]
  return ', '.join(parts) or 'of no known network'


def file_stem(at: averaging.Key) -> str:
  """'exp2_seed1_fold3', as a file or a row is called; '' for the ensemble."""
  parts = [x if c == 'network' else f'{c}{x}' for c, x in zip(COORDINATES, at, strict=False) if x]
  return '_'.join(parts).replace('/', '_')
