"""One triplet of a source: its files, read, checked and described.

Worker processes import this module: keep its imports few.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from flexfas_jax import schema
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import encodings, geometry, units
from flexfas_jax.images import files as image_files
from flexfas_jax.protocols import near_duplicates, relative_paths
from flexfas_jax.protocols.findings import WARNINGS


class SourceRow(NamedTuple):
  """A triplet of a source before it is read."""

  facts: Mapping[str, Any]  # the fields of an example (`data/features.py`) without images
  files: Mapping[str, str]  # {modality: path below the source}, without absent ones
  list: str  # the list file or folder that contains it, for messages
  row: int = 0  # line of the list, counted from 1; 0: no list
  sha256: Mapping[str, str] = {}  # {modality: expected digest of the file}, where known
  extra: Mapping[str, str] = {}  # further columns of the prepared set's manifest
  split: str = ''  # of a manifest's row


class Outcome(NamedTuple):
  """The result of reading a row."""

  row: SourceRow
  images: Mapping[str, bytes]  # as they are stored
  problems: list[image_checks.Problem]  # (rule, text)


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads and checks rows; a data set in containers overrides `read_images`.

  Picklable: it is sent to worker processes, or to a Beam cluster.

  Attributes:
    source: root of the paths.
    rules: requirements on the images.
    max_pixels: limit of each image's width times height, checked before it is decoded.
    pinned: the digests of rows are those of stored images, not of source files.
  """

  source: str
  rules: image_checks.Rules = image_checks.Rules()
  max_pixels: int = dataclasses.field(default=image_files.MAX_PIXELS, kw_only=True)
  pinned: bool = dataclasses.field(default=False, kw_only=True)

  def read_images(self, row: SourceRow) -> dict[str, bytes]:
    """The encoded images of a row, by modality.

    Raises:
      OSError: a file cannot be read.
      image_checks.Unreadable: a container lacks the image.
    """
    return {modality: self.file(path) for modality, path in row.files.items()}

  def file(self, path: str) -> bytes:
    """The bytes of a regular file below the source, of at most `image_files.MAX_BYTES`."""
    return image_files.read(relative_paths.locate(self.source, path))

  def __call__(self, row: SourceRow) -> Outcome:
    """Reads and checks one row, and converts formats that training does not read.

    Problems are returned, never raised.
    """
    read = self.read(row)
    if _has_errors(read.problems):
      return read
    others = {m: one for m, one in read.images.items() if not image_files.is_jpeg_or_png(one)}
    columns = {f'source_{m}_sha256': image_checks.digest(one) for m, one in others.items()}
    columns |= {f'source_{m}_file': encodings.describe(one) for m, one in others.items()}
    made = self.as_stored(read._replace(row=row._replace(extra={**row.extra, **columns})))
    if not self.pinned or _has_errors(made.problems):
      return made
    changed = {m: one for m, one in made.images.items() if one is not read.images[m]}
    found = image_checks.check_digests(changed, row.sha256)
    return made._replace(
      problems=made.problems + [(rule, _with_path(row, text)) for rule, text in found]
    )

  def as_stored(self, read: Outcome) -> Outcome:
    """The images in the stored formats: JPEG and PNG unchanged, others as PNG."""
    images = dict(read.images)
    for modality, encoded in images.items():
      if not image_files.is_jpeg_or_png(encoded):
        image = image_checks.decode_for_modality(
          encoded, modality, read.row.files[modality], self.max_pixels
        )
        # Without a ValueError: the image was checked by the same units.
        images[modality] = encode(units.convert(image, modality, self.rules.units))
    return read._replace(images=images)

  def keeps_bytes(self, encoded: bytes) -> bool:
    """Whether an image is stored with the bytes of its file."""
    return image_files.is_jpeg_or_png(encoded)

  def read(self, row: SourceRow) -> Outcome:
    """Reads and checks one row without conversion."""
    if outside := [
      p for p in row.files.values() if relative_paths.leaves_root(relative_paths.normalize(p))
    ]:
      return Outcome(row, {}, [('outside-root', path) for path in outside])
    try:
      images = self.read_images(row)
    except FileNotFoundError:
      missing = {m: path for m, path in row.files.items() if not self.exists(path)} or row.files
      return Outcome(row, {}, [('missing-file', f'{m} {path}') for m, path in missing.items()])
    except image_checks.Unreadable as error:
      return Outcome(row, {}, [('unreadable', str(error))])
    except OSError as error:
      return Outcome(row, {}, [('unreadable', f'{error.filename}: {error.strerror}')])
    compared = {m: one for m, one in images.items() if not self.pinned or self.keeps_bytes(one)}
    found = image_checks.check_digests(compared, row.sha256)
    found += image_checks.inspect(images, self.rules, self.max_pixels)
    if not self.rules.frame:  # frames are turned before they are cropped
      found += image_checks.check_orientations(images)
    return Outcome(row, images, [(rule, _with_path(row, text)) for rule, text in found])

  def exists(self, path: str) -> bool:
    """Whether the file of a path exists; paths in containers are `file#name`."""
    return os.path.exists(relative_paths.locate(self.source, path.partition('#')[0]))


