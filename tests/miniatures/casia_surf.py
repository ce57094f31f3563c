"""CASIA-SURF in miniature, as the challenge and the later release have it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.miniatures.flexmodal import save

SUBJECTS = {
  'Training': ('CLKJ_AS0005', 'CLKJ_BS0831', 'CLKJ_CS0110'),
  'Val': ('CLKJ_AS0010', 'CLKJ_BS1245'),
  'Testing': ('CLKJ_AS0002', 'CLKJ_CS0117'),
}
# The official protocol: other attacks are trained on than are met.
TRAINED = ('04_en_b', '05_enm_s', '06_enm_b')
MET = ('01_e_s', '02_e_b', '03_en_s')
PHASES = {'Val': 6, 'Testing': 8}  # triplets of the challenge; every other one is live
KINDS = {'rgb': 'color', 'depth': 'depth', 'ir': 'ir'}


def _training() -> Iterator[tuple[str, str]]:
  """(clip's folder, frame) of the challenge's Training."""
  for subject, clip in itertools.product(SUBJECTS['Training'], ('real', *TRAINED)):
    part = 'real_part' if clip == 'real' else 'fake_part'
    for frame in ('11', '21', '101'):
      yield f'Training/{part}/{subject}/{clip}.rssdk', frame


def write_challenge(root: Path, lists: bool = True) -> None:
  """Writes the layout of the challenge of CVPR 2019.

  Args:
    root: gets Training (36 triplets), Val and Testing (`PHASES`).
    lists: write train_list.txt, val_private_list.txt and test_private_list.txt, which have labels,
      and val_public_list.txt, which has none.
  """
  numbers = itertools.count()
  train, named = [], {}
  for folder, frame in _training():
    files = {m: f'{folder}/{kind}/{frame}.jpg' for m, kind in KINDS.items()}
    live = 'real_part' in folder
    save(root, files, '' if live else 'cut_photo', next(numbers))
    train.append(f'{" ".join(files.values())} {int(live)}\n')
  for phase, n in PHASES.items():
    named[phase] = []
    for number in range(n):
      name = f'{phase}/0000/{number:06d}'
      files = {m: f'{name}-{kind}.jpg' for m, kind in KINDS.items()}
      live = number % 2
      save(root, files, '' if live else 'cut_photo', next(numbers))
      named[phase].append(f'{" ".join(files.values())} {live}\n')
  if lists:
    (root / 'train_list.txt').write_text(''.join(train))
    (root / 'val_private_list.txt').write_text(''.join(named['Val']))
    (root / 'test_private_list.txt').write_text(''.join(named['Testing']))
    public = [f'{line.rpartition(" ")[0]}\n' for line in named['Val']]
    (root / 'val_public_list.txt').write_text(''.join(public))


def write_phase_list(file: Path) -> None:
  """Writes the labels of Val as MM-FAS has them, in phase1_list.txt."""
  _write_list(file, [(f'Val/0000/{n:06d}-{{}}.jpg', n % 2) for n in range(PHASES['Val'])])


def write_mm_fas_folds(folder: Path) -> None:
  """Writes MM-FAS's folds of Training: folds_by_fakes/fold{1,2,3}/*.txt.

  Each leaves one attack out, and a third of the live people. `val_list.txt` is the official Val.
  """
  for fold, species in enumerate(TRAINED, 1):
    parts = {'train_list': [], 'val_list_orgl': []}
    for clip, frame in _training():
      live = 'real_part' in clip
      person = SUBJECTS['Training'].index(clip.split('/')[2])
      out = person % 3 == fold - 1 if live else species in clip
      row = (f'train/{clip}/{{}}/{frame}{{}}.jpg', int(live))
      parts['val_list_orgl' if out else 'train_list'].append(row)
    place = folder / 'folds_by_fakes' / f'fold{fold}'
    for name, rows in parts.items():
      _write_list(place / f'{name}.txt', rows)
    val = [(f'valid/Val/0000/{n:06d}-{{}}.jpg', n % 2) for n in range(PHASES['Val'])]
    _write_list(place / 'val_list.txt', val)


def _write_list(file: Path, rows: list[tuple[str, int]]) -> None:
  lines = ['rgb,depth,ir,label']
  for path, label in rows:
    # MM-FAS trained on copies of depth and infrared in the size of RGB.
    files = [path.format(kind, '' if kind == 'color' else '_resized') for kind in KINDS.values()]
    lines.append(','.join([*files, str(label)]))
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text('\n'.join(lines) + '\n')


def write_release(root: Path, short: bool = False) -> None:
  """Writes the layout of the later release, below CASIA_SURF/Data: 44 triplets.

  Args:
    root: gets CASIA_SURF.
    short: write 04.rssdk for 04_en_b.rssdk.
  """
  numbers = itertools.count()
  for phase, subjects in SUBJECTS.items():
    clips = ('real', *(TRAINED if phase == 'Training' else MET))
    for subject, clip in itertools.product(subjects, clips):
      part = 'real_part' if clip == 'real' else 'fake_part'
      name = clip[:2] if short and clip != 'real' else clip
      folder = f'CASIA_SURF/Data/{phase}/{part}/{subject}/{name}.rssdk'
      frames = ('0015', '0021') if phase != 'Training' else ('0015',)
      for frame in frames:
        files = {m: f'{folder}/{kind}/{frame}.jpg' for m, kind in KINDS.items()}
        save(root, files, '' if clip == 'real' else 'cut_photo', next(numbers))
