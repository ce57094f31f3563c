"""One triplet of a source: which files it is made of, and their bytes, checked.

Light on purpose: worker processes import it.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flexfas_jax.evaluation import lists, roots
from flexfas_jax.input_pipeline import image_checks, image_files


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
  """

  source: str
  rules: image_checks.Rules = image_checks.Rules()
  max_pixels: int = dataclasses.field(default=image_files.MAX_PIXELS, kw_only=True)

  def pictures(self, row: Row) -> dict[str, bytes]:
    """The encoded pictures of a row, by modality.

    Raises:
      OSError: a file cannot be read.
      image_checks.Unreadable: a container does not hold what it should.
    """
    return {modality: self.file(path) for modality, path in row.files.items()}

  def file(self, path: str) -> bytes:
    """The bytes of a regular file below the source, of at most `image_files.MAX_BYTES`."""
    return image_files.read(roots.locate(self.source, path))

  def __call__(self, row: Row) -> Outcome:
    """Reads and checks one row; what is wrong is returned, never raised."""
    if outside := [p for p in row.files.values() if lists.leaves_root(lists.clean(p))]:
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
    found = image_checks.other_bytes(images, row.sha256)
    found += image_checks.inspect(images, self.rules, self.max_pixels)
    if not self.rules.frame:  # frames are turned, then cropped
      found += image_checks.rotated(images)
    return Outcome(row, images, [(rule, _where(row, text)) for rule, text in found])

  def exists(self, path: str) -> bool:
    """Whether a row's path leads to something; containers write `file#what`."""
    return os.path.exists(roots.locate(self.source, path.partition('#')[0]))


def _where(row: Row, text: str) -> str:
  """Puts the path before what is said of a modality."""
  return f'{row.files.get(text.split(" ", 1)[0], row.facts["id"])}: {text}'


def read_all(reader: Reader, rows: list[Row]) -> list[Outcome]:
  """A task of a worker process."""
  return [reader(row) for row in rows]


def task(reader: Reader) -> functools.partial:
  """`read_all` of one reader, to be mapped over lists of rows."""
  return functools.partial(read_all, reader)
