"""What a bundle says of itself: `card.json`."""

import datetime
import importlib.metadata
import json
from typing import Any

import flexfas_jax
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.export import samples
from flexfas_jax.images import signal, transforms
from flexfas_jax.prediction.card import BUNDLE
from flexfas_jax.schema import subset_name

_LIBRARIES = ('jax', 'flax', 'jax2onnx', 'onnx', 'onnxruntime', 'litert-converter')
_LIBRARIES += ('ai-edge-litert', 'safetensors', 'numpy', 'opencv-python-headless')
_METRICS = ('acer', 'apcer', 'bpcer', 'apcer_max', 'acer_max', 'eer', 'auc', 'threshold')
_METRICS += ('n_bona_fide', 'n_attack', 'n_fta')
_LIMIT = 127.5 / 128


def results_of(source) -> dict[str, Any]:
  """The workdir's results, those of the weights that are exported.

  Raises:
    StateError: there are none, or they are of other weights.
  """
  path, again = source.folder / 'results.json', 'run --mode=evaluate'
  try:
    found = dict(json.loads(path.read_text(encoding='utf-8')))
  except FileNotFoundError:
    raise StateError(f'{source.folder} has no results.json; {again} first') from None
  except (OSError, ValueError, TypeError) as error:
    raise StateError(f'{path} is damaged ({error}); {again} again') from error
  for test in found:
    header = score_files.read_header(source.folder / 'scores' / f'{test}.json')
    if header.get('weights_hash') != source.weights_hash:
      raise StateError(
        f'{path} is of other weights than step {source.step}, which is the best on val: the hash '
        f'of {test} is {header.get("weights_hash")}, not {source.weights_hash}; {again} again'
      )
  return found


def contents(source, entries, fitted, results, val, origin: str, sequence: int) -> dict[str, Any]:
  """The card.

  Args:
    source: what is exported.
    entries: of `models`, with their parity.
    fitted: thresholds, see `deciding.Fitted`.
    results: of the workdir.
    val: the val set.
    origin: of the scores that the thresholds are from.
    sequence: larger than that of every earlier bundle of the same model's line.
  """
  model, config = source.model, source.config
  rendered = samples.is_rendered(config)
  bits = samples.bits_of(val, source)
  return {
    'bundle': BUNDLE,
    'sequence': sequence,
    'name': source.folder.absolute().name,
    'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'version': flexfas_jax.__version__,
    'libraries': _versions(),
    'model': source.fields,
    'step': source.step,
    'weights_hash': source.weights_hash,
    'modalities': list(model.modalities),
    'requires': list(model.requires),
    'absent': source.fields.get('absent', 'token'),
    'image_size': model.image_size,
    'view': source.view,
    'resize': source.resize,
    'subsets': [subset_name(s) for s in source.subsets],
    'inputs': {m: _input(m, model.image_size, bits[m]) for m in model.modalities},
    'preprocessing': preprocessing(model.image_size, model.modalities, source.view, source.resize),
    'thresholds': {name: {**one, 'scores': origin} for name, one in fitted.thresholds.items()},
    'evidence': fitted.evidence,
    'metrics': {
      test: {subset: _trimmed(of) for subset, of in subsets.items()}
      for test, subsets in results.items()
    },
    'data': {
      'train': config.train,
      'val': config.val,
      'test': config.test.to_dict(),
      'rendered': rendered,
      'rules': config.threshold.to_dict(),
    },
    'licence': licence(rendered),
    'remarks': _remarks(source, rendered) + fitted.notes,
    'models': entries,
  }


def _versions() -> dict[str, str]:
  found = {}
  for name in _LIBRARIES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _input(modality: str, size: int, bits: list[int]) -> dict[str, Any]:
  return {
    'channels': 3 if modality == 'rgb' else 1,
    'order': 'RGB' if modality == 'rgb' else 'grey',
    'layout': 'NHWC',
    'size': size,
    'dtype': 'float32',
    'range': [-_LIMIT, _LIMIT],
    'bits': bits,
    **({'unit': 'mm'} if modality == 'depth' and 16 in bits else {}),
  }


