"""The features of every data set, and the check that an example has them."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from flexfas_jax import label_mapping
from flexfas_jax.errors import DataError
from flexfas_jax.schema import CATEGORIES, LABELS, MODALITIES

Example = dict[str, Any]


def features_dict() -> tfds.features.FeaturesDict:
  """The features of every data set.

  An image is the source's own encoded file, JPEG or PNG, so that nothing is lost or encoded twice
  (16-bit depth above all); other formats are converted to PNG. `b''` means that the modality is
  absent, unlike a black image.
  """
  # A scalar of bytes: no decoder is attached, and none of TensorFlow is needed.
  image = {modality: tfds.features.Scalar(np.object_) for modality in MODALITIES}
  return tfds.features.FeaturesDict(
    {
      'id': tfds.features.Text(),
      **image,
      'label': tfds.features.ClassLabel(names=list(LABELS)),
      'attack_type': tfds.features.Text(),
      'attack_category': tfds.features.Text(),
      'subject': tfds.features.Text(),
      'video': tfds.features.Text(),
      'frame': tfds.features.Scalar(np.int32),
      'dataset': tfds.features.Text(),
      'ethnicity': tfds.features.Text(),
    }
  )


_KEYS = frozenset(features_dict())


def check(example: Example) -> Example:
  """Returns the complete example.

  Args:
    example: values by feature name. Images may be missing (absent); `attack_type`,
      `attack_category` and `ethnicity` default to ''; an unknown subject is ''.

  Raises:
    DataError: an unknown or missing key, a label that is not a name, an attack without a category.
  """
  full = {'attack_type': '', 'attack_category': '', 'ethnicity': ''} | example
  full = dict.fromkeys(MODALITIES, b'') | full
  where = f'example {full.get("id", "without id")!r}'
  if full.keys() != _KEYS:
    raise DataError(f'{where}: missing or unknown keys {sorted(full.keys() ^ _KEYS)}')
  # Sources disagree on what 0 and 1 mean, so an integer is refused even though TFDS would take it.
  if full['label'] not in LABELS:
    raise DataError(f'{where}: label is {full["label"]!r}, not one of {", ".join(LABELS)}')
  live = full['label'] == 'bona_fide'
  category = full['attack_category']
  if live and (category or full['attack_type']):
    raise DataError(f'{where}: is bona fide and yet an attack ({full["attack_type"]}, {category})')
  if not live and category not in CATEGORIES:
    raise DataError(f'{where}: category is {category!r}, not one of {", ".join(CATEGORIES)}')
  if not live and label_mapping.means_bona_fide(full['attack_type']):
    raise DataError(f'{where}: is an attack, and its kind {full["attack_type"]!r}')
  for modality in MODALITIES:
    if not isinstance(full[modality], bytes):
      raise DataError(f'{where}: {modality} is {type(full[modality]).__name__}, not encoded bytes')
  if not any(full[modality] for modality in MODALITIES):
    raise DataError(f'{where}: has no image at all')
  for key in ('id', 'subject', 'video'):
    unknown = key == 'subject' and not full[key]
    if not unknown and not full[key].startswith(f'{full["dataset"]}/'):
      raise DataError(f'{where}: {key} {full[key]!r} does not start with {full["dataset"]!r} and /')
  if not -(2**31) <= full['frame'] < 2**31:
    raise DataError(f'{where}: frame is {full["frame"]}, and has 32 bits')
  return full
