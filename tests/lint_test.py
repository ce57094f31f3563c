"""The lint command as users call it."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax import lint
from flexfas_jax.protocols.findings import RULES
from tests.miniatures import faces

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / 'shared' / 'data' / 'flexmodal_protocols'
FACE = 'S/real_part/CLKJ_AS000{}/real.rssdk/{}/1.jpg'


def row(subject, label=1):
  return ' '.join([*(FACE.format(subject, m) for m in ('color', 'depth', 'ir')), f'{label}\n'])


@pytest.fixture
def files(tmp_path):
  (tmp_path / 'train.txt').write_text(row(1) + row(2))
  (tmp_path / 'val.txt').write_text(row(3))
  (tmp_path / 'leak_test.txt').write_text(row(4) + row(2) + row(4))
  return tmp_path


def python(*args, **options):
  command = [sys.executable, *map(str, args)]
  options = {'cwd': ROOT, 'capture_output': True, 'text': True, 'timeout': 60} | options
  return subprocess.run(command, **options)


def run(*args):
  return lint.main([str(arg) for arg in args])


@pytest.mark.smoke
def test_nothing_found(files):
  done = python('-m', 'flexfas_jax.lint', 'train.txt', 'val.txt', cwd=files)
  assert (done.returncode, done.stderr) == (0, '')
  heads, train, val, end = done.stdout.splitlines()
  assert heads.split()[:3] == ['list', 'split', 'rows']
  assert train.split() == [
    'train.txt', 'train', '2', '2', '0', '0', '0', '2', '2', 'casia_surf',
  ]  # fmt: skip
  assert val.split()[:3] == ['val.txt', 'val', '1']
  assert end == 'no errors'


def test_anything_found(files, capsys):
  saved = files / 'lint.json'
  assert run(*sorted(files.glob('*.txt')), f'--json={saved}') == 3
  lines = capsys.readouterr().out.splitlines()
  test, train = files / 'leak_test.txt', files / 'train.txt'
  assert f'{test}:3: duplicate: the same triplet as row 1: casia_surf/CLKJ_AS0004/real/1' in lines
  leak = next(line for line in lines if ': leak-file: ' in line)
  assert leak.startswith(f'{test}:2: ')
  assert f'{train}:2 (train)' in leak
  assert 'leak: subject casia_surf/CLKJ_AS0002 in train, test' in lines
  assert f'1  {"duplicate":18}{RULES["duplicate"]}' in lines
  assert lines[-1] == 'errors: 2'
  said = json.loads(saved.read_text())
  assert said['counts'] == {'duplicate': 1, 'leak-file': 1}
  assert [(f['list'], f['row']) for f in said['findings']] == [(str(test), 3), (str(test), 2)]
  assert said['lists'][0]['redundant'] == 1
  assert sorted(p.name for p in files.iterdir()) == [
    'leak_test.txt', 'lint.json', 'train.txt', 'val.txt',
  ]  # fmt: skip


def test_json_of_nothing(files, capsys):
  assert run(files / 'val.txt', f'--json={files}/o.json') == 0
  said = json.loads((files / 'o.json').read_text())
  assert said['findings'] == said['notes'] == said['leaks'] == said['relations'] == []


def test_notes_leave_the_exit_code_0(files, capsys):
  """CRLF is what Python's csv module writes: nobody has to do anything about it."""
  path, saved = files / 'crlf_train.txt', files / 'o.json'
  path.write_bytes(b'\xef\xbb\xbf' + row(1).strip().encode() + b'\r\n' + row(2).strip().encode())
  assert run(path, f'--json={saved}') == 0
  lines = capsys.readouterr().out.splitlines()
  assert f'note: {path}:1: line-endings: lines end in CRLF' in lines
  assert f'note: {path}: no-last-newline: the last line has no newline' in lines
  assert lines[-1] == 'no errors; notes: 3'
  found = json.loads(saved.read_text())['findings']
  assert {(f['rule'], f['severity']) for f in found} == {
    ('line-endings', 'note'), ('no-last-newline', 'note'),
  }  # fmt: skip
  path.write_bytes(path.read_bytes() + b'\r\n' + row(2).encode())
  assert run(path, f'--json={saved}') == 3
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == 'errors: 1; notes: 2'
  errors = [i for i, line in enumerate(lines) if line.startswith(f'{path}:')]
  notes = [i for i, line in enumerate(lines) if line.startswith('note: ')]
  assert len(errors) == 1 and len(notes) == 2 and errors[0] < notes[0]
  found = json.loads(saved.read_text())['findings']
  assert [f['severity'] for f in found] == ['error', 'note', 'note']


