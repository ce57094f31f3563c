"""One triplet of a source: which files it is made of, and their bytes, checked and described.

Light on purpose: worker processes import it.
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


class Row(NamedTuple):
  """A triplet to be read."""

  facts: Mapping[str, Any]  # the fields of an example (`data/triplets.py`) but its images
  files: Mapping[str, str]  # {modality: path below the source}, absent ones left out
  list: str  # the list file or folder that named it, for messages
  row: int = 0  # line of the list, counted from 1; 0: no list
  sha256: Mapping[str, str] = {}  # {modality: what the bytes must be}, where it is known
  extra: Mapping[str, str] = {}  # columns of its own in the prepared set's manifest


class Outcome(NamedTuple):
  """What became of a row."""

  row: Row
  images: Mapping[str, bytes]  # as they go into the example
  problems: list[image_checks.Problem]  # (rule, text)


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads rows; a data set whose pictures are not files has its own `pictures`.

  Picklable: it is sent to worker processes, or to a Beam cluster.

  Attributes:
    source: the root that paths are below.
    rules: what the pictures must be.
    max_pixels: limit of each image's width times height, checked before it is decoded.
    pinned: rows name the digests of what is stored, not of what is read.
  """

  source: str
  rules: image_checks.Rules = image_checks.Rules()
  max_pixels: int = dataclasses.field(default=image_files.MAX_PIXELS, kw_only=True)
  pinned: bool = dataclasses.field(default=False, kw_only=True)

  def pictures(self, row: Row) -> dict[str, bytes]:
    """The encoded pictures of a row, by modality.

    Raises:
      OSError: a file cannot be read.
      image_checks.Unreadable: a container does not hold what it should.
    """
    return {modality: self.file(path) for modality, path in row.files.items()}

  def file(self, path: str) -> bytes:
    """The bytes of a regular file below the source, of at most `image_files.MAX_BYTES`."""
    return image_files.read(relative_paths.locate(self.source, path))

  def __call__(self, row: Row) -> Outcome:
    """Reads and checks one row, and converts what training does not read.

    What is wrong is returned, never raised.
    """
    read = self.read(row)
    if _errors(read.problems):
      return read
    others = {m: one for m, one in read.images.items() if not image_files.is_jpeg_or_png(one)}
    columns = {f'source_{m}_sha256': image_checks.digest(one) for m, one in others.items()}
    columns |= {f'source_{m}_file': encodings.describe(one) for m, one in others.items()}
    made = self.stored(read._replace(row=row._replace(extra={**row.extra, **columns})))
    if not self.pinned or _errors(made.problems):
      return made
    changed = {m: one for m, one in made.images.items() if one is not read.images[m]}
    found = image_checks.check_digests(changed, row.sha256)
    return made._replace(
      problems=made.problems + [(rule, _where(row, text)) for rule, text in found]
    )

  def stored(self, read: Outcome) -> Outcome:
    """The images as they are stored: as they are, and other formats than JPEG and PNG as PNG."""
    images = dict(read.images)
    for modality, encoded in images.items():
      if not image_files.is_jpeg_or_png(encoded):
        image = image_checks.decode_for_modality(
          encoded, modality, read.row.files[modality], self.max_pixels
        )
        # Without a ValueError: the image was checked by the same units.
        images[modality] = encode(units.convert(image, modality, self.rules.units))
    return read._replace(images=images)

  def keeps(self, encoded: bytes) -> bool:
    """Whether an image is stored as the bytes that it is."""
    return image_files.is_jpeg_or_png(encoded)

  def read(self, row: Row) -> Outcome:
    """Reads and checks one row, as the source has it."""
    if outside := [
      p for p in row.files.values() if relative_paths.leaves_root(relative_paths.normalize(p))
    ]:
      return Outcome(row, {}, [('outside-root', path) for path in outside])
    try:
      images = self.pictures(row)
    except FileNotFoundError:
      missing = {m: path for m, path in row.files.items() if not self.exists(path)} or row.files
      return Outcome(row, {}, [('missing-file', f'{m} {path}') for m, path in missing.items()])
    except image_checks.Unreadable as error:
      return Outcome(row, {}, [('unreadable', str(error))])
    except OSError as error:
      return Outcome(row, {}, [('unreadable', f'{error.filename}: {error.strerror}')])
    compared = {m: one for m, one in images.items() if not self.pinned or self.keeps(one)}
    found = image_checks.check_digests(compared, row.sha256)
    found += image_checks.inspect(images, self.rules, self.max_pixels)
    if not self.rules.frame:  # frames are turned, then cropped
      found += image_checks.check_orientations(images)
    return Outcome(row, images, [(rule, _where(row, text)) for rule, text in found])

  def exists(self, path: str) -> bool:
    """Whether a row's path leads to something; containers write `file#what`."""
    return os.path.exists(relative_paths.locate(self.source, path.partition('#')[0]))


