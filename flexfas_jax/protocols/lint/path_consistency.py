"""Whether the paths of a row name one triplet, each in the column of its modality."""

import os

from flexfas_jax.protocols import lists, path_layouts


class PathConsistency:
  """Checks row after row; remembers how the paths of one triplet differ, to check fast."""

  def __init__(self):
    # By pair of modalities: the text in the first's path, and its replacement in the other's. Most
    # rows of a list differ in the same text and need no other test.
    self._replacements = {}

  def check(self, row: lists.ListRow) -> tuple[list[tuple[str, str]], bool | None]:
    """Checks the paths of a row.

    Returns:
      Problems as (rule, text). And for an unknown layout, whether the names are the same except
      for the modality; None if the layout is known or there is one path.
    """
    (first, path), *others = row.paths.items()
    parsed = row.parsed_path
    if not others:
      named = parsed.modality if parsed else path_layouts.modality_of(path)
      return [] if named in ('', first) else [_swapped(first, path, named)], None
    if not parsed or parsed.modality == first:
      for modality, other in others:
        before, after = self._replacements.get((first, modality), ('', ''))
        if not before or other == path or path.replace(before, after) != other:
          break
      else:
        return [], None if parsed else True
    return self._check_closely(row)

  def _check_closely(self, row: lists.ListRow) -> tuple[list[tuple[str, str]], bool | None]:
    problems, consistent = [], None
    parsed = {m: path_layouts.parse(path) for m, path in row.paths.items()}
    named = {
      m: p.modality if p else path_layouts.modality_of(row.paths[m]) for m, p in parsed.items()
    }
    if len(set(named.values())) == 1 and not any(parsed.values()):
      named = {}  # a word of all paths, as in 'rgb_depth/', names no modality
    (first, path), *others = row.paths.items()
    modality_of_file = {}
    for modality, other in row.paths.items():
      if other in modality_of_file:
        text = f'{modality_of_file[other]} and {modality} are one file: {other}'
        problems.append(('same-image', text))
        continue
      modality_of_file[other] = modality
      if named.get(modality, '') not in ('', modality):
        problems.append(_swapped(modality, other, named[modality]))
    for modality, other in others:
      if other == path:
        continue
      if parsed[first] and parsed[modality]:
        if parsed[first].id != parsed[modality].id:
          text = _describe_difference(first, parsed[first], modality, parsed[modality])
          problems.append(('triplet', text))
          continue
      else:
        same = path_layouts.without_modality(path) == path_layouts.without_modality(other)
        consistent = same if consistent is None else consistent and same
        if not same:
          continue
      if named.get(first) == first and named.get(modality) == modality:
        self._remember(first, path, modality, other)
    return problems, consistent

  def _remember(self, first: str, path: str, modality: str, other: str) -> None:
    start = len(os.path.commonprefix((path, other)))
    end = len(os.path.commonprefix((path[::-1], other[::-1])))
    before = path[_word_start(path, start) : _word_end(path, len(path) - end)]
    after = other[_word_start(other, start) : _word_end(other, len(other) - end)]
    if path.replace(before, after) == other:
      self._replacements[first, modality] = before, after


def _word_start(path: str, at: int) -> int:
  """The start of the word at a place, with the character before it."""
  while at > 0 and path[at - 1].isalpha():
    at -= 1
  return max(at - 1, 0)


def _word_end(path: str, at: int) -> int:
  """The end of the word at a place, with the character behind it."""
  while at < len(path) and path[at].isalpha():
    at += 1
  return min(at + 1, len(path))


def _swapped(modality: str, path: str, named: str) -> tuple[str, str]:
  return 'swapped', f'{modality} is {path}, which is named as {named}'


def _describe_difference(
  first: str, a: path_layouts.ParsedPath, second: str, b: path_layouts.ParsedPath
) -> str:
  return '; '.join(
    f'{name} {getattr(b, name) or "?"} of {second} is not {getattr(a, name) or "?"} of {first}'
    for name in ('dataset', 'subject', 'video', 'frame')
    if getattr(b, name) != getattr(a, name)
  )
