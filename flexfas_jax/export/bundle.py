"""Exports a run as a bundle: a folder with models in several formats, a card and samples.

Every file is compared with the checkpoint before the bundle appears under its name. A failed export
leaves no bundle.
"""

import hashlib
import importlib
import json
import pathlib
import sys
import time
from collections.abc import Sequence

from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, ExportError, StateError
from flexfas_jax.evaluation import evidence
from flexfas_jax.export import (
  bundle_thresholds,
  card,
  card_markdown,
  graph,
  parity,
  samples,
  signing,
  trained_model,
  val_data,
)
from flexfas_jax.files import atomic_directory, write_text
from flexfas_jax.prediction import card as card_reader
from flexfas_jax.schema import subset_name

FORMATS = ('stablehlo', 'onnx', 'tflite', 'weights')


def export(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  export_dir: str | None = None,
  formats: str | None = None,
  modalities: str | None = None,
  *,
  sign_key: str | None = None,
  sequence: int | None = None,
  min_val_scores: int = evidence.MIN_SCORES,
  min_val_subjects: int = evidence.MIN_SUBJECTS,
) -> None:
  """Exports the best step of a workdir.

  Args:
    config: of the run.
    workdir: with checkpoints, scores and results.
    export_dir: the bundle; None: `bundle` in the workdir.
    formats: some of `FORMATS`, separated by commas; None: all.
    modalities: the subsets with graphs of their own, as in 'rgb+depth+ir,rgb'; the graph of all
      modalities takes any subset. None: all modalities, and RGB alone if the fusion serves it.
    sign_key: a PEM file with the private Ed25519 key that signs the card; None: no signature.
    sequence: of the bundle, see `prediction.card.read`; None: the seconds since 1970, which grow
      from export to export.
    min_val_scores, min_val_subjects: the least number in val, of each class, for a threshold.

  Raises:
    ConfigError: an unknown format or subset, a missing extra, or an invalid key.
    StateError: no run, results or thresholds; or the bundle exists.
    ExportError: an exported file differs from the checkpoint.
  """
  writers = {
    name: importlib.import_module(f'flexfas_jax.export.formats.{name}')
    for name in _parse_names('formats', formats, FORMATS)
  }
  folder = pathlib.Path(workdir)
  target = pathlib.Path(export_dir) if export_dir else folder / 'bundle'
  if target.exists():
    raise StateError(f'{target} exists; name another --export_dir, or delete it')
  trained = trained_model.restore(config, folder)
  fixed_subsets, with_present = parse_subsets(trained, modalities)
  if sequence is None:
    sequence = int(time.time())
  if not 0 <= sequence < 10**18:
    raise ConfigError(
      f'--sequence={sequence}: give 0 to {10**18 - 1}, more than that of the last bundle'
    )
  key = None if sign_key is None else signing.read_key(sign_key)
  results = card.read_results(trained)
  for writer in writers.values():
    writer.check()
  val = val_data.open_val(trained)
  scores, scores_origin = bundle_thresholds.get_val_scores(trained, val)
  fitted = bundle_thresholds.fit(
    trained,
    scores,
    bundle_thresholds.read_presence(trained, val),
    bundle_thresholds.choose_rule(trained.config),
    min_val_scores,
    min_val_subjects,
  )
  for note in fitted.notes:
    print(f'warning: {note}', file=sys.stderr)
  with atomic_directory(target) as temporary:
    entries = _write_models(trained, writers, fixed_subsets, with_present, temporary, val)
    parities = parity.measure(trained, entries, temporary, fitted.thresholds, val)
    for entry, measured in zip(entries, parities, strict=True):
      entry |= _describe_file(temporary / entry['file']) | {'parity': measured}
    samples.write(trained, val, fitted.thresholds, temporary)
    contents = card.build(trained, entries, fitted, results, val, scores_origin, sequence)
    (temporary / 'CARD.md').write_text(card_markdown.render(contents), encoding='utf-8')
    models = {entry['file'] for entry in entries}
    contents['files'] = {
      name: _describe_file(path)
      for path in sorted(temporary.rglob('*'))
      if path.is_file() and (name := path.relative_to(temporary).as_posix()) not in models
    }
    write_text(temporary / 'card.json', json.dumps(contents, indent=1) + '\n')
    if key is not None:
      signing.write(temporary, key)
    try:
      card_reader.read(temporary).samples()
    except StateError as error:
      raise ExportError(f'prediction would refuse the bundle: {error}') from error
  print(card_markdown.summarise(contents) + f'\nWritten: {target}/')


def _write_models(
  trained, writers, fixed_subsets, with_present: bool, folder: pathlib.Path, val
) -> list[dict]:
  """Writes each graph in each format; returns the entries of the card's `models`."""
  fixed = [graph.build(trained.model, trained.variables, subset) for subset in fixed_subsets]
  any_subset = graph.build(trained.model, trained.variables)
  entries = []
  for name, writer in writers.items():
    # A format without graphs of fixed subsets always gets the graph of any subset.
    graphs = [any_subset] if with_present or not writer.FIXED_SUBSETS else []
    if writer.FIXED_SUBSETS:
      graphs += fixed
    for one in graphs:
      print(f'{name}: {"+".join(one.modalities)}', flush=True)
      for entry in writer.write(one, trained, folder, val):
        entries.append({**entry, 'weights_hash': trained.weights_hash})
  return entries


def _parse_names(flag: str, text: str | None, choices: Sequence[str]) -> list[str]:
  names = list(choices) if text is None else [t.strip() for t in text.split(',') if t.strip()]
  for name in names:
    if name not in choices:
      raise ConfigError(f'--{flag}: unknown {name!r}; choose from: {", ".join(choices)}')
  if not names:
    raise ConfigError(f'--{flag} is empty; choose from: {", ".join(choices)}')
  return list(dict.fromkeys(names))


def parse_subsets(trained, text: str | None) -> tuple[list[tuple[str, ...]], bool]:
  """(subsets with graphs of their own, whether the graph of any subset is exported).

  Raises:
    ConfigError: an unknown modality, or a subset that the fusion cannot serve.
  """
  modalities = trained.model.modalities
  served = {subset_name(s): s for s in trained.subsets}
  all_modalities = subset_name(modalities)
  if text is None:
    text = f'{all_modalities},rgb' if 'rgb' in served else all_modalities
  names = []
  for part in filter(None, (t.strip() for t in text.split(','))):
    given = part.split('+')
    if unknown := set(given) - set(modalities):
      raise ConfigError(
        f'--modalities: the model has no {sorted(unknown)[0]!r}; it has: {", ".join(modalities)}'
      )
    name = subset_name([m for m in modalities if m in given])
    if name not in served:
      raise ConfigError(
        f'--modalities: {part} cannot be served: the fusion requires '
        f'{"+".join(trained.model.requires)}; it serves: {", ".join(served)}'
      )
    names.append(name)
  if not names:
    raise ConfigError(f'--modalities is empty; choose from: {", ".join(served)}')
  names = list(dict.fromkeys(names))
  return [served[name] for name in names if name != all_modalities], all_modalities in names


def _describe_file(path: pathlib.Path) -> dict:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return {'bytes': path.stat().st_size, 'sha256': digest}
