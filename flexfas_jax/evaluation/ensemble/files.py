"""Writes the ensemble and its intermediate means as score files that list their members."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import results, score_files
from flexfas_jax.evaluation.calibration import Calibration
from flexfas_jax.evaluation.ensemble import averaging, validation
from flexfas_jax.evaluation.ensemble.averaging import Key
from flexfas_jax.evaluation.ensemble.members import COORDINATES, Member, file_stem


def header(
  members: Sequence[Member],
  space: str,
  weights: Mapping[str, Mapping[Key, float]] | None = None,
  calibrations: Mapping[str, Calibration] | None = None,
  devs: Sequence[Member] | None = None,
  incomplete: Sequence[str] = (),
) -> dict:
  """The header of a mean.

  Args:
    members: that it is of.
    space: one of `ensembles.SPACES`.
    weights: by subset: as `ensembles.val_weights`; None where all are alike.
    calibrations: by subset, as far as they were calibrated.
    devs: whose scores weights and calibrations are fitted on.
    incomplete: what was missing, and allowed to be.

  Returns:
    `ensemble`, and `weights_hash`, the members' own hashes and what was done with them, where all
    are known; a member alone keeps its own.
  """
  recipe = {
    'order': list(averaging.ORDER),
    'space': space,
    'weights': 'equal'
    if weights is None
    else {
      subset: {file_stem(key) or key[-1]: w for key, w in of.items() if key[-1]}
      for subset, of in weights.items()
    },
    'calibration': {
      s: {'method': c.method, **c.parameters} for s, c in (calibrations or {}).items()
    }
    or None,
  }
  hashes = sorted({(*m.at, str(m.scores.header.get('weights_hash') or '')) for m in members})
  weights_of = {h[-1] for h in hashes}
  found = {'ensemble': {'members': [_member_entry(m) for m in members], **recipe}}
  if weights is not None:
    found['ensemble']['weighing'] = averaging.WEIGHING
  if devs:
    dev = devs[0].scores
    found['ensemble']['dev'] = {
      'list_hash': score_files.list_hash(dev.ids, dev.label),
      'files': [{'file': str(m.path), 'sha256': m.sha256} for m in devs],
    }
  if any(results.is_rendered(m.scores) for m in members):
    found['rendered'] = True
  if lacking := {name for m in members for name in m.scores.header.get('not_recorded', ())}:
    found['not_recorded'] = [name for name in schema.MODALITIES if name in lacking]
  if incomplete:
    found['ensemble']['incomplete'] = list(incomplete)
  if '' not in weights_of:
    text = json.dumps([hashes, recipe], sort_keys=True)
    alone = len(weights_of) == 1 and recipe['calibration'] is None
    found['weights_hash'] = hashes[0][-1] if alone else hashlib.sha256(text.encode()).hexdigest()
  return found


def _member_entry(member: Member) -> dict:
  of = member.scores.header
  return {
    'file': str(member.path),
    'sha256': member.sha256,
    **{c: x for c, x in zip(COORDINATES, member.at, strict=True) if x},
    'columns': list(member.scores.scores),
    **{name: of[name] for name in ('weights_hash', 'step') if name in of},
  }


def write(
  path: Path,
  members: Sequence[Member],
  scores: Mapping[str, np.ndarray],
  header: Mapping,
  scale: str = '',
) -> None:
  """Writes a mean of members.

  Args:
    path: `NAME.csv`.
    members: of the ensemble, all in one order; their samples are written.
    scores: by subset: [N].
    header: from `header`.
    scale: of the scores, as in `scales`.

  Raises:
    ConfigError: the file cannot be written.
  """
  base = dataclasses.replace(
    validation.merge_samples(members),
    scores=dict(scores),
    header=dict(header),
    nan_samples={},
    scale=scale,
  )
  try:
    score_files.write(path, base)
  except OSError as error:
    raise ConfigError(f'{path} cannot be written: {error.strerror}') from error


def names(tree: Mapping[Key, Sequence[Key]]) -> dict[Key, str]:
  """What the file of every mean below the ensemble is called, without `.csv`.

  Raises:
    ConfigError: two of the same name.
  """
  keys = [key for key in tree if key and key[-1]]
  found = {key: file_stem(key) for key in keys}
  if len(set(found.values())) < len(found):
    twice = sorted(n for n in found.values() if list(found.values()).count(n) > 1)
    raise ConfigError(f'--intermediate: two means would be called {twice[0]}; rename a network')
  return found