def encode(image: np.ndarray, quality: int = 0) -> bytes:
  """[H, W, 3] RGB or [H, W, 1] as a PNG, or a JPEG where it has 8 bits and a quality is given."""
  image = np.ascontiguousarray(image[..., ::-1])  # OpenCV expects blue first
  if quality and image.dtype == np.uint8:
    done, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
  else:
    done, encoded = cv2.imencode('.png', image)
  if not done:
    raise ValueError(f'OpenCV does not encode {image.dtype} of shape {image.shape}')
  return encoded.tobytes()


def _has_errors(problems: list[image_checks.Problem]) -> bool:
  return any(rule not in WARNINGS for rule, _ in problems)


def _with_path(row: SourceRow, text: str) -> str:
  """A problem that starts with a modality, after the path of its file."""
  return f'{row.files.get(text.split(" ", 1)[0], row.facts["id"])}: {text}'


def describe(images: Mapping[str, bytes], with_fingerprint: bool = False) -> dict[str, Any]:
  """Facts about the encoded images of an example, for the card and the manifest.

  Args:
    images: by modality; absent ones are b'' or left out.
    with_fingerprint: whether to add `fingerprint` of RGB, which `near_duplicates` compares.

  Returns:
    For each modality M: `M_sha256` ('': absent), `M_form` (file format, width, height, channels,
    bits; None: absent), `M_bytes`, and `M_file`, see `encodings.describe`. Of distances also
    `M_mm`: distance and relief in the face window; None of 8-bit images.
  """
  facts = {}
  for modality in schema.MODALITIES:
    encoded = images.get(modality, b'')
    form, file = _form_and_file(encoded) if encoded else (None, '')
    facts[f'{modality}_sha256'] = hashlib.sha256(encoded).hexdigest() if encoded else ''
    facts[f'{modality}_form'], facts[f'{modality}_file'] = form, file
    facts[f'{modality}_bytes'] = len(encoded)
    if schema.is_distance(modality):
      facts[f'{modality}_mm'] = None
      if form and form[4] == 16:
        image = geometry.decode(encoded, modality, 'card')
        facts[f'{modality}_mm'] = units.distance_and_relief(image)
  if with_fingerprint and images.get(near_duplicates.MODALITY):
    facts['fingerprint'] = near_duplicates.fingerprint(images[near_duplicates.MODALITY])
  return facts


def _form_and_file(encoded: bytes) -> tuple[tuple[str, int, int, int, int], str]:
  """`M_form` and `M_file` of an image, from its header."""
  try:
    header = image_files.header(encoded)
  except image_files.Unreadable:  # written by a builder without checks
    return ('unreadable', 0, 0, 0, 0), ''
  form = header.kind, header.width, header.height, header.channels, max(8, header.bits)
  return form, encodings.describe_with_header(encoded, header)


def read_all(reader: Reader, rows: list[SourceRow]) -> list[Outcome]:
  """Reads rows; runs in a worker process."""
  return [reader(row) for row in rows]


def make_task(reader: Reader) -> functools.partial:
  """`read_all` of one reader, to be mapped over lists of rows."""
  return functools.partial(read_all, reader)


class Described(NamedTuple):
  """An outcome without its row, which the main process has."""

  images: Mapping[str, bytes]
  problems: list[image_checks.Problem]
  described: Mapping[str, Any]  # from `describe`; empty if the row is left out
  extra: Mapping[str, str]  # columns of the manifest


def read_and_describe(
  reader: Reader, with_fingerprint: bool, rows: list[SourceRow]
) -> list[Described]:
  """Reads, checks and describes rows; runs in a worker process."""
  results = []
  for outcome in map(reader, rows):
    images, described = {}, {}
    if not _has_errors(outcome.problems):
      images = outcome.images
      described = describe(images, with_fingerprint)
    results.append(Described(images, outcome.problems, described, outcome.row.extra))
  return results
