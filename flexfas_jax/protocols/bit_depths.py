"""The bit depths that the images of one set must have, the same for lint and preparation."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

from flexfas_jax import schema
from flexfas_jax.images import files as image_files
from flexfas_jax.images.units import Units
from flexfas_jax.protocols import relative_paths

HEADERS = 400  # of a modality, by which its bit depth is settled
_PNG_HEADER = 25  # bytes, of which the last is the bit depth


def required(
  root: str | Path, paths: Mapping[str, Sequence[str]], stated: Units, depth_bits: int = 0
) -> tuple[dict[str, int], list[str]]:
  """The bits per channel of each modality: stated, or else those of most headers.

  Args:
    root: the folder that paths are relative to.
    paths: {modality: all of its files}.
    stated: units of 16-bit images; 8-bit images have none.
    depth_bits: of depth, 0: not stated.

  Returns:
    {modality: 8 or 16}, without modalities that have no readable image; and a note on each modality
    whose headers differ.
  """
  bits, notes = {}, []
  for modality, files in paths.items():
    if n := _stated(modality, stated, depth_bits):
      bits[modality] = n
      continue
    found = _count(root, files[:: max(1, len(files) // HEADERS)])
    if found:
      bits[modality] = found.most_common(1)[0][0]
    if len(found) > 1:
      counts = ', '.join(f'{n} with {b}' for b, n in found.most_common())
      notes.append(f'{modality}: {bits[modality]} bits, as most headers have ({counts})')
  return bits, notes


def _stated(modality: str, stated: Units, depth_bits: int) -> int:
  """Bits per channel that the options require; 0: they leave it open."""
  if schema.is_color(modality):
    return 8
  if schema.is_distance(modality):
    return depth_bits or (16 if stated.depth else 0)
  return 16 if stated.ir_bits else 0


def _count(root: str | Path, paths: Sequence[str]) -> collections.Counter:
  """{8 or 16 bits: number of images}, from their headers."""
  found = collections.Counter()
  for path in paths:
    if relative_paths.leaves_root(path):
      continue  # reported, and not opened
    file_path = relative_paths.locate(root, path)
    try:
      with image_files.open_regular(file_path) as file:
        header = file.read(_PNG_HEADER)
      if not image_files.is_jpeg_or_png(header):
        found[16 if image_files.header(image_files.read(file_path)).bits > 8 else 8] += 1
        continue
    except (OSError, image_files.Unreadable):
      continue  # reported when it is read
    if header.startswith(b'\x89PNG') and len(header) == _PNG_HEADER:
      found[16 if header[-1] == 16 else 8] += 1
    elif header.startswith(b'\xff\xd8'):
      found[8] += 1
  return found
