"""The files beside the shards of a prepared set: manifest, card, contact sheet.

They describe the records as they are stored:

- `manifest.csv`: a row per record, in the order of the records: all fields but the images, their
  SHA-256, how each file was encoded (`encodings.describe`), and the columns that the source adds
  (the split of each published protocol). Selections use it
  (`flexfas_jax/input_pipeline/sources.py`); it is also a manifest for `--dataset=manifest/NAME`,
  and proves that two laboratories have the same set.
- `card.json`, `CARD.md`: counts, sizes, bit depths, digests, what was left out and why, and facts
  about files and sensors that predict the label (`flexfas_jax/protocols/shortcuts.py`).
- `contact_sheet.jpg`: a row per species, the images of up to four subjects.
"""

import collections
import csv
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from array_record.python import array_record_data_source
from PIL import Image, ImageDraw, ImageFont

import flexfas_jax
from flexfas_jax import schema
from flexfas_jax.data import reading
from flexfas_jax.errors import DataError
from flexfas_jax.images import geometry, signal, transforms, units
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.progress import show_progress
from flexfas_jax.protocols import shortcuts

FACTS = ('id', 'split', 'label', 'attack_type', 'attack_category', 'subject', 'video', 'frame')
FACTS += ('dataset', 'ethnicity')
DIGESTS = tuple(f'{m}_sha256' for m in schema.MODALITIES)
FILES = tuple(f'{m}_file' for m in schema.MODALITIES)
_AT_ONCE = 256  # records of a task
_WORTH_A_BAR = 20  # tasks
_VALUES = 6  # of a shortcut that the card shows; card.json has all
_COMPARED_SAMPLES = 200  # whose depth and infrared are compared to detect an exchange
_TILE, _SUBJECTS, _GAP, _LABEL, _TITLE = 92, 4, 8, 16, 32
_WIDTH = len(schema.MODALITIES) * _TILE  # of the images of one sample
_HOLE = (58, 22, 74)  # colour of what a depth sensor did not measure
_ABSENT = (235, 235, 235)


def read_back(
  name: str, shards: Mapping[str, Sequence[pathlib.Path]], with_fingerprint: bool = False
) -> list[dict]:
  """Reads and describes the records of a set in their order, see `describe`.

  Args:
    name: `set/config/version`.
    shards: {split: ArrayRecord files, in order}.
    with_fingerprint: whether to add `fingerprint` of RGB, which `near_duplicates` compares.
  """
  records = []
  with Workers() as workers:
    for split, paths in shards.items():
      tasks = [(path, start) for path in paths for start in range(0, _length(path), _AT_ONCE)]
      found = workers.map(functools.partial(_describe, split, with_fingerprint), tasks, few=8)
      if len(tasks) > _WORTH_A_BAR:
        found = show_progress(found, len(tasks), f'{name} {split}: reading back, by {_AT_ONCE}')
      records += itertools.chain.from_iterable(found)
  return records


def compare(
  shards: Mapping[str, Sequence[pathlib.Path]], written: Mapping[str, dict[bytes, dict]]
) -> list[dict]:
  """As `read_back` of records described while they were written; verifies every record.

  Args:
    shards: {split: ArrayRecord files, in order}.
    written: by split, {`digest` of a record: `describe` of it}; is emptied.

  Raises:
    DataError: the files do not contain exactly these records.
  """
  records = []
  for split, paths in shards.items():
    left = written[split]
    for path in paths:
      with array_record_data_source.ArrayRecordDataSource(str(path)) as stored:
        for start in range(0, len(stored), _AT_ONCE):
          numbers = range(start, min(start + _AT_ONCE, len(stored)))
          for number, record in zip(numbers, stored.__getitems__(numbers), strict=True):
            if (one := left.pop(digest(record), None)) is None:
              raise DataError(
                f'{path}: record {number} is not what was written; is the disk sound?'
              )
            one['place'] = path, number
            records.append(one)
    if left:
      raise DataError(f'{paths[0].parent}: {len(left)} records of {split} are missing')
  return records


