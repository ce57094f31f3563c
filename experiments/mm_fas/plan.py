"""What a sweep trains: every network with every seed and fold, and the command of each."""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

DONOR = 'faces'  # the run of face recognition that the network of this name starts from
CHANCE = 'chance'  # the same network, and nothing to start from
# MM-FAS's folds in miniature: three cut photos, of which each fold leaves one out.
PROTOCOL = 'rendered_mm_fas(attack={fold}, part={part}, size={size})'
FOLDS = 'eyes_nose_curved,eyes_nose_mouth_flat,eyes_nose_mouth_curved'
# Whom the donor is trained on, chosen by, tested on: nobody of any fold or test of the members.
DONOR_SETS = (
  'rendered_faces/cefa_like{size}:train,rendered_faces/cefa_like{size}:test',
  'rendered_faces/cefa_like{size}:val',
  'rendered_faces/surf_like{size}:val',
)


class Run(NamedTuple):
  """One training."""

  name: str
  folder: pathlib.Path
  command: tuple[str, ...]
  donor: str = ''  # the run that must be there before


def runs(args: argparse.Namespace) -> list[Run]:
  """The donor, if a network needs it, and the members, in the order that they are trained in.

  Args:
    args: the command line, see `python -m experiments.mm_fas --help`.
  """
  members = [
    _member(args, network, seed, part, fold)
    for seed, network, (part, fold) in itertools.product(
      args.seeds, args.networks, enumerate(args.folds)
    )
  ]
  # What waits for nobody comes first: it is trained while the donor is.
  members.sort(key=lambda run: bool(run.donor))
  return ([_donor(args)] if any(run.donor for run in members) else []) + members


def share(members: Sequence[Run], index: int, of: int) -> list[Run]:
  """The runs of machine `index` of `of`; the donor, which all may need, is everybody's."""
  donors = [run for run in members if run.name == DONOR]
  return donors + [run for run in members if run.name != DONOR][index::of]


def _donor(args) -> Run:
  folder, config = args.workdir / DONOR, 'configs/face_recognition.py'
  train, val, test = (_people(names, args.size) for names in DONOR_SETS)
  often = max(1, args.donor_steps // 4)
  changes = [
    f'train={train}',
    f'val={val}',
    f'test={ {"cross": test} }',
    f'steps={args.donor_steps}',
  ]
  changes += [f'schedule.warmup={min(50, often)}']
  changes += [f'eval_every={often}', f'checkpoint_every={often}']
  return Run(DONOR, folder, _command(args, config, 'train_and_evaluate', folder, changes))


def _people(names: str, size: str) -> str:
  parts = names.format(size=size).split(',')
  return ','.join(f'{part}[species=bona_fide & modalities=rgb]' for part in parts)


def _member(args, network: str, seed: int, part: int, fold: str) -> Run:
  name = f'{network}_seed{seed}_fold{fold}'
  folder, config = args.workdir / 'members' / name, 'configs/mm_fas.py'
  if network not in (DONOR, CHANCE):
    config += f':{network}'
  protocol = args.protocol.format(fold=fold, part=part % 3, size=args.size)
  changes = [f'protocol={protocol}', f'seed={seed}', 'report=False']
  changes.append(f'member={ {"network": network, "fold": fold} }')
  if args.steps:
    changes += [f'steps={args.steps}', f'eval_every={args.steps}', f'checkpoint_every={args.steps}']
  if args.views:
    changes.append(f'views={args.views!r}')
  donor = DONOR if network == DONOR else ''
  if donor:
    changes.append(f'pretrained.weights={args.workdir / DONOR}')
  command = _command(args, config, 'train', folder, changes + args.change)
  return Run(name, folder, command, donor)


def _command(args, config: str, mode: str, folder, changes: Sequence[str]) -> tuple[str, ...]:
  return (
    *(sys.executable, '-m', 'flexfas_jax.main', f'--config={config}', f'--workdir={folder}'),
    *(f'--mode={mode}', f'--config.data_dir={args.data_dir}'),
    *(f'--config.{change}' for change in changes),
  )