def preprocessing(size: int, modalities, view: str = 'whole', resize: str = 'area') -> list[str]:
  """From a picture's file to the array, to the pixel; `input_pipeline` is the code of it."""
  if resize == 'bilinear':
    resized = (
      'All modalities: bilinear (OpenCV INTER_LINEAR), also where the image shrinks; except 16-bit '
      'depth: the nearest pixel (INTER_NEAREST), since a hole (0) is no distance.'
    )
  else:
    resized = (
      'rgb, ir: pixels averaged (OpenCV INTER_AREA) where the shorter side is more than that, else '
      'bilinear (INTER_LINEAR). depth: the nearest pixel (INTER_NEAREST), since a hole (0) is no '
      'distance.'
    )
  seen = 'whole picture' if view == 'whole' else f"view '{view}' (shares of its sides, or degrees)"
  steps = [
    'An upright picture of a face, cropped as the training data was, decoded with the depth that '
    "it is stored in (8 or 16 bits). A camera's picture is first turned as its EXIF says.",
    'rgb: three channels in the order R, G, B; a grey picture is repeated. Others: one channel, '
    'the first.',
    'A modality whose image carries no signal is absent: its image is all 0, present is false. '
    'It is asked of the image as decoded, before it is resized:',
    f'rgb, ir: each side becomes {signal.CELLS} cells of {signal.SAMPLES} samples (where it has '
    f'fewer than {signal.CELLS * signal.SAMPLES} pixels, pixels // {signal.SAMPLES} cells, at '
    'least 2) by the nearest pixel (INTER_NEAREST); rgb is made grey (RGB2GRAY). Sort the '
    f'{signal.SAMPLES**2} samples of each cell: median and quartiles are those at index '
    f'{signal.SAMPLES**2 // 2}, {signal.SAMPLES**2 // 4} and {signal.SAMPLES**2 * 3 // 4}, counted '
    'from 0. Contrast is the largest median of a cell minus the smallest; spread is the upper '
    'minus the lower quartile of the cell at index (cells // 2) when cells are sorted by it. No '
    f'signal: contrast < {signal.CONTRAST}, or contrast < {256 // signal.NOISE} (16 bits: '
    f'{65536 // signal.NOISE}) and contrast < {signal.CONTRAST_TO_SPREAD:g} x spread; or, of '
    f'ir, more than {signal.SATURATED_SHARE:.0%} of the pixels in the central half (as for depth) '
    'are at least 254 (16 bits: 65278). Values are as stored, 8 or 16 bits.',
    f'The {seen} becomes {size} x {size}, its aspect not kept. {resized}',
    'To [0, 1]: 8 bits are divided by 255, 16 bits by 65535. Infrared of n < 16 significant bits '
    'in 16 is first multiplied by 65535 / (2^n - 1) and rounded (ir_bits).',
  ]
  if 'depth' in modalities:
    steps.insert(
      4,
      f'depth: no signal where fewer than {signal.MEASURED_SHARE:.0%} of the pixels in the '
      'central half (rows h // 4 to h - h // 4 - 1, columns likewise) are at least '
      f'{signal.MEASURED}, or where all pixels of the image but {signal.ODD_SHARE:.1%} (rounded '
      'down, at least 1) have one value.',
    )
    steps.append(
      'Except 16-bit depth, which is distance in mm (other steps are first converted and rounded, '
      'and 65535 becomes 0: depth_unit): m is the median of what is measured (> 0) in '
      f'the central half of the resized picture (rows and columns {size // 4} to '
      f'{size - size // 4 - 1}; of all of it where nothing is measured there); a pixel d > 0 '
      f'becomes 0.5 - (d - m) / {transforms.DEPTH_WINDOW:g}, clipped to [1/255, 1]; 0 stays 0.'
    )
  steps.append('x -> (255 x - 127.5) / 128, float32, so that black is -0.99609375.')
  steps.append(
    'present: one truth value per modality, in the order of the card; the image of an absent one '
    'is all 0, and what is in it does not matter.'
  )
  steps.append(
    'score = 1 / (1 + exp(-logit)) in float64; accept when score >= threshold. A sample that was '
    'given an image without signal is a failure to acquire, unless that modality may be absent.'
  )
  return steps


def licence(rendered: bool) -> str:
  """Of the weights."""
  if rendered:
    return 'Apache-2.0; trained on rendered faces of nobody'
  return (
    'The code is Apache-2.0. The weights come from the data sets named under training data, whose '
    'licences say what may be done with them; most allow academic use alone.'
  )


def _trimmed(values: dict[str, Any]) -> dict[str, Any]:
  kept = {n: v for n, v in values.items() if n in _METRICS or n.startswith('apcer_species/')}
  intervals = {n: v for n, v in values.get('intervals', {}).items() if n in kept}
  return kept | ({'intervals': intervals} if intervals else {})


def _remarks(source, rendered: bool) -> list[str]:
  lines = list(source.header.get('notes', []))
  if rendered:
    lines.append(
      'Trained and judged on RENDERED faces: no figure here is comparable with photographs.'
    )
  if (dtype := source.config.model.get('dtype', 'float32')) != 'float32':
    lines.append(
      f'Trained and tested in {dtype}; exported in float32, by which the thresholds were fitted.'
    )
  if (views := source.config.get('views', ())) and tuple(views) != (source.view,):
    lines.append(
      f'The figures of the tests are of the mean over the views {", ".join(views)}; this bundle '
      f'looks once, by {source.view}, and its thresholds are of that.'
    )
  if source.model.requires:
    lines.append(
      f'The fusion needs {"+".join(source.model.requires)}; without it there is no score.'
    )
  return lines