def digest(record: bytes) -> bytes:
  """SHA-256 of a serialized record."""
  return hashlib.sha256(record).digest()


def describe(split: str, example: Mapping, images: Mapping | None = None) -> dict:
  """All fields of a record but the images, and facts about these (`reading.describe`).

  Args:
    split: of the record.
    example: complete, see `features.check`.
    images: from `reading.describe`; None: computed here.
  """
  facts = {key: value for key, value in example.items() if key not in schema.MODALITIES}
  return {'split': split, **facts, **(images or reading.describe(example))}


def image_of(record: Mapping, modality: str) -> bytes:
  """The encoded image of a record of `read_back`."""
  path, number = record['place']
  return _read(path, [number])[0][modality]


def write(
  folder: pathlib.Path,
  name: str,
  records: Sequence[dict],
  extra: Mapping[str, Mapping[str, str]],
  recorded: Mapping[str, Any],
) -> None:
  """Writes manifest, card and contact sheet of a set whose shards are written.

  Args:
    folder: of the set.
    name: `set/config/version`.
    records: of `read_back`.
    extra: {id: {column: value}} for the manifest; columns may differ between ids.
    recorded: further entries of the card, from the builder.
  """
  splits = dict.fromkeys(record['split'] for record in records)
  # Without what a manifest of an earlier preparation records of its files.
  columns = sorted({column for values in extra.values() for column in values} - {*FILES})
  digest = _write_manifest(folder / 'manifest.csv', records, extra, columns)
  card = {
    'name': name,
    'flexfas_jax': flexfas_jax.__version__,
    'manifest_sha256': digest,
    'splits': {split: _counts([r for r in records if r['split'] == split]) for split in splits},
    'images': {modality: _count_images(records, modality) for modality in schema.MODALITIES},
    'shortcuts': _shortcuts(records, extra),
    **_check_exchange(records),
    **recorded,
  }
  (folder / 'card.json').write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')
  (folder / 'CARD.md').write_text(_markdown(card), encoding='utf-8')
  sheet(name, records).save(folder / 'contact_sheet.jpg', quality=85)


def _length(path: pathlib.Path) -> int:
  with array_record_data_source.ArrayRecordDataSource(str(path)) as records:
    return len(records)


@functools.cache
def _features():
  from flexfas_jax.data import features  # imports TFDS; the main process has it, a worker not yet

  return features.features_dict()


def _read(path: pathlib.Path, numbers: Iterable[int]) -> list[dict]:
  with array_record_data_source.ArrayRecordDataSource(str(path)) as records:
    raw = records.__getitems__(list(numbers))
  return [_features().deserialize_example_np(one) for one in raw]


def _describe(split: str, with_fingerprint: bool, task: tuple[pathlib.Path, int]) -> list[dict]:
  """Describes the records of a task."""
  path, start = task
  found = []
  numbers = range(start, min(start + _AT_ONCE, _length(path)))
  for number, example in zip(numbers, _read(path, numbers), strict=True):
    for key, value in example.items():
      if key not in schema.MODALITIES:
        example[key] = value.decode() if isinstance(value, bytes) else int(value)
    example['label'] = schema.LABELS[example['label']]
    described = describe(split, example, reading.describe(example, with_fingerprint))
    found.append({**described, 'place': (path, number)})
  return found


