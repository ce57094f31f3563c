"""The contents of a bundle's `card.json`."""

import datetime
import importlib.metadata
import json
from typing import Any

import flexfas_jax
from flexfas_jax import schema
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.export import samples
from flexfas_jax.images import signal, transforms
from flexfas_jax.prediction.card import BUNDLE_VERSION
from flexfas_jax.schema import subset_name

_LIBRARIES = (
  'jax',
  'flax',
  'jax2onnx',
  'onnx',
  'onnxruntime',
  'litert-converter',
  'ai-edge-litert',
  'safetensors',
  'numpy',
  'opencv-python-headless',
)
_METRICS = (
  'acer',
  'apcer',
  'bpcer',
  'apcer_max',
  'acer_max',
  'eer',
  'auc',
  'threshold',
  'n_bona_fide',
  'n_attack',
  'n_fta',
  'not_recorded',
)
_LIMIT = 127.5 / 128


def read_results(trained) -> dict[str, Any]:
  """The workdir's results of the exported weights.

  Raises:
    StateError: there are none, or they belong to other weights.
  """
  path, remedy = trained.folder / 'results.json', 'run --mode=evaluate'
  try:
    results = dict(json.loads(path.read_text(encoding='utf-8')))
  except FileNotFoundError:
    raise StateError(f'{trained.folder} has no results.json; {remedy} first') from None
  except (OSError, ValueError, TypeError) as error:
    raise StateError(f'{path} is damaged ({error}); {remedy} again') from error
  for test in results:
    header = score_files.read_header(trained.folder / 'scores' / f'{test}.json')
    if header.get('weights_hash') != trained.weights_hash:
      raise StateError(
        f'{path} belongs to other weights than step {trained.step}, the best on val: the hash of '
        f'{test} is {header.get("weights_hash")}, not {trained.weights_hash}; {remedy} again'
      )
  return results


def build(
  trained, entries, fitted, results, val, scores_origin: str, sequence: int
) -> dict[str, Any]:
  """The card.

  Args:
    trained: the exported `TrainedModel`.
    entries: of `models`, with their parity.
    fitted: thresholds, see `bundle_thresholds.FittedThresholds`.
    results: of the workdir.
    val: the val set.
    scores_origin: of the scores that the thresholds are fitted on.
    sequence: larger than that of every earlier bundle of the same product.
  """
  model, config = trained.model, trained.config
  rendered = samples.is_rendered(config)
  bits = samples.detect_bit_depths(val, trained)
  view, resize = trained.view, trained.resize
  return {
    'bundle': BUNDLE_VERSION,
    'sequence': sequence,
    'name': trained.folder.absolute().name,
    'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'version': flexfas_jax.__version__,
    'libraries': _library_versions(),
    'model': trained.fields,
    'step': trained.step,
    'weights_hash': trained.weights_hash,
    'modalities': list(model.modalities),
    'requires': list(model.requires),
    'absent': trained.fields.get('absent', 'token'),
    'image_size': model.image_size,
    'view': view,
    'resize': resize,
    'subsets': [subset_name(s) for s in trained.subsets],
    'inputs': {m: _describe_input(m, model.image_size, bits[m]) for m in model.modalities},
    'preprocessing': describe_preprocessing(model.image_size, model.modalities, view, resize),
    'thresholds': {
      name: {**threshold, 'scores': scores_origin} for name, threshold in fitted.thresholds.items()
    },
    'evidence': fitted.evidence,
    'metrics': {
      test: {subset: _select_metrics(values) for subset, values in subsets.items()}
      for test, subsets in results.items()
    },
    'data': {
      'train': config.train,
      'val': config.val,
      'test': config.test.to_dict(),
      'rendered': rendered,
      'rules': config.threshold.to_dict(),
    },
    'licence': licence(rendered, _pretrained_name(config)),
    'notes': _notes(trained, rendered) + fitted.notes,
    'models': entries,
  }


def _library_versions() -> dict[str, str]:
  versions = {}
  for name in _LIBRARIES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def _describe_input(modality: str, size: int, bits: list[int]) -> dict[str, Any]:
  return {
    'channels': schema.channels(modality),
    'order': 'RGB' if schema.is_color(modality) else 'grey',
    'layout': 'NHWC',
    'size': size,
    'dtype': 'float32',
    'range': [-_LIMIT, _LIMIT],
    'bits': bits,
    **({'unit': 'mm'} if schema.is_distance(modality) and 16 in bits else {}),
  }