def test_what_is_no_list_is_a_finding(files, capsys):
  (files / 'binary.txt').write_bytes(bytes(range(256)))
  (files / 'empty.txt').write_text('')
  names = ['absent.txt', '.', 'binary.txt', 'empty.txt', 'train.txt']
  assert run(*(files / name for name in names)) == 3
  said = capsys.readouterr()
  assert said.err == ''
  for name, why in zip(
    names, ('No such file', 'Is a directory', 'not text', 'empty'), strict=False
  ):
    line = next(x for x in said.out.splitlines() if x.startswith(f'{files / name}: row: '))
    assert why in line
  assert f'{files}/train.txt  train' in said.out  # the others are still read


def test_only_unreadable_lists(files, capsys):
  assert run(files / 'absent.txt') == 3
  assert 'errors: 1' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('args', 'says'),
  [
    (['train.txt', '--labels=1'], 'in the labels'),
    (['train.txt', '--labels=1=live'], 'in the labels'),
    (['train.txt', '--root=absent'], 'is no folder'),
    (['train.txt', '--accept_known_leaks=mine'], 'flexmodal_v1'),
    (['train.txt', '--split=train'], 'NAME=LIST'),
    (['train.txt', '--split=train=other.txt'], 'one of the lists'),
    (['train.txt', '--json=./train.txt'], 'is an input of this command'),
    (['train.txt', '--json=absent/o.json'], 'cannot be written: no such folder'),
    (['train.txt', '--json=.'], 'cannot be written'),
  ],
)
def test_wrong_usage(files, capsys, monkeypatch, args, says):
  monkeypatch.chdir(files)
  before = (files / 'train.txt').read_bytes()
  assert run(*args) == 2
  said = capsys.readouterr()
  assert says in said.err and said.err.startswith('error: ') and 'Traceback' not in said.err
  assert (files / 'train.txt').read_bytes() == before
  assert len(list(files.iterdir())) == 3


@pytest.mark.parametrize(
  'args', [[], ['a.txt', '--roots=x'], ['a.txt', '--sizes=big'], ['--lab=1']]
)
def test_flags_that_are_none(args, capsys):
  with pytest.raises(SystemExit) as end:
    run(*args)
  assert end.value.code == 2


def test_help_says_all(capsys):
  with pytest.raises(SystemExit) as end:
    run('--help')
  assert end.value.code == 0
  said = capsys.readouterr().out
  for word in ('--root', '--json', '--labels', '--split', '--accept_known_leaks', 'examples:',
               'exit codes:', 'flexmodal_v1', '100_03_015_2_10', *RULES):  # fmt: skip
    assert word in said
  assert all(text in said for text in RULES.values())
  assert max(map(len, said.splitlines())) <= 120


