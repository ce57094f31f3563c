"""Whether the paths of a row go together, and stand in the right columns."""

import os

from flexfas_jax.protocols import lists, path_layouts


class PathConsistency:
  """Judges row after row, and learns from those that agree how the paths of a list differ."""

  def __init__(self):
    # By pair of modalities: what to replace in the first's path to get the other's. Most rows of a
    # list agree in the same words, and need no more than that.
    self._words = {}

  def __call__(self, row: lists.Row) -> tuple[list[tuple[str, str]], bool | None]:
    """Problems as (rule, text); and where a layout is not known, whether the names are alike."""
    (first, path), *others = row.paths.items()
    said = row.parsed_path
    if not others:
      claimed = said.modality if said else path_layouts.modality_of(path)
      return [] if claimed in ('', first) else [_swapped(first, path, claimed)], None
    if not said or said.modality == first:
      for modality, other in others:
        before, after = self._words.get((first, modality), ('', ''))
        if not before or other == path or path.replace(before, after) != other:
          break
      else:
        return [], None if said else True
    return self._closely(row)

  def _closely(self, row: lists.Row) -> tuple[list[tuple[str, str]], bool | None]:
    problems, alike = [], None
    says = {m: path_layouts.parse(path) for m, path in row.paths.items()}
    claims = {
      m: s.modality if s else path_layouts.modality_of(row.paths[m]) for m, s in says.items()
    }
    if len(set(claims.values())) == 1 and not any(says.values()):
      claims = {}  # a word that all paths have, as 'rgb_depth/', tells nothing
    (first, path), *others = row.paths.items()
    seen = {}
    for modality, other in row.paths.items():
      if other in seen:
        problems.append(('same-image', f'{seen[other]} and {modality} are one file: {other}'))
        continue
      seen[other] = modality
      if (claimed := claims.get(modality, '')) not in ('', modality):
        problems.append(_swapped(modality, other, claimed))
    for modality, other in others:
      if other == path:
        continue
      if says[first] and says[modality]:
        if says[first].id != says[modality].id:
          problems.append(('triplet', _apart(first, says[first], modality, says[modality])))
          continue
      else:
        same = path_layouts.without_modality(path) == path_layouts.without_modality(other)
        alike = same if alike is None else alike and same
        if not same:
          continue
      if claims.get(first) == first and claims.get(modality) == modality:
        self._learn(first, path, modality, other)
    return problems, alike

  def _learn(self, first: str, path: str, modality: str, other: str) -> None:
    start = len(os.path.commonprefix((path, other)))
    end = len(os.path.commonprefix((path[::-1], other[::-1])))
    before = path[_back(path, start) : _on(path, len(path) - end)]
    after = other[_back(other, start) : _on(other, len(other) - end)]
    if path.replace(before, after) == other:
      self._words[first, modality] = before, after


def _back(path: str, at: int) -> int:
  """Where the word begins, with the mark before it, that holds a place."""
  while at > 0 and path[at - 1].isalpha():
    at -= 1
  return max(at - 1, 0)


def _on(path: str, at: int) -> int:
  while at < len(path) and path[at].isalpha():
    at += 1
  return min(at + 1, len(path))


def _swapped(modality: str, path: str, claimed: str) -> tuple[str, str]:
  return 'swapped', f'{modality} is {path}, which its name says is {claimed}'


def _apart(
  one: str, said: path_layouts.ParsedPath, other: str, second: path_layouts.ParsedPath
) -> str:
  differ = [
    f'{name} {getattr(second, name) or "?"} of {other} is not {getattr(said, name) or "?"} of {one}'
    for name in ('dataset', 'subject', 'video', 'frame')
    if getattr(said, name) != getattr(second, name)
  ]
  return '; '.join(differ)