def describe_preprocessing(
  size: int, modalities, view: str = 'whole', resize: str = 'area'
) -> list[str]:
  """The steps from an image file to the array, pixel by pixel; the code is in `images/`."""
  distances = ', '.join(filter(schema.is_distance, schema.MODALITIES))
  intensities = ', '.join(filter(schema.is_intensity, schema.MODALITIES))
  others = ', '.join(m for m in schema.MODALITIES if not schema.is_distance(m))
  if resize == 'bilinear':
    resizing = (
      'All modalities: bilinear (OpenCV INTER_LINEAR), also where the image shrinks; except 16-bit '
      'depth: nearest pixel (INTER_NEAREST), since a hole (0) is no distance.'
    )
  else:
    resizing = (
      f'{others}: average of the pixels (OpenCV INTER_AREA) where the shorter side is longer than '
      f'that, else bilinear (INTER_LINEAR). {distances}: nearest pixel (INTER_NEAREST), since a '
      'hole (0) is no distance.'
    )
  region = 'whole image' if view == 'whole' else f"view '{view}' (shares of its sides, or degrees)"
  steps = [
    'Take an upright image of a face, cropped as the training data was, and decode it in the bit '
    'depth of the file (8 or 16 bits). First turn an image of a camera as its EXIF orientation '
    'requires.',
    'rgb: three channels in the order R, G, B; repeat the channel of a grey image. Others: one '
    'channel, the first.',
    'A modality whose image carries no signal is absent: its image is all 0, present is false. '
    'Test the image as decoded, before it is resized:',
    f'{others}: reduce each side to {signal.CELLS} cells of {signal.SAMPLES} samples (where it has '
    f'fewer than {signal.CELLS * signal.SAMPLES} pixels, pixels // {signal.SAMPLES} cells, at '
    'least 2) by the nearest pixel (INTER_NEAREST); convert rgb to grey (RGB2GRAY). Sort the '
    f'{signal.SAMPLES**2} samples of each cell: median and quartiles are those at index '
    f'{signal.SAMPLES**2 // 2}, {signal.SAMPLES**2 // 4} and {signal.SAMPLES**2 * 3 // 4}, counted '
    'from 0. Contrast is the largest median of a cell minus the smallest; spread is the upper '
    'minus the lower quartile of the cell at index (cells // 2) when cells are sorted by it. No '
    f'signal: contrast < {signal.CONTRAST}, or contrast < {256 // signal.NOISE} (16 bits: '
    f'{65536 // signal.NOISE}) and contrast < {signal.CONTRAST_TO_SPREAD:g} x spread; or, of '
    f'{intensities}, more than {signal.SATURATED_SHARE:.0%} of the pixels in the central half (as '
    'for depth) are at least 254 (16 bits: 65278). Values are as stored, 8 or 16 bits.',
    f'Resize the {region} to {size} x {size}; the aspect ratio is not kept. {resizing}',
    'Scale to [0, 1]: divide 8 bits by 255, 16 bits by 65535. First multiply infrared of n < 16 '
    'significant bits in 16 by 65535 / (2^n - 1) and round (ir_bits).',
  ]
  if any(map(schema.is_distance, modalities)):
    steps.insert(
      4,
      f'{distances}: no signal where fewer than {signal.MEASURED_SHARE:.0%} of the pixels in the '
      'central half (rows h // 4 to h - h // 4 - 1, columns likewise) are at least '
      f'{signal.MEASURED}, or where all pixels of the image but {signal.ODD_SHARE:.1%} (rounded '
      'down, at least 1) have one value.',
    )
    steps.append(
      'Except 16-bit depth, which is distance in mm (convert and round other units first, and set '
      '65535 to 0: depth_unit): m is the median of the measured pixels (> 0) in the central half '
      f'of the resized image (rows and columns {size // 4} to {size - size // 4 - 1}; of the whole '
      'image if none is measured there); a pixel d > 0 becomes '
      f'0.5 - (d - m) / {transforms.DEPTH_WINDOW:g}, clipped to [1/255, 1]; 0 stays 0.'
    )
  steps.append('x -> (255 x - 127.5) / 128, float32, so that black is -0.99609375.')
  steps.append(
    'present: one truth value per modality, in the order of the card; the image of an absent '
    'modality is all 0, and its values do not matter.'
  )
  steps.append(
    'score = 1 / (1 + exp(-logit)) in float64; accept when score >= threshold. A sample with an '
    'image without signal is a failure to acquire, unless that modality may be absent.'
  )
  return steps


def licence(rendered: bool, pretrained: str = '') -> str:
  """Of the weights.

  Args:
    rendered: whether all data is rendered.
    pretrained: name of the weights that training started from; '': none.
  """
  if rendered and not pretrained:
    return 'Apache-2.0; trained on rendered faces, without data of real subjects'
  parts = ['The code is Apache-2.0.']
  if pretrained:
    parts.append(f'The weights start from {pretrained}, whose licence applies to them.')
  parts.append(
    'They were trained further on rendered faces.'
    if rendered
    else 'The weights come from the data sets named under training data, whose licences restrict '
    'their use; most allow academic use alone.'
  )
  return ' '.join(parts)


def _pretrained_name(config) -> str:
  """The architecture and the source of the pretrained weights, without a path of this machine."""
  fields = config.get('pretrained') or {}
  weights = str(fields.get('weights') or '').rstrip('/')
  if not weights:
    return ''
  source = weights if weights.startswith('hub:') else weights.rpartition('/')[2]
  return f'pretrained weights of {fields.get("architecture", "")} ({source})'


def _select_metrics(values: dict[str, Any]) -> dict[str, Any]:
  selected = {n: v for n, v in values.items() if n in _METRICS or n.startswith('apcer_species/')}
  intervals = {n: v for n, v in values.get('intervals', {}).items() if n in selected}
  selected |= {'intervals': intervals} if intervals else {}
  return selected | ({'pass_if': values['pass_if']} if 'pass_if' in values else {})


def _notes(trained, rendered: bool) -> list[str]:
  notes = list(trained.header.get('notes', []))
  if rendered:
    notes.append(
      'Trained and evaluated on RENDERED faces: no figure here is comparable with photographs.'
    )
  if (dtype := trained.config.model.get('dtype', 'float32')) != 'float32':
    notes.append(
      f'Trained and tested in {dtype}; exported in float32, on which the thresholds were fitted.'
    )
  if (views := trained.config.get('views', ())) and tuple(views) != (trained.view,):
    notes.append(
      f'The test results are for the mean over the views {", ".join(views)}; this bundle uses one '
      f'view, {trained.view}, and its thresholds were fitted on that view.'
    )
  if trained.model.requires:
    notes.append(
      f'The fusion requires {"+".join(trained.model.requires)}; without it there is no score.'
    )
  return notes
