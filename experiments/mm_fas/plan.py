"""The runs of a sweep: every network with every seed and fold, and the command of each."""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

FACES = 'faces'  # the network that is initialised from face recognition of the same seed
CHANCE = 'chance'  # the same network, initialised at random
# MM-FAS's folds in miniature: each fold leaves out one of three cut photos.
PROTOCOL = 'rendered_mm_fas(attack={fold}, part={part}, size={size})'
FOLDS = 'eyes_nose_curved,eyes_nose_mouth_flat,eyes_nose_mouth_curved'
# Train, val and test sets of face recognition, of the folds' version of the rendered faces; no
# subject is in a fold or test of the members.
FACE_SETS = (
  'rendered_faces/v1_cefa_like{size}:train,rendered_faces/v1_cefa_like{size}:test',
  'rendered_faces/v1_cefa_like{size}:val',
  'rendered_faces/v1_surf_like{size}:val',
)


class Run(NamedTuple):
  """One training."""

  name: str
  folder: pathlib.Path
  command: tuple[str, ...]
  pretrained: str = ''  # name of the run that must end before this one starts


def runs(args: argparse.Namespace) -> list[Run]:
  """The face recognition runs, if a network needs them, and the members, in training order.

  A seed is one run of the whole recipe: face recognition and every fold have it. So the seeds show
  what another training of the recipe may change.

  Args:
    args: the command line, see `python -m experiments.mm_fas --help`.
  """
  own = [
    _member(args, network, seed, part, fold)
    for seed, network, (part, fold) in itertools.product(
      args.seeds, args.networks, enumerate(args.folds)
    )
  ]
  # Runs without pretraining come first: they train while face recognition does.
  own.sort(key=lambda run: bool(run.pretrained))
  needed = {run.pretrained for run in own}
  pretraining = [_face_recognition(args, seed) for seed in args.seeds]
  return [run for run in pretraining if run.name in needed] + own


def members(all_runs: Sequence[Run]) -> list[Run]:
  """The runs that are evaluated: all but those that others start from."""
  pretrained = {run.pretrained for run in all_runs}
  return [run for run in all_runs if run.name not in pretrained]


def share(all_runs: Sequence[Run], index: int, machines: int) -> list[Run]:
  """The runs of machine `index` of `machines`, and the face recognition that these start from."""
  own = members(all_runs)[index::machines]
  needed = {run.pretrained for run in own}
  return [run for run in all_runs if run.name in needed] + own


def _face_recognition(args, seed: int) -> Run:
  name = _face_recognition_name(seed)
  folder, config = args.workdir / name, 'configs/face_recognition.py'
  train, val, test = (_bona_fide(names, args.size) for names in FACE_SETS)
  period = max(1, args.pretraining_steps // 4)
  changes = [
    f'train={train}',
    f'val={val}',
    f'test={ {"cross": test} }',
    f'steps={args.pretraining_steps}',
    f'seed={seed}',
  ]
  changes += [f'schedule.warmup={min(50, period)}']
  changes += [f'eval_every={period}', f'checkpoint_every={period}']
  return Run(name, folder, _command(args, config, 'train_and_evaluate', folder, changes))


def _face_recognition_name(seed: int) -> str:
  return f'face_recognition_seed{seed}'


def _bona_fide(names: str, size: str) -> str:
  parts = names.format(size=size).split(',')
  return ','.join(f'{part}[species=bona_fide & modalities=rgb]' for part in parts)


def _member(args, network: str, seed: int, part: int, fold: str) -> Run:
  name = f'{network}_seed{seed}_fold{fold}'
  folder, config = args.workdir / 'members' / name, 'configs/mm_fas.py'
  if network not in (FACES, CHANCE):
    config += f':{network}'
  protocol = args.protocol.format(fold=fold, part=part % 3, size=args.size)
  changes = [f'protocol={protocol}', f'seed={seed}', 'report=False']
  changes.append(f'member={ {"network": network, "fold": fold} }')
  if args.steps:
    changes += [f'steps={args.steps}', f'eval_every={args.steps}', f'checkpoint_every={args.steps}']
  if args.views:
    changes.append(f'views={args.views!r}')
  pretrained = _face_recognition_name(seed) if network == FACES else ''
  if pretrained:
    changes.append(f'pretrained.weights={args.workdir / pretrained}')
  command = _command(args, config, 'train', folder, changes + args.change)
  return Run(name, folder, command, pretrained)


def _command(args, config: str, mode: str, folder, changes: Sequence[str]) -> tuple[str, ...]:
  command = [sys.executable, '-m', 'flexfas_jax.main', f'--config={config}', f'--workdir={folder}']
  command += [f'--mode={mode}', f'--config.data_dir={args.data_dir}']
  return (*command, *(f'--config.{change}' for change in changes))