def encode(image: np.ndarray, quality: int = 0) -> bytes:
  """[H, W, 3] RGB or [H, W, 1] as a PNG, or a JPEG where it has 8 bits and a quality is given."""
  image = np.ascontiguousarray(image[..., ::-1])  # OpenCV wants blue first; one channel is one
  if quality and image.dtype == np.uint8:
    done, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
  else:
    done, encoded = cv2.imencode('.png', image)
  if not done:
    raise ValueError(f'OpenCV does not encode {image.dtype} of shape {image.shape}')
  return encoded.tobytes()


def _errors(problems: list[image_checks.Problem]) -> bool:
  return any(rule not in WARNINGS for rule, _ in problems)


def _where(row: Row, text: str) -> str:
  """Puts the path before what is said of a modality."""
  return f'{row.files.get(text.split(" ", 1)[0], row.facts["id"])}: {text}'


def describe(images: Mapping[str, bytes], looks: bool = False) -> dict[str, Any]:
  """What the card and the manifest have of the encoded images of an example.

  Args:
    images: by modality; absent ones are b'' or left out.
    looks: whether there is a `look` of RGB, what `near_duplicates` compares.

  Returns:
    For each modality M: `M_sha256` ('': absent), `M_form` (file format, width, height, channels,
    bits; None: absent), `M_bytes`, and `M_file`, see `encodings.describe`. Of distances also
    `M_mm`: distance and relief in the face window; None of 8-bit images.
  """
  found = {}
  for modality in schema.MODALITIES:
    encoded = images.get(modality, b'')
    form, file = _form_and_file(encoded) if encoded else (None, '')
    found[f'{modality}_sha256'] = hashlib.sha256(encoded).hexdigest() if encoded else ''
    found[f'{modality}_form'], found[f'{modality}_file'] = form, file
    found[f'{modality}_bytes'] = len(encoded)
    if schema.is_distance(modality):
      found[f'{modality}_mm'] = None
      if form and form[4] == 16:
        image = geometry.decode(encoded, modality, 'card')
        found[f'{modality}_mm'] = units.distance_and_relief(image)
  if looks and images.get('rgb'):
    found['look'] = near_duplicates.fingerprint(images['rgb'])
  return found


def _form_and_file(encoded: bytes) -> tuple[tuple[str, int, int, int, int], str]:
  """`M_form` and `M_file` of an image, from the header alone."""
  try:
    found = image_files.header(encoded)
  except image_files.Unreadable:  # a builder that checks nothing wrote it
    return ('unreadable', 0, 0, 0, 0), ''
  form = found.kind, found.width, found.height, found.channels, max(8, found.bits)
  return form, encodings.describe_with_header(encoded, found)


def read_all(reader: Reader, rows: list[Row]) -> list[Outcome]:
  """A task of a worker process."""
  return [reader(row) for row in rows]


def task(reader: Reader) -> functools.partial:
  """`read_all` of one reader, to be mapped over lists of rows."""
  return functools.partial(read_all, reader)


class Read(NamedTuple):
  """An outcome without its row, which the process that asks has."""

  images: Mapping[str, bytes]
  problems: list[image_checks.Problem]
  described: Mapping[str, Any]  # by `describe`; empty where the row is left out
  extra: Mapping[str, str]  # columns of the manifest


def read_and_describe(reader: Reader, looks: bool, rows: list[Row]) -> list[Read]:
  """A task of a worker process, which leaves to the main one what only that can do."""
  found = []
  for outcome in map(reader, rows):
    sound = all(rule in WARNINGS for rule, _ in outcome.problems)
    images, described = (outcome.images, describe(outcome.images, looks)) if sound else ({}, {})
    found.append(Read(images, outcome.problems, described, outcome.row.extra))
  return found