def test_labels_and_splits(files, capsys, monkeypatch):
  monkeypatch.chdir(files)
  (files / 'list.txt').write_text(row(1, 'live'))
  assert run('list.txt') == 3
  assert "unknown label 'live'" in capsys.readouterr().out
  assert run('list.txt', '--labels=live=bona_fide,spoof=attack') == 0
  labels = '--labels=live=bona_fide,1=bona_fide'
  assert run('list.txt', 'train.txt', labels) == 3
  output = capsys.readouterr().out
  assert 'note: list.txt:1: no-split: 1 of 1 rows have no split' in output
  assert 'leak: subject casia_surf/CLKJ_AS0001 in train, whole' in output
  (files / 'other.txt').write_text(row(5))
  assert run('list.txt', 'other.txt', labels) == 0
  assert 'no list has a split (--split=NAME=LIST)' in capsys.readouterr().out
  assert run('list.txt', 'train.txt', labels, '--split=val=list.txt') == 3
  assert 'leak: subject casia_surf/CLKJ_AS0001 in train, val' in capsys.readouterr().out


def test_many_findings_are_not_all_printed(files, capsys, monkeypatch):
  monkeypatch.setattr(lint, '_MAX_PRINTED', 10)
  path, saved = files / 'many.txt', files / 'o.json'
  path.write_text(row(1) * 31 + 'x\n' * 5)
  assert run(path, f'--json={saved}') == 3
  said = capsys.readouterr().out
  assert said.count(': duplicate: ') == 10
  assert said.count(': row: ') == 5
  assert f'duplicate: 20 more; all in {saved}' in said
  assert len(json.loads(saved.read_text())['findings']) == 35
  assert run(path) == 3
  assert 'duplicate: 20 more; --json=FILE has all' in capsys.readouterr().out


def test_names_do_not_move_the_cursor(files):
  """What a list holds is shown, whatever it is and whatever the terminal knows."""
  (files / 'odd.txt').write_bytes(
    'é\x1b[2J张/1.jpg b.jpg c.jpg 1\n'.encode() * 2 + 'a.jpg 张.jpg c.jpg 1\n'.encode('gbk')
  )
  env = {'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': str(ROOT)}
  for options in ({}, {'env': env}):
    done = python('-m', 'flexfas_jax.lint', files / 'odd.txt', f'--json={files}/o.json', **options)
    assert done.returncode == 3, done.stderr
    assert done.stderr == ''
    assert all(c.isprintable() or c == '\n' for c in done.stdout)
  assert json.loads((files / 'o.json').read_text())['counts'] == {'row': 1, 'duplicate': 1}


def test_a_reader_that_has_seen_enough(files):
  (files / 'many.txt').write_text(row(1) * 900)
  command = (
    f'{sys.executable} -m flexfas_jax.lint {files}/many.txt | head -1; exit ${{PIPESTATUS[0]}}'
  )
  done = subprocess.run(
    ['bash', '-c', command], cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stderr) == (3, '')


def test_on_a_terminal_the_table_is_drawn(files, capsys, monkeypatch):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  (files / 'x[red]_train.txt').write_text(row(1))
  assert run(files / 'train.txt', files / 'x[red]_train.txt') == 0
  said = capsys.readouterr().out
  assert '─' in said
  assert '[red]' in said.replace('\n', '')


def test_what_is_not_imported(files):
  code = (
    'import sys; from flexfas_jax import lint; code = lint.main();'
    'print({"jax", "flax", "grain", "rich", "cv2", "PIL", "absl"} & set(sys.modules));'
    'sys.exit(code)'
  )
  done = python('-c', code, files / 'train.txt')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'set()'


def test_the_collector_is_left_as_it_was(files, capsys):
  import gc

  run(files / 'train.txt')
  assert gc.isenabled()


