"""The predict command as users call it: one sample, folders, manifests, prepared sets."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flexfas_jax import demo, predict, score
from flexfas_jax.evaluation import score_files
from flexfas_jax.prediction import Predictor
from tests.prediction import bundles

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  return bundles.write(tmp_path_factory.mktemp('bundles') / 'toy')


@pytest.fixture
def files(tmp_path, monkeypatch):
  """The folder that the command is started in, with a triplet."""
  for modality, image in bundles.triplet().items():
    (tmp_path / f'{modality}.png').write_bytes(bundles.png(image))
  (tmp_path / 'boxless.csv').write_text('rgb,label\nrgb.png,attack\n')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def run(capsys, *args):
  code = predict.main([str(arg) for arg in args])
  said = capsys.readouterr()
  return code, said.out, said.err


@pytest.mark.smoke
def test_the_command(bundle, files):
  done = subprocess.run(
    [sys.executable, '-m', 'flexfas_jax.predict', bundle, f'--rgb={files}/rgb.png', '--json'],
    cwd=ROOT, capture_output=True, text=True, timeout=60,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, '')
  found = json.loads(done.stdout)
  assert found['decision'] == 'bona_fide' and found['accepted'] is True
  assert found['used'] == ['rgb'] and found['threshold'] == bundles.THRESHOLDS['rgb']
  assert found['score'] == Predictor.load(bundle)(rgb=files / 'rgb.png').score


def test_limits_of_the_model_are_printed_with_its_decisions(files, tmp_path, capsys):
  """A decision of rendered faces, or of a model that failed its requirement, states it."""
  verdicts = {'rgb': {'requirement': 'bpcer<=1%', 'passed': False, 'checks': []}}
  verdicts |= {'rgb+depth': {'requirement': 'bpcer<=1%', 'passed': True, 'checks': []}}
  metrics = {'intra': {subset: {'pass_if': of} for subset, of in verdicts.items()}}
  bundle = bundles.write(tmp_path / 'rendered', data={'rendered': True}, metrics=metrics)
  code, out, err = run(capsys, bundle, '--rgb=rgb.png', '--json')
  assert code == 0 and json.loads(out)['decision']
  assert err.splitlines() == [
    'note: RENDERED: trained and evaluated on rendered faces',
    'note: FAIL: rgb in the test intra, of which bpcer<=1% is required',
  ]


@pytest.mark.parametrize(
  ('args', 'expected', 'says'),
  [
    (['--rgb=/dev/zero'], 3, 'rgb /dev/zero cannot be read: it is a device'),
    (['--rgb=fifo'], 3, 'rgb fifo cannot be read: it is a named pipe'),
    (['--rgb=rgb.png', '--depth=wide.png'], 3, 'rgb 24 x 24, depth 48 x 27: images of these sizes'),
    (['--rgb=rgb.png', '--depth=wide.png', '--sizes=any'], 0, ''),
    (['--rgb=rgb.png', '--max_pixels=575'], 3, '24 x 24 pixels, more than the limit of 575'),
    (['--rgb=rgb.png', '--max_pixels=576'], 0, ''),
    (['--rgb=rgb.png', '--max_pixels=9'], 2, 'max_pixels is 9'),
    (['--rgb=rgb.png', '--crop=yunet', '--yunet=/dev/zero'], 3, 'it is a device'),
    (['--rgb=rgb.png', '--crop=yunet', '--yunet=fifo'], 3, 'it is a named pipe'),
    (['--manifest=limits.csv'], 3, '3 of 4 samples have bad images'),
    (['--folder=limits'], 3, '1 of 1 samples have bad images'),
  ],
)
def test_limits(bundle, files, capsys, args, expected, says):
  """Nothing endless is read, nothing that is not registered is decided, nothing waits."""
  os.mkfifo(files / 'fifo')
  (files / 'wide.png').write_bytes(bundles.png(bundles.picture(5, size=48)[:27]))
  rows = ['rgb.png,wide.png', 'zero,', 'fifo,', 'rgb.png,depth.png']
  (files / 'zero').symlink_to('/dev/zero')
  lines = [f'{row},{i}' for i, row in enumerate(rows)]
  (files / 'limits.csv').write_text('\n'.join(['rgb,depth,id', *lines]))
  for modality, name in (('rgb', 'rgb.png'), ('depth', 'wide.png')):
    (files / 'limits' / modality).mkdir(parents=True)
    shutil.copy(files / name, files / 'limits' / modality / '1.png')
  code, out, err = run(capsys, bundle, *args)
  assert code == expected and says in err, err
  accepted = re.findall('^(?:decision +)?bona_fide', out, re.MULTILINE)
  assert bool(accepted) == (code == 0 or 'manifest' in args[0])


def test_one_sample(bundle, files, capsys):
  code, out, err = run(capsys, bundle, '--rgb=rgb.png', '--depth=depth.png', '--ir=ir.png')
  assert (code, err) == (0, '')
  lines = dict(line.split(maxsplit=1) for line in out.splitlines())
  assert list(lines) == ['decision', 'score', 'threshold', 'used', 'time']
  assert lines['decision'] == 'bona_fide (accepted)' and lines['used'] == 'rgb, depth, ir'
  assert lines['threshold'] == '0.450000 (dev_eer of rgb+depth+ir)'
  (files / 'black.png').write_bytes(bundles.png(np.zeros((24, 24, 1), np.uint8)))
  code, out, _ = run(capsys, bundle, '--ir=black.png')
  assert code == 0 and out.startswith(
    'decision   fta (not accepted)\nused       nothing\n'
  )  # not a pass
  late = ['--times=rgb=1.0,ir=1.2', '--max_skew=0.1']
  code, out, _ = run(capsys, bundle, '--rgb=rgb.png', '--ir=ir.png', *late)
  assert code == 0 and out.startswith(
    'decision   fta (not accepted)\nused       rgb\nunusable   ir\n'
  )
  assert 'ir is 200 ms later than rgb' in out
  late += ['--allow_absent= ir, depth']
  code, out, _ = run(capsys, bundle, '--rgb=rgb.png', '--ir=ir.png', *late)
  assert code == 0 and out.startswith('decision   bona_fide (accepted)\n') and 'of rgb)' in out


@pytest.mark.parametrize(
  ('args', 'code', 'says'),
  [
    ([], 2, 'no images: give --rgb=FILE'),
    (['--rgb=rgb.png', '--folder=.'], 2, '--rgb and --folder exclude each other'),
    (['--folder=.', '--manifest=a.csv'], 2, '--folder and --manifest exclude each other'),
    (['a.jpg', 'a_ir.png', 'a_depth.png'], 2, '--rgb=a.jpg --ir=a_ir.png --depth=a_depth.png'),
    (['1.png', '2.png'], 2, 'name the sensor of each image, e.g. --rgb=1.png --depth=2.png'),
    (['thermal.png', '--rgb=rgb.png'], 2, 'e.g. --rgb=thermal.png'),
    (['--folder=.', '--box=1,2,3,4'], 2, '--box applies to one sample'),
    (['--rgb=rgb.png', '--out=a.csv'], 2, '--out requires --folder'),
    (['--rgb=rgb.png', '--on_bad=skip'], 2, '--on_bad requires --folder'),
    (['--manifest=boxless.csv', '--out=./boxless.csv'], 2, 'is an input of this command'),
    (['--manifest=boxless.csv', '--max_skew=1'], 2, 'has no columns rgb_time'),
    (['--folder=.', '--max_skew=1'], 2, '--max_skew requires capture times'),
    (['--folder=.', '--out=absent/a.csv'], 2, 'no such folder: absent'),
    (['--rgb=rgb.png', '--times=rgb=x'], 2, 'expected numbers'),
    (['--rgb=rgb.png', '--times=rgb=1,rgb=9', '--max_skew=1'], 2, 'rgb has two times'),
    (['--rgb=rgb.png', '--times=rgb=1,now=1, now=9', '--max_age=1'], 2, 'now has two times'),
    (['--rgb=rgb.png', '--times=rgb=1,now=-inf', '--max_age=1'], 2, 'the time of now is -inf'),
    (['--rgb=rgb.png', '--times=rgb=1,now=nan', '--max_age=1'], 2, 'the time of now is nan'),
    (['--rgb=rgb.png', '--times=rgb=1,now=1', '--max_age=-1'], 2, 'max_age is -1'),
    (['--rgb=rgb.png', '--times=rgb=1,now=1', '--max_age=nan'], 2, 'max_age is nan'),
    (['--rgb=rgb.png', '--times=rgb=1,clock=1', '--max_skew=1'], 2, "a time of 'clock'"),
    (['--rgb=rgb.png', '--times=', '--max_skew=1'], 2, 'expected numbers'),
    (['--rgb=rgb.png', '--times=rgb=1,now=100'], 2, 'times have no effect without'),
    (['--rgb=rgb.png', '--crop=box'], 2, '--crop=box requires the box: --box'),
    (['--folder=.', '--crop=box'], 2, '--crop=box requires the box: --box'),
    (['--manifest=boxless.csv', '--crop=box'], 2, 'boxless.csv has no columns for it'),
    (['--rgb=rgb.png', '--format=onnx'], 2, 'has no onnx model'),
    (['--rgb=absent.png'], 3, 'absent.png cannot be read'),
    (['--rgb=rgb.png', '--ir=rgb.png'], 3, 'ir is the same file as rgb'),
    (['--folder=absent'], 3, 'absent is not a folder'),
    (['--rgb=rgb.png', '--sha256=00'], 4, 'is another card'),
    (['--rgb=rgb.png', '--require=depth'], 2, 'depth is required but absent'),
    (['--rgb=rgb.png', '--allow_absent=deph'], 2, "no modality 'deph' in this model"),
    (['--rgb=rgb.png', '--require=ir', '--allow_absent=ir'], 2, 'ir is required'),
    (['--rgb=rgb.png', '--require='], 2, '--require= names no modality'),
    (['--rgb=rgb.png', '--require= ,'], 2, '--require= , names no modality'),
    (['--rgb=rgb.png', '--align=eyes'], 2, 'align=eyes has no effect without crop'),
    (['--manifest=boxless.csv', '--out=card.csv'], 2, 'would overwrite card.json'),
  ],
)
def test_what_is_wrong_is_reported(bundle, files, capsys, args, code, says):
  shutil.copy(bundle / 'card.json', files)
  found = run(capsys, bundle, *args)
  assert found[0] == code and says in found[2] and found[2].count('\n') == 1


@pytest.mark.parametrize(
  'twice',
  [
    ['--require=depth', '--require=ir'],
    ['--allow_absent=ir', '--allow_absent', 'depth'],
    ['--rgb=ir.png'],
    ['--sha256=0', '--sha256=1'],
  ],
)
def test_an_option_twice_is_refused(bundle, files, capsys, twice):
  """The last would replace the first: of two required modalities one would be forgotten."""
  for command in (predict, demo):
    given = ['--rgb=rgb.png', '--ir=ir.png'] if command is predict else []
    if command is demo and twice == ['--rgb=ir.png']:
      continue
    with pytest.raises(SystemExit) as ended:
      command.main([str(bundle), *given, *twice])
    assert ended.value.code == 2
    assert 'is given twice' in capsys.readouterr().err


def test_the_future_is_not_fresh(bundle, files, capsys):
  future = ['--rgb=rgb.png', '--times=rgb=100,now=5', '--max_age=1']
  code, out, _ = run(capsys, bundle, *future)
  assert code == 0 and out.startswith('decision   fta (not accepted)\n')
  assert 'rgb is from the future: 95000 ms later than now' in out


def test_a_model_that_needs_rgb(files, capsys):
  bundles.write(files / 'b', requires=['rgb'], subsets=['rgb', 'rgb+depth'])
  code, _, err = run(capsys, files / 'b', '--depth=depth.png')
  assert code == 2 and 'rgb is required but absent' in err
  code, _, err = run(capsys, files / 'b', '--rgb=rgb.png', '--ir=ir.png')
  assert code == 2 and 'this model does not serve rgb+ir; it serves rgb, rgb+depth' in err
  bundles.write(files / 'b', thresholds={})
  code, out, err = run(capsys, files / 'b', '--rgb=rgb.png')
  assert (code, out) == (4, '') and 'no threshold for rgb' in err


def test_help_says_all(capsys):
  with pytest.raises(SystemExit) as end:
    predict.main(['--help'])
  said = capsys.readouterr().out
  assert end.value.code == 0
  for word in ('--rgb', '--folder', '--manifest', '--data', '--crop', 'exit codes:', 'largest'):
    assert word in said


def write_set(folder, labels=True):
  """Eight triplets, two of which lack something; returns {id: what it has}."""
  has = {}
  for i in range(8):
    name = f'{("attack", "bona_fide")[i % 2]}/' if labels else ''
    for modality, image in bundles.triplet(i, rgb=0.2 * (i % 2) - 0.1, ir=0.1).items():
      if (i, modality) in ((3, 'depth'), (4, 'ir')):
        continue
      path = folder / f'{name}p{i}/{modality}/{i:02}.png'
      path.parent.mkdir(parents=True)
      path.write_bytes(bundles.png(image))
      has.setdefault(f'{name}p{i}/{i:02}', []).append(modality)
  return has


def test_a_folder_becomes_a_score_file(bundle, files, capsys):
  has = write_set(files / 'set')
  code, out, err = run(capsys, bundle, '--folder=set', '--out=o.csv')
  assert code == 0 and out.startswith('8 samples: ')
  assert err.splitlines() == [
    'note: 1 of 8 samples have no depth, which counts as absent: bona_fide/p3/03',
    'note: 1 of 8 samples have no ir, which counts as absent: attack/p4/04',
  ]
  found = score_files.read(files / 'o.csv')
  assert found.header['weights_hash'] == 'w' * 8 and len(found.header['bundle_hash']) == 64
  assert dict(zip(found.ids.tolist(), found.extra['used'].tolist(), strict=True)) == {
    id_: '+'.join(m) for id_, m in has.items()
  }
  assert found.label.tolist() == ['bona_fide' in id_ for id_ in found.ids]
  # Each column is what the predictor says of these modalities, and the decision that of all.
  predictor = Predictor.load(bundle)
  for i, id_ in enumerate(found.ids.tolist()):
    folder, _, name = id_.rpartition('/')
    paths = {m: files / 'set' / folder / m / f'{name}.png' for m in has[id_]}
    for subset in bundles.SUBSETS:
      own = {m: path for m, path in paths.items() if m in subset.split('+')}
      one = predictor(**own)
      assert found.scores[subset][i] == pytest.approx(one.score, abs=1e-6, nan_ok=True)
    assert found.extra['decision'][i] == predictor(**paths).outcome
  # The suggested command applies the bundle's thresholds, not 0.5 to every subset.
  suggested = out.partition('evaluate it: ')[2].split()
  assert suggested[-2:] == ['o.csv', '--threshold=bundle']
  assert score.main([*suggested[-2:], '--bootstrap=0', '--json=r.json']) == 0
  results = json.loads((files / 'r.json').read_text())
  assert {name: of['threshold'] for name, of in results.items()} == bundles.THRESHOLDS
  capsys.readouterr()
  assert score.main(['o.csv', '--bootstrap=0']) == 0
  assert 'the threshold is the default, fixed=0.5; those of the bundle' in capsys.readouterr().err


def test_without_labels_there_is_nothing_to_judge(bundle, files, capsys):
  write_set(files / 'set', labels=False)
  code, out, _ = run(capsys, bundle, '--folder=set', '--out=o.csv')
  assert code == 0 and 'no labels' in out
  with open('o.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 8 and list(rows[0])[:4] == ['id', 'used', 'decision', 'reasons']
  assert json.loads((files / 'o.json').read_text())['bundle'] == 'toy'
  code, out, err = run(capsys, bundle, '--folder=set', '--json')
  listed = [json.loads(line) for line in out.splitlines()]
  assert [one['id'] for one in listed] == [row['id'] for row in rows] and '8 samples' in err


def test_a_manifest(bundle, files, capsys):
  has = write_set(files / 'set', labels=False)
  lines = [
    'rgb,depth,ir,label,attack_type,attack_category,subject,video,rgb_time,depth_time,ir_time'
  ]
  for i, (id_, own) in enumerate(has.items()):
    folder, _, name = id_.rpartition('/')
    paths = [f'set/{folder}/{m}/{name}.png' if m in own else '' for m in bundles.MODALITIES]
    kind = ('bona_fide,,', 'attack,a4,print')[i % 2]
    times = [f'{1 + (m == "ir") * i / 100}' if m in own else '' for m in bundles.MODALITIES]
    lines.append(','.join([*paths, kind, f's{i}', 'v', *times]))
  (files / 'm.csv').write_text('\n'.join(lines))
  code, _, err = run(capsys, bundle, '--manifest=m.csv', '--max_skew=0.045', '--out=o.csv')
  assert (code, err) == (0, '')
  found = score_files.read(files / 'o.csv')
  assert found.attack_type.tolist() == ['', 'a4'] * 4
  assert ['ir' in used for used in found.extra['used'].tolist()] == [True] * 4 + [False] * 4
  assert 'ir is 50 ms later' in found.extra['reasons'][5]
  (files / 'm.csv').write_text('\n'.join([*lines, 'rgb.png,,,nobody,,,s,v,,,']))
  code, _, err = run(capsys, bundle, '--manifest=m.csv')
  assert code == 3 and "row 10: unknown label 'nobody'" in err


def cover(folder, covered):
  """Replaces images of a folder by black ones: {id: modalities}."""
  for id_, modalities in covered.items():
    parent, _, name = id_.rpartition('/')
    for m in modalities:
      channels = 3 if m == 'rgb' else 1
      (folder / parent / m / f'{name}.png').write_bytes(
        bundles.png(np.zeros((24, 24, channels), np.uint8))
      )


@pytest.mark.parametrize('by', ['folder', 'manifest'])
def test_a_covered_sensor_among_many(bundle, files, capsys, by):
  has = write_set(files / 'set')
  one, two = 'bona_fide/p1/01', 'attack/p2/02'
  cover(files / 'set', {one: ['ir'], two: ['depth', 'ir']})
  source = '--folder=set'
  if by == 'manifest':
    lines = ['rgb,depth,ir,label,subject,video']
    for id_, own in has.items():
      folder, _, name = id_.rpartition('/')
      paths = [f'set/{folder}/{m}/{name}.png' if m in own else '' for m in bundles.MODALITIES]
      lines.append(','.join([*paths, id_.partition('/')[0], folder, 'v']))
    (files / 'm.csv').write_text('\n'.join(lines))
    source = '--manifest=m.csv'
  made = {}
  for name, allow in (('strict', ''), ('ir', 'ir'), ('both', 'ir,depth')):
    code, out, err = run(capsys, bundle, source, f'--out={name}.csv', f'--allow_absent={allow}')
    assert code == 0 and err.count('counts as absent') == 2 * (by == 'folder')
    assert '; 2 with an unusable modality\n' in out
    made[name] = score_files.read(files / f'{name}.csv')
    ids = made[name].ids.tolist()
    at = [next(i for i, id_ in enumerate(ids) if id_.endswith(end)) for end in (one, two)]
    unusable = made[name].extra['unusable'].tolist()
    assert [unusable[i] for i in at] == ['ir', 'depth+ir'] and unusable.count('') == 6
    assert made[name].header['unusable']['rule'] == 'failure to acquire'
  missing = {
    name: {s for s, column in of.scores.items() if np.isnan(column[at[1]])}
    for name, of in made.items()
  }
  assert missing['strict'] == {s for s in bundles.SUBSETS if s != 'rgb'}
  assert missing['ir'] == {s for s in bundles.SUBSETS if 'depth' in s} | {'ir'}
  assert missing['both'] == {'depth', 'ir', 'depth+ir'}
  outcomes = [[str(of.extra['decision'][i]) for i in at] for of in made.values()]
  assert outcomes[0] == ['fta', 'fta'] and outcomes[1][1] == 'fta'
  assert 'fta' not in (outcomes[1][0], *outcomes[2])
  assert 'ir is given but unusable' in made['strict'].extra['reasons'][at[0]]
  # What is not affected stays as it was.
  for subset in bundles.SUBSETS:
    others = np.delete(np.stack([of.scores[subset] for of in made.values()]), at, 1)
    np.testing.assert_array_equal(others[0], others[1])
    np.testing.assert_array_equal(others[0], others[2])
  # The figures of these files have both rules.
  for name in made:
    assert score.main([f'{name}.csv', '--bootstrap=0', f'--json={name}_r.json']) == 0
  said = capsys.readouterr().err
  assert 'rgb+ir: 2 of 8 samples were given an unusable modality' in said
  found = {name: json.loads((files / f'{name}_r.json').read_text()) for name in made}
  for name, of in found.items():
    assert 'n_unusable' not in of['rgb'] and of['rgb+ir']['n_unusable'] == 2
    strict = found['strict']['rgb+ir']
    assert of['rgb+ir']['bpcer_fta'] == strict['bpcer'] == strict['bpcer_fta'], name


def test_bad_pictures_among_many_are_reported_as_failures(bundle, files, capsys):
  write_set(files / 'set')
  broken = files / 'set/attack/p2/depth/02.png'
  broken.write_bytes(broken.read_bytes()[:-40])
  code, _, err = run(capsys, bundle, '--folder=set', '--out=o.csv')
  assert code == 3 and '1 of 8 samples have bad images' in err and 'attack/p2/02' in err
  found = score_files.read(files / 'o.csv')
  assert found.extra['decision'][found.ids.tolist().index('attack/p2/02')] == 'fta'
  assert all(np.isnan(x).sum() <= 3 for x in found.scores.values())


def test_bad_samples_are_left_out(bundle, files, capsys):
  """Damaged files, another suffix, a name that is not UTF-8: counted, listed, and exit code 0."""
  write_set(files / 'set')
  broken = files / 'set/attack/p2/depth/02.png'
  broken.write_bytes(broken.read_bytes()[:-40])
  (files / 'set/attack/p6/ir/06.png').rename(files / 'set/attack/p6/ir/06.exr')
  os.rename('set/attack/p0/rgb/00.png', b'set/attack/p0/rgb/0\xff.png')
  code, out, err = run(capsys, bundle, '--folder=set', '--out=o.csv')
  assert code == 3 and 'samples with unusable files: 2 (--on_bad=skip leaves them out)' in err
  assert (
    not out and not (files / 'o.csv').exists()
  )  # the names are known before anything is decided
  code, out, err = run(capsys, bundle, '--folder=set', '--out=o.csv', '--on_bad=skip')
  assert code == 0 and out.startswith('6 samples: ')
  assert '3 of 9 samples are left out, all in o.bad_files.csv' in err
  found = score_files.read(files / 'o.csv')
  assert not {'attack/p2/02', 'attack/p6/06'} & set(found.ids.tolist())
  with open('o.bad_files.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [row['rule'] for row in rows] == ['row', 'unreadable', 'row']
  assert all(row['list'] == 'set' for row in rows)
  for row, text in zip(rows, ['0\\xff.png', 'ir/06.exr', 'attack/p2/02: depth'], strict=True):
    assert text in row['text'] and text in err
  # What is left is decided as it is without them, and an old list is not left behind.
  before = dict(zip(found.ids.tolist(), found.scores['rgb'].tolist(), strict=True))
  for path in ('set/attack/p2', 'set/attack/p6'):
    shutil.rmtree(path)
  os.unlink(b'set/attack/p0/rgb/0\xff.png')
  assert run(capsys, bundle, '--folder=set', '--out=o.csv', '--on_bad=skip')[0] == 0
  found = score_files.read(files / 'o.csv')
  after = dict(zip(found.ids.tolist(), found.scores['rgb'].tolist(), strict=True))
  np.testing.assert_equal(after, before)
  assert not (files / 'o.bad_files.csv').exists()


def test_nothing_but_bad_samples(bundle, files, capsys):
  (files / 'set').mkdir()
  (files / 'set/1.png').write_bytes(b'')
  code, _, err = run(capsys, bundle, '--folder=set', '--out=o.csv', '--on_bad=skip')
  assert code == 3 and 'no usable samples: 1: rgb set/1.png is empty' in err
  assert not (files / 'o.csv').exists()


def test_bad_rows_of_a_manifest(bundle, files, capsys):
  rows = ['rgb.png,ir.png,attack', 'rgb.png,ir.tiff,attack', '../rgb.png,,attack']
  (files / 'ir.tiff').write_bytes(b'II*\0')
  lines = [f'{row},{i}' for i, row in enumerate(rows)]
  (files / 'm.csv').write_text('\n'.join(['rgb,ir,label,id', *lines]))
  code, _, err = run(capsys, bundle, '--manifest=m.csv', '--out=o.csv')
  assert code == 3 and 'row 4: rgb ../rgb.png is not below the root' in err
  code, _, err = run(capsys, bundle, '--manifest=m.csv', '--out=o.csv', '--on_bad=skip')
  assert code == 0 and score_files.read(files / 'o.csv').ids.tolist() == ['0']
  with open('o.bad_files.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['list'], row['row']) for row in rows] == [('m.csv', '4'), ('m.csv', '3')]
  # Without skipping, a file that is no image does not let the other sensor decide.
  (files / 'm.csv').write_text('\n'.join(['rgb,ir,label,id', *lines[:2]]))
  code, _, err = run(capsys, bundle, '--manifest=m.csv', '--out=o.csv')
  assert code == 3 and score_files.read(files / 'o.csv').extra['decision'].tolist()[1] == 'fta'


def test_a_folder_whose_own_name_is_not_utf8(bundle, files, capsys):
  """Reasons name paths: they are written all the same."""
  write_set(files / 'set')
  (files / 'set/attack/p2/depth/02.png').write_bytes(b'')
  os.rename('set', b's\xff')
  code, _, err = run(capsys, bundle, f'--folder={os.fsdecode(b"s" + bytes([255]))}', '--out=o.csv')
  assert code == 3 and '1 of 8 samples have bad images' in err
  reasons = score_files.read(files / 'o.csv').extra['reasons'].tolist()
  assert any('s\\udcff/attack/p2/depth/02.png is empty' in reason for reason in reasons)


def test_a_terminal_that_cannot_show_a_name(bundle, files):
  (files / 'set').mkdir()
  for i, name in enumerate(('Zoë', '王')):
    (files / f'set/{name}.png').write_bytes(bundles.png(bundles.picture(i, channels=3)))
  done = subprocess.run(
    [sys.executable, '-m', 'flexfas_jax.predict', bundle, f'--folder={files}/set'],
    cwd=ROOT, capture_output=True, timeout=60, env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, b'')
  assert b'Zo\\xeb' in done.stdout and b'\\u738b' in done.stdout


def test_nan_among_many_is_reported(bundle, files, capsys):
  write_set(files / 'set')
  white = np.full((24, 24, 3), 255, np.uint8)
  white[:8, :8] = 245
  (files / 'set/attack/p2/rgb/02.png').write_bytes(bundles.png(white))
  code, _, err = run(capsys, bundle, '--folder=set', '--out=o.csv')
  assert code == 4 and 'is nan for 1 samples (the first is attack/p2/02)' in err
  assert score_files.read(files / 'o.csv').nan_samples['rgb'].size == 1


def test_two_pictures_of_one_place(bundle, files, capsys):
  write_set(files / 'set')
  (files / 'set/attack/p2/rgb/02.jpg').write_bytes(b'')
  code, _, err = run(capsys, bundle, '--folder=set')
  assert code == 3 and 'are both rgb of one sample' in err


def test_a_prepared_set(bundle, files, prepared, capsys):
  names = 'rendered_faces/surf_like_tiny:test'
  args = [f'--data={names}', f'--data_dir={prepared}', '--out=o.csv']
  code, _, err = run(capsys, bundle, *args)
  assert (code, err) == (0, '')
  found = score_files.read(files / 'o.csv')
  assert set(found.label.tolist()) == {0, 1}
  assert not np.isnan(found.scores['rgb+depth+ir']).any()


def test_units_on_the_command_line(files, capsys, tmp_path):
  inputs = bundles.INPUTS | {'ir': {'channels': 1, 'bits': [16]}}
  bundle = bundles.write(tmp_path / 'deep', inputs=inputs)
  ir = bundles.triplet()['ir'].astype(np.uint16) * 257
  Path('ten.png').write_bytes(bundles.png(ir >> 6))
  code, _, err = run(capsys, bundle, '--ir=ten.png')
  assert code == 3 and 'ir_bits=10' in err
  code, out, _ = run(capsys, bundle, '--ir=ten.png', '--ir_bits=10', '--json')
  assert code == 0 and json.loads(out)['used'] == ['ir']
  for wrong in ('--ir_bits=9', '--depth_unit=cm'):
    code, _, err = run(capsys, bundle, '--ir=ten.png', wrong)
    assert code == 2 and wrong[2:-2].partition('=')[0] in err
  code, _, err = run(capsys, bundle, '--data=a/b:test', '--depth_unit=mm')
  assert code == 2 and 'do not apply to --data' in err
