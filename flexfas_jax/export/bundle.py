"""The bundle: a folder with the models, a card and samples, proven before anybody sees it.

It is written beside its place and takes it when all is proven; what fails leaves nothing.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from flexfas_jax.errors import ConfigError, ExportError, StateError
from flexfas_jax.evaluation import evidence
from flexfas_jax.export import card, card_text, deciding, graph, parity, samples, signing
from flexfas_jax.export import source as sources
from flexfas_jax.files import write_text
from flexfas_jax.prediction import card as reader
from flexfas_jax.schema import subset_name

FORMATS = ('stablehlo', 'onnx', 'tflite', 'weights')


def run(
  config: ConfigDict,
  workdir: str,
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
    config: the run's.
    workdir: with checkpoints, scores and results.
    export_dir: of the bundle; None: `bundle` in the workdir.
    formats: of `FORMATS`, separated by commas; None: all.
    modalities: subsets that get graphs of their own, as in 'rgb+depth+ir,rgb'; all of them gets
      one that takes any subset. None: all, and RGB alone where it is served.
    sign_key: a PEM file with the private Ed25519 key that signs the card; None: it is not signed.
    sequence: of the bundle, see `prediction.card.read`; None: the seconds since 1970, which are
      more for every later export.
    min_val_scores, min_val_subjects: that val must have of each class for a threshold.

  Raises:
    ConfigError: an unknown format or subset, one that is not served, a missing extra, no such key.
    StateError: no run, results or thresholds; the folder is there.
    ExportError: an exported file does not do what the checkpoint does.
  """
  writers = {name: _writer(name) for name in _listed('formats', formats, FORMATS)}
  folder = pathlib.Path(workdir)
  target = pathlib.Path(export_dir) if export_dir else folder / 'bundle'
  if target.exists():
    raise StateError(f'{target} is there already; name another --export_dir, or delete it')
  source = sources.of_workdir(config, folder)
  fixed, whole = subsets_of(source, modalities)
  if sequence is None:
    sequence = int(time.time())
  if not 0 <= sequence < 10**18:
    raise ConfigError(
      f'--sequence={sequence}: give 0 to {10**18 - 1}, more than the last bundle has'
    )
  key = None if sign_key is None else signing.read_key(sign_key)
  found = card.results_of(source)
  for writer in writers.values():
    writer.check()
  val = sources.open_val(source)
  scores, origin = deciding.val_scores(source, val)
  fitted = deciding.fit(
    source,
    scores,
    deciding.presence(source, val),
    deciding.rule_of(source.config),
    min_val_scores,
    min_val_subjects,
  )
  for note in fitted.notes:
    print(f'warning: {note}', file=sys.stderr)
  with beside(target) as temporary:
    graphs = [graph.make(source.model, source.variables, subset) for subset in fixed]
    everything = graph.make(source.model, source.variables)
    entries = []
    for name, writer in writers.items():
      of = [everything] * (whole or not writer.SUBSETS) + graphs * writer.SUBSETS
      for one in of:
        print(f'{name}: {"+".join(one.modalities)}', flush=True)
        for entry in writer.write(one, source, temporary):
          entries.append({**entry, 'weights_hash': source.weights_hash})
    some = sources.Some(val, parity.MOST // len(source.subsets))
    for entry, told in zip(
      entries, parity.measure(source, entries, temporary, fitted.thresholds, some), strict=True
    ):
      entry |= _file(temporary / entry['file']) | {'parity': told}
    samples.write(source, val, fitted.thresholds, temporary)
    about = card.contents(source, entries, fitted, found, val, origin, sequence)
    (temporary / 'CARD.md').write_text(card_text.text(about), encoding='utf-8')
    models = {entry['file'] for entry in entries}
    about['files'] = {
      name: _file(path)
      for path in sorted(temporary.rglob('*'))
      if path.is_file() and (name := path.relative_to(temporary).as_posix()) not in models
    }
    write_text(temporary / 'card.json', json.dumps(about, indent=1) + '\n')
    if key is not None:
      signing.write(temporary, key)
    try:
      reader.read(temporary).samples()
    except StateError as error:  # before anybody has it
      raise ExportError(f'the bundle would be refused by prediction: {error}') from error
  print(card_text.summary(about) + f'\nWritten: {target}/')


def _listed(flag: str, text: str | None, choices: Sequence[str]) -> list[str]:
  names = list(choices) if text is None else [t.strip() for t in text.split(',') if t.strip()]
  for name in names:
    if name not in choices:
      raise ConfigError(f'--{flag}: unknown {name!r}; choose from: {", ".join(choices)}')
  if not names:
    raise ConfigError(f'--{flag} names nothing; choose from: {", ".join(choices)}')
  return list(dict.fromkeys(names))


def _writer(name: str):
  return importlib.import_module(f'flexfas_jax.export.formats.{name}')


def subsets_of(source, text: str | None) -> tuple[list[tuple[str, ...]], bool]:
  """(the subsets that get graphs of their own, whether there is one for any subset).

  Raises:
    ConfigError: an unknown modality, or a subset that the fusion cannot serve.
  """
  served = {subset_name(s): s for s in source.subsets}
  everything = subset_name(source.model.modalities)
  if text is None:
    text = everything + (',rgb' if 'rgb' in served else '')
  wanted = []
  for part in filter(None, (t.strip() for t in text.split(','))):
    asked = part.split('+')
    if unknown := set(asked) - set(source.model.modalities):
      raise ConfigError(
        f'--modalities: the model has no {sorted(unknown)[0]!r}; it has: '
        f'{", ".join(source.model.modalities)}'
      )
    name = subset_name([m for m in source.model.modalities if m in asked])
    if name not in served:
      raise ConfigError(
        f'--modalities: {part} cannot be served: the fusion needs '
        f'{"+".join(source.model.requires)}; it serves: {", ".join(served)}'
      )
    wanted.append(name)
  if not wanted:
    raise ConfigError(f'--modalities names nothing; choose from: {", ".join(served)}')
  wanted = list(dict.fromkeys(wanted))
  return [served[name] for name in wanted if name != everything], everything in wanted


@contextlib.contextmanager
def beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder that becomes `target` if all goes well, and is gone if it does not."""
  temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    temporary.mkdir(parents=True)
    yield temporary
    temporary.rename(target)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _file(path: pathlib.Path) -> dict:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return {'bytes': path.stat().st_size, 'sha256': digest}
