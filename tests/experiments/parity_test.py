"""The parity experiment as a user runs it: what agrees, what does not, what cannot be compared."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.parity import __main__ as parity
from experiments.parity import parts
from flexfas_jax.models.weights import conversion

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / 'tests' / 'golden' / 'fixtures'


def run(folder, *more):
  # Without the settings of conftest.py: here the compiler is to optimise, as it does for a user.
  env = {k: v for k, v in os.environ.items() if k not in ('XLA_FLAGS', 'JAX_NUMPY_RANK_PROMOTION')}
  return subprocess.run(
    [sys.executable, '-m', 'experiments.parity', f'--fixtures={folder}', *more],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
  )


def copy(folder, *names, **changes):
  """Fixtures in a folder of their own; `changes` are fields of their JSON."""
  for name in names:
    spec = json.loads((FIXTURES / f'{name}.json').read_text())
    (folder / f'{name}.json').write_text(json.dumps(spec | changes))
    shutil.copy(FIXTURES / f'{name}.npz', folder)


def test_our_outputs_are_the_originals(tmp_path):
  """A convolution's network and a transformer on another grid than its position embedding's."""
  copy(tmp_path, 'resnet18', 'vit_tiny_any_size')
  found = run(tmp_path, f'--out={tmp_path}/parity.csv')
  assert found.returncode == 0, found.stderr
  assert found.stdout.splitlines()[-1] == '4 outputs of 2 fixtures, 0 above the tolerance'
  rows = (tmp_path / 'parity.csv').read_text().splitlines()
  assert rows[0] == 'fixture,architecture,output,relative_error'
  assert [r.split(',')[:3] for r in rows[1:]] == [
    ['resnet18', 'timm/resnet18', 'features[::16]'],
    ['resnet18', 'timm/resnet18', 'logits'],
    ['vit_tiny_any_size', 'timm/vit_tiny_patch16_224', 'features[::16]'],
    ['vit_tiny_any_size', 'timm/vit_tiny_patch16_224', 'logits'],
  ]


PARTS = ('adapter_conv_cdc', 'adapter_ama_shared', 'adapter_mmdg_u', 'adapter_mmdgpp_u')
PARTS += ('block_ama_dynamic', 'lora_attention_qv', 'prefix_attention', 'mmdg_uncertainty')


def test_parts_of_later_methods_are_the_originals(tmp_path):
  """Adapters, attention and a block; and MMDG and two foundation models as whole networks."""
  copy(tmp_path, *PARTS, 'mmdg_2_blocks', 'vit_small_patch14_dinov2', 'vit_small_patch16_dinov3')
  found = run(tmp_path)
  assert found.returncode == 0, found.stdout + found.stderr
  assert found.stdout.splitlines()[-1] == '23 outputs of 11 fixtures, 0 above the tolerance'


def test_every_part_has_a_fixture():
  fixtures = {json.loads(f.read_text())['architecture'] for f in FIXTURES.glob('*.json')}
  assert set(parts.PARTS) == fixtures - {*conversion.ARCHITECTURES, 'mmdg_2_blocks'}


def test_a_part_has_a_narrower_tolerance(tmp_path, monkeypatch, capsys):
  copy(tmp_path, 'mmdg_uncertainty')
  file = tmp_path / 'mmdg_uncertainty.npz'
  with np.load(file) as stored:
    outputs = dict(stored)
  outputs['closed_form'] *= 1 + 3e-5
  np.savez(file, **outputs)
  monkeypatch.setattr(sys, 'argv', ['parity', f'--fixtures={tmp_path}'])
  assert parity.main() == 1
  assert 'above 2e-05' in capsys.readouterr().out


def test_an_output_that_is_off_is_shown_and_ends_with_1(tmp_path):
  copy(tmp_path, 'cdcn_224')
  file = tmp_path / 'cdcn_224.npz'
  with np.load(file) as stored:
    outputs = dict(stored)
  outputs['map'].flat[3] += 2e-4 * np.abs(outputs['map']).max()
  np.savez(file, **outputs)
  found = run(tmp_path)
  assert found.returncode == 1
  assert 'above 0.0001' in found.stdout.splitlines()[1]
  assert found.stdout.splitlines()[-1] == '1 outputs of 1 fixtures, 1 above the tolerance'


def main(monkeypatch, capsys, folder):
  """(exit code, stderr) in this process, where nothing has to be compiled."""
  monkeypatch.setattr(sys, 'argv', ['parity', f'--fixtures={folder}'])
  code = parity.main()
  return code, capsys.readouterr().err


def test_an_empty_folder(tmp_path, monkeypatch, capsys):
  assert main(monkeypatch, capsys, tmp_path) == (
    4,
    f'error: {tmp_path} holds no fixture: a NAME.json with its NAME.npz\n',
  )


def test_an_unknown_architecture(tmp_path):
  copy(tmp_path, 'resnet18', architecture='timm/resnet19')
  found = run(tmp_path)
  assert found.returncode == 2
  assert "unknown architecture 'timm/resnet19'; choose one of: timm/resnet18" in found.stderr
  assert 'Traceback' not in found.stderr


@pytest.mark.parametrize(
  'found,said',
  [
    ({}, "timm/resnet18 has no output 'features[::16]'"),
    (
      {'features': np.zeros((2, 512, 6, 7))},
      "features[::16] is (2, 512, 6, 1), the original's is (2, 512, 7, 1)",
    ),
  ],
)
def test_an_output_that_cannot_be_compared(tmp_path, monkeypatch, capsys, found, said):
  copy(tmp_path, 'resnet18')
  monkeypatch.setattr(parity, 'compute_outputs', lambda *_: found)
  code, error = main(monkeypatch, capsys, tmp_path)
  assert code == 4
  assert said in error


def test_nan_is_no_agreement(tmp_path, monkeypatch, capsys):
  copy(tmp_path, 'resnet18')
  monkeypatch.setattr(parity, 'compare', lambda f: [(f.stem, 'x', 'map', float('nan'), 0.0)])
  assert main(monkeypatch, capsys, tmp_path) == (1, '')