def test_the_published_lists(capsys, tmp_path):
  if not PUBLISHED.is_dir():
    pytest.skip("FlexModal's protocol lists are not here")
  paths = sorted(PUBLISHED.glob('*.txt'))
  saved = tmp_path / 'lint.json'
  assert run(*paths, '--accept_known_leaks=flexmodal_v1', f'--json={saved}') == 3
  lines = capsys.readouterr().out.splitlines()
  assert sum(': duplicate: ' in line for line in lines) == 80
  assert not any(': leak-file: ' in line and not line.startswith('note (') for line in lines)
  assert 'accepted known leaks: flexmodal_v1' in lines
  assert 'leak (accepted: flexmodal_v1): subject casia_cefa/AF-300 in val, test' in lines
  assert any('(7 lists) partition the attacks of WMCA_test.txt: 3,996' in line for line in lines)
  said = json.loads(saved.read_text())
  assert said['accepted_known_leaks'] == ['flexmodal_v1']
  assert [note['exception'] for note in said['notes']] == ['flexmodal_v1']
  assert said['notes'][0]['severity'] == 'note'
  assert said['relations'][0]['kind'] == 'partition'


def test_units_are_found_and_stated(tmp_path, capsys):
  """Ten bits of infrared in sixteen, and tenths of a millimetre."""
  images = faces.triplet('', 1, 1, 64, depth_bits=16)
  images['ir'] = images['ir'].astype(np.uint16) << 2
  images['depth'] = images['depth'] * 12
  for modality, image in images.items():
    cv2.imwrite(str(tmp_path / f'{modality}.png'), image)
  manifest = tmp_path / 'ours.csv'
  manifest.write_text('rgb,depth,ir,label\nrgb.png,depth.png,ir.png,bona_fide\n')
  assert run(manifest, f'--root={tmp_path}') == 3
  said = capsys.readouterr().out
  assert 'range: ir has 16 bits' in said and 'ir_bits=10' in said
  assert 'range: depth has a median of' in said and 'depth_unit=0.1mm' in said
  assert run(manifest, f'--root={tmp_path}', '--ir_bits=10', '--depth_unit=0.1mm') == 0
  assert run(manifest, f'--root={tmp_path}', '--ir_bits=9') == 2


@pytest.mark.parametrize('fact', ['ir presence', 'rgb encoder', 'depth format', 'ir size'])
def test_what_predicts_the_label_is_a_note(tmp_path, capsys, fact):
  """Everything is sound, but attacks differ from bona fide samples in one fact of their files."""
  rows = ['rgb,depth,ir,label,subject,video,attack_type,attack_category']
  for number in range(24):
    attack = number % 2
    images = faces.triplet('print' if attack else '', number % 6, number, 48)
    if attack and fact == 'ir size':
      images = {**images, 'ir': cv2.resize(images['ir'], (40, 40))}
    paths = {}
    for modality, image in images.items():
      suffix, options = ('.png' if modality == 'depth' else '.jpg'), {}
      if attack and fact == f'{modality} format':
        suffix = '.jpg'
      if attack and fact == f'{modality} encoder':
        options = {'quality': 61}
      paths[modality] = f'{modality}/{number}{suffix}'
      (tmp_path / modality).mkdir(exist_ok=True)
      Image.fromarray(image.squeeze()).save(tmp_path / paths[modality], **options)
    if not attack and fact == 'ir presence':
      paths['ir'] = ''
    kind = 'sheet,print' if attack else ','
    rows.append(f'{",".join(paths.values())},{1 - attack},{number // 4},v{number},{kind}')
  (tmp_path / 'train.csv').write_text('\n'.join(rows) + '\n')
  assert run(tmp_path / 'train.csv', f'--root={tmp_path}', f'--json={tmp_path}/o.json') == 0
  said = json.loads((tmp_path / 'o.json').read_text())
  facts = {fact, 'depth encoder'} if fact == 'depth format' else {fact}
  assert {s['fact'] for s in said['shortcuts']} == facts
  assert {f['rule'] for f in said['findings']} == {'shortcut'}
  note = f'note: {tmp_path}/train.csv: shortcut: train: {fact} separates attacks'
  assert note in capsys.readouterr().out
  if fact == 'ir presence':  # no image is needed for that
    assert run(tmp_path / 'train.csv') == 0
    assert 'ir presence separates' in capsys.readouterr().out