def _write_manifest(path, records, extra, columns) -> str:
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow([*FACTS, *DIGESTS, *FILES, *columns])
    for one in records:
      more = extra.get(one['id'], {})
      writer.writerow(
        [
          *(one[key] for key in (*FACTS, *DIGESTS, *FILES)),
          *(more.get(column, '') for column in columns),
        ]
      )
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_exchange(records: Sequence[Mapping]) -> dict:
  """An entry for the card if depth and infrared seem exchanged; see `signal.seem_exchanged`."""
  distances, intensities = (
    filter(kind, schema.MODALITIES) for kind in (schema.is_distance, schema.is_intensity)
  )
  for pair in itertools.product(distances, intensities):
    both = [one for one in records if all(one[f'{m}_sha256'] for m in pair)]
    found = {modality: [] for modality in pair}
    some = both[:: 1 + len(both) // _COMPARED_SAMPLES]
    for path, of_shard in itertools.groupby(some, lambda one: one['place'][0]):
      with array_record_data_source.ArrayRecordDataSource(str(path)) as records_of_shard:
        for one in of_shard:
          example = _features().deserialize_example_np(records_of_shard[one['place'][1]])
          for modality, cliffs in found.items():
            if one[f'{modality}_form'][1]:
              cliffs.append(signal.cliffs(geometry.decode(example[modality], modality, 'card')))
    if signal.seem_exchanged(*found.values()):
      medians = {modality: float(np.median(cliffs)) for modality, cliffs in found.items()}
      return {'seem_exchanged': {'cliffs': medians, 'samples': len(found[pair[1]])}}
  return {}


def _shortcuts(records: list[dict], extra: Mapping[str, Mapping[str, str]]) -> list[dict]:
  """Facts that predict the label, by split."""

  def column(key: str) -> list:
    return [one[key] for one in records]

  facts = shortcuts.facts_of(
    {m: list(map(bool, column(f'{m}_sha256'))) for m in schema.MODALITIES},
    {
      m: [extra.get(one['id'], {}).get(f'source_{m}_file') or one[f'{m}_file'] for one in records]
      for m in schema.MODALITIES
    },
  )
  facts['data set'] = column('dataset')
  facts['device'] = [extra.get(one['id'], {}).get('device', '') for one in records]
  found = shortcuts.find_by_split(
    column('split'), facts, column('label'), column('subject'), column('video')
  )
  return [{'split': split, 'text': str(s), **s._asdict()} for split in found for s in found[split]]


def _counts(records: list[dict]) -> dict:
  species = collections.Counter(_species(one) for one in records)
  each = collections.Counter(one['subject'] for one in records if one['subject'])
  subjects = collections.defaultdict(set)
  for one in records:
    subjects[one['label']].add(one['subject'])
  return {
    'triplets': len(records),
    'bona_fide': species['bona_fide'],
    'attacks': len(records) - species['bona_fide'],
    'subjects': len(each),
    'triplets_by_subject': _spread(each.values()),
    'subjects_by_label': {label: len(who - {''}) for label, who in sorted(subjects.items())},
    'videos': len({one['video'] for one in records}),
    'species': dict(sorted(species.items())),
    'categories': dict(sorted(collections.Counter(
      one['attack_category'] or 'bona_fide' for one in records
    ).items())),
    'ethnicity': dict(sorted(collections.Counter(one['ethnicity'] for one in records).items())),
  }  # fmt: skip


def _spread(values: Iterable[int]) -> dict[str, int]:
  values = list(values)
  if not values:
    return {}
  return {'smallest': min(values), 'median': int(np.median(values)), 'largest': max(values)}


def _species(one: Mapping) -> str:
  return 'bona_fide' if one['label'] == 'bona_fide' else one['attack_type'] or 'unknown'


def _count_images(records: list[dict], modality: str) -> dict:
  forms = [one[f'{modality}_form'] for one in records if one[f'{modality}_form']]
  if not forms:
    return {'present': 0, 'absent': len(records)}
  sides = {side: _spread([f[k] for f in forms]) for side, k in (('width', 1), ('height', 2))}
  return {
    'present': len(forms),
    'absent': len(records) - len(forms),
    'format': _count_values(f[0] for f in forms),
    'channels': _count_values(f[3] for f in forms),
    'bits': _count_values(f[4] for f in forms),
    'bytes': sum(one[f'{modality}_bytes'] for one in records),
    **sides,
    **(_millimetres(records, modality) if schema.is_distance(modality) else {}),
  }


def _count_values(values: Iterable) -> dict[str, int]:
  return dict(sorted(collections.Counter(map(str, values)).items()))


def _millimetres(records: Sequence[Mapping], modality: str) -> dict:
  """Medians over 16-bit images of their face windows' distance and relief, by label."""
  found = {}
  for label in schema.LABELS:
    some = [r[f'{modality}_mm'] for r in records if r['label'] == label and r[f'{modality}_mm']]
    if some:
      distance, relief = np.median(some, axis=0)
      found[label] = {'distance_mm': float(distance), 'relief_mm': float(relief)}
  return {'face_window': found} if found else {}


def _markdown(card: Mapping) -> str:
  lines = [f'# {card["name"]}', '']
  lines += [f'- {note}' for note in card.get('notes', [])]
  lines += [
    f'- manifest.csv: sha256 `{card["manifest_sha256"]}`; prepared with flexfas_jax '
    f'{card["flexfas_jax"]}',
  ]
  if card.get('left_out'):
    lines.append(f'- {card["left_out"]} left out; bad_files.csv lists them with the reasons')
  for rule, n in card.get('findings', {}).items():
    lines.append(f'- {rule}: {n}')
  lines += [
    '',
    '| split | triplets | bona fide | attacks | subjects | videos |',
    '|---|' + '---:|' * 5,
  ]
  for split, c in card['splits'].items():
    lines.append(
      f'| {split} | {c["triplets"]} | {c["bona_fide"]} | {c["attacks"]} | {c["subjects"]} '
      f'| {c["videos"]} |'
    )
  for what in ('species', 'categories', 'ethnicity'):
    names = sorted({name for c in card['splits'].values() for name in c[what]})
    if names in ([], ['']):
      continue
    lines += [
      '',
      f'| {what} | ' + ' | '.join(card['splits']) + ' |',
      '|---|' + '---:|' * len(card['splits']),
    ]
    for name in names:
      cells = [str(c[what].get(name, 0)) for c in card['splits'].values()]
      lines.append(f'| {name or "(not known)"} | ' + ' | '.join(cells) + ' |')
  lines += [
    '',
    '| images | present | absent | format | channels | bits | width | height | MB |',
    '|---|' + '---|' * 8,
  ]
  for modality, p in card['images'].items():
    if not p['present']:
      lines.append(f'| {modality} | 0 | {p["absent"]} | | | | | | |')
      continue
    cells = [
      ', '.join(f'{k}: {v}' for k, v in p[what].items()) for what in ('format', 'channels', 'bits')
    ]
    cells += [f'{p[s]["smallest"]} to {p[s]["largest"]}' for s in ('width', 'height')]
    cells.append(f'{p["bytes"] / 1e6:.1f}')
    lines.append(f'| {modality} | {p["present"]} | {p["absent"]} | {" | ".join(cells)} |')
  if card['shortcuts']:
    lines += [
      '',
      'These facts predict the label, and a model can learn them instead of the face:',
      '',
      '| split | fact | balanced accuracy | value | attacks | bona fide |',
      '|---|---|---:|---|---:|---:|',
    ]
  for found in card['shortcuts']:
    for value, attacks, bona_fide in found['values'][:_VALUES]:
      lines.append(
        f'| {found["split"]} | {found["fact"]} | {found["accuracy"]:.2f} | {value} | {attacks:.0%} '
        f'| {bona_fide:.0%} |'
      )
  for modality, images in card['images'].items():
    lines += _window_lines(modality, images.get('face_window', {}))
  if seen := card.get('seem_exchanged'):
    (distance, few), (intensity, many) = seen['cliffs'].items()
    lines.append(
      f'\nNOTE: {distance} and {intensity} look exchanged: of {seen["samples"]} samples, '
      f'{intensity} images have holes beside near values ({many:.1%} of neighbours), and '
      f'{distance} images fewer ({few:.1%}). Compare the columns on the contact sheet.'
    )
  for key in ('options', 'rules', 'faces'):
    if card.get(key):
      lines += ['', f'{key}: `{json.dumps(card[key])}`']
  return '\n'.join([*lines, '', '![A row per species](contact_sheet.jpg)', ''])


def _window_lines(modality: str, window: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Lines about the `_millimetres` of a modality."""
  lines = []
  for label, median in window.items():
    lines += [
      '',
      f'16-bit {modality} of {label}, medians of the face windows: distance '
      f'{median["distance_mm"]:g} mm, relief (interquartile range) {median["relief_mm"]:g} mm',
    ]
  if window.get('bona_fide', {}).get('relief_mm', 0) > units.FACE_RELIEF:
    lines.append(
      f'\nNOTE: faces have a relief of about 20 mm, at most {units.FACE_RELIEF} mm. State another '
      'unit (`depth_unit`), or crop faces from whole frames (`crop`).'
    )
  return lines


def sheet(name: str, records: Sequence[Mapping]) -> Image.Image:
  """Draws a row per species with the images of up to four subjects.

  Args:
    name: the title.
    records: of `read_back`.
  """
  rows = _rows(records)
  most = max(2, max(len(subjects) for _, subjects in rows))  # at least two, for the title
  width = most * (_WIDTH + 4)
  page = Image.new('RGB', (width + 2 * _GAP, _TITLE + len(rows) * (_TILE + _LABEL + 2)), 'white')
  draw = ImageDraw.Draw(page)
  columns = ', '.join(schema.MODALITIES)
  title = f'{name}: {columns} (depth: near is bright, violet not measured; grey: absent)'
  draw.text((_GAP, 8), title, fill=(20, 20, 20), font=ImageFont.load_default(13))
  small = ImageFont.load_default(12)
  for number, (label, subjects) in enumerate(rows):
    top = _TITLE + number * (_TILE + _LABEL + 2)
    draw.text((_GAP, top), label, fill=(20, 20, 20), font=small)
    for k, one in enumerate(subjects):
      path, place = one['place']
      tiles = Image.fromarray(_tiles(_read(path, [place])[0]))
      page.paste(tiles, (_GAP + k * (_WIDTH + 4), top + _LABEL))
  return page


def _rows(records: Sequence[Mapping]) -> list[tuple[str, list[Mapping]]]:
  found: dict[str, dict] = {}
  for one in records:
    subjects = found.setdefault(_species(one), {})
    subjects.setdefault(one['subject'] or one['id'], one)
  first = {'bona_fide': ''}
  rows = []
  for species in sorted(found, key=lambda s: first.get(s, s)):
    subjects = list(found[species].values())
    category = subjects[0]['attack_category']
    label = f'{species} ({category})' if category else species
    for key in (f'{m}_mm' for m in schema.MODALITIES if schema.is_distance(m)):
      windows = [one[key] for one in records if one[key] and _species(one) == species]
      if windows:
        label += ': distance {:.0f} mm, relief {:.0f} mm'.format(*np.median(windows, axis=0))
    rows.append((label, subjects[:: max(1, len(subjects) // _SUBJECTS)][:_SUBJECTS]))
  return rows


def _tiles(example: Mapping) -> np.ndarray:
  """The images of an example side by side, [T, M T, 3] uint8, M modalities."""
  tiles = []
  described = reading.describe(example)
  for modality in schema.MODALITIES:
    form = described[f'{modality}_form']
    tile = np.full((_TILE, _TILE, 3), _ABSENT, np.uint8)
    if form and form[1]:
      image = geometry.decode(example[modality], modality, 'contact sheet')
      how = cv2.INTER_NEAREST if schema.is_distance(modality) else cv2.INTER_AREA
      unit = transforms.to_unit(image, modality)
      unit = cv2.resize(unit, (_TILE, _TILE), interpolation=how).reshape(_TILE, _TILE, -1)
      tile = np.rint(255 * np.broadcast_to(unit, (_TILE, _TILE, 3))).astype(np.uint8)
      if schema.is_distance(modality):
        tile = np.where(unit > 0, tile, _HOLE).astype(np.uint8)
    tiles.append(tile)
  return np.hstack(tiles)
