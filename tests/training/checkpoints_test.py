"""Checkpoints: damage is noticed and got round, a full disk is survived, on real files."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.errors import StateError
from flexfas_jax.training import digests
from flexfas_jax.training.checkpoints import Checkpoints, quarantine_corrupt

ROOT = pathlib.Path(__file__).parents[2]


def make_state(step):
  rng = np.random.default_rng(step)
  return {'w': jnp.asarray(rng.standard_normal((64, 32)), jnp.float32), 'step': jnp.int32(step)}


def abstract():
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make_state(0)
  )


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
  """A folder with the checkpoints of steps 2, 4 (the best) and 6."""
  folder = tmp_path_factory.mktemp('kept') / 'checkpoints'
  checkpoints = Checkpoints(folder, 'eer')
  for step, eer in ((2, 0.5), (4, 0.1), (6, None)):
    metrics = {'eer': eer} if eer else None
    checkpoints.save(step, make_state(step), {'next_index': step}, {'note': 'x'}, metrics)
  checkpoints.close()
  return folder


@pytest.fixture
def folder(kept, tmp_path):
  return pathlib.Path(shutil.copytree(kept, tmp_path / 'checkpoints'))


def test_what_is_saved_is_what_is_restored(folder):
  checkpoints = Checkpoints(folder, 'eer')
  assert (checkpoints.latest(), checkpoints.best(), checkpoints.steps()) == (6, 4, [4, 6])
  assert checkpoints.has_metrics(4) and not checkpoints.has_metrics(6)
  jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(4, abstract()), make_state(4))
  assert checkpoints.position(6) == {'next_index': 6}
  for step in (4, 6):
    checkpoints.verify(step)


def test_a_deleted_step_is_noticed(folder):
  """Otherwise the best of the steps that are left would not be kept."""
  said = []
  checkpoints = Checkpoints(folder, 'eer', warn=said.append)
  shutil.rmtree(folder / '4')  # the best
  for step, eer in ((8, 0.3), (10, 0.4), (12, None), (14, None)):
    metrics = {'eer': eer} if eer else None
    checkpoints.save(step, make_state(step), {'next_index': step}, {'note': 'x'}, metrics)
  checkpoints.wait_until_saved()
  assert said == [f'WARNING: of the checkpoints in {folder}, step 4 was deleted']
  assert (checkpoints.best(), checkpoints.steps()) == (8, [8, 12, 14])
  shutil.rmtree(folder)
  with pytest.raises(StateError, match='.steps 8, 12, 14. were deleted while the training ran; re'):
    checkpoints.save(16, make_state(16), {'next_index': 16}, {'note': 'x'})
  checkpoints.close()


def test_a_step_is_saved_again_with_its_metrics(folder):
  checkpoints = Checkpoints(folder, 'eer')
  checkpoints.save(6, make_state(6), {'next_index': 6}, {}, {'eer': 0.05}, wait=True)
  assert checkpoints.has_metrics(6)
  assert checkpoints.best() == 6
  checkpoints.verify(6)
  assert not (folder.parent / 'replaced_checkpoint').exists()


def files(step):
  return sorted(f for f in step.glob('*/**/*') if f.is_file())


def test_every_flipped_bit_and_every_lost_byte_is_noticed(folder):
  step = folder / '6'
  assert len(files(step)) > 5
  assert digests.find_damage(step) == ''
  for file in files(step):
    whole = file.read_bytes()
    name = file.relative_to(step).as_posix()
    for position in {0, len(whole) // 2, len(whole) - 1}:
      flipped = bytearray(whole)
      flipped[position] ^= 0x10
      file.write_bytes(flipped)
      assert digests.find_damage(step) == f'{name} was changed'
    file.write_bytes(whole[:-1])
    assert digests.find_damage(step) == f'{name} was changed'
    file.unlink()
    assert digests.find_damage(step) == f'{name} is missing'
    file.write_bytes(whole)
  (step / digests.FILE).write_text('{"a": ')
  assert digests.find_damage(step) == 'digests.json is missing or damaged'


def largest(step):
  return max(files(step), key=lambda f: f.stat().st_size)


def flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def test_a_damaged_newest_falls_back_loudly(folder):
  damaged = largest(folder / '6')
  flip(damaged)
  said = []
  quarantine_corrupt(folder, warn=said.append)
  assert 'WARNING: the checkpoint' in said[0]
  assert f'{damaged.name} was changed' in said[0]
  assert 'resuming from step 4 instead; moved 6 to' in said[1]
  checkpoints = Checkpoints(folder, 'eer')
  assert checkpoints.latest() == 4
  jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(4, abstract()), make_state(4))
  assert (folder.parent / 'damaged_checkpoints' / '6' / digests.FILE).exists()  # nothing is lost


def test_a_damaged_newest_is_an_error_where_one_asks_for_it(folder):
  largest(folder / '6').write_bytes(b'')
  with pytest.raises(StateError, match='6 is damaged .* was changed.*; without --strict_restore'):
    quarantine_corrupt(folder, strict=True)
  assert (folder / '6').exists()


def test_when_all_are_damaged_no_training_starts_from_the_beginning(folder):
  for step in ('4', '6'):
    flip(largest(folder / step))
  with pytest.raises(StateError, match='every checkpoint in .* is damaged: 6, 4; restore a copy'):
    quarantine_corrupt(folder, warn=lambda line: None)
  assert sorted(f.name for f in folder.iterdir()) == ['4', '6']


def test_a_checkpoint_without_digests_is_damaged(folder):
  (folder / '6' / digests.FILE).unlink()
  said = []
  quarantine_corrupt(folder, warn=said.append)
  assert 'digests.json is missing or damaged' in said[0]
  assert [f.name for f in folder.iterdir()] == ['4']
  assert (folder.parent / 'damaged_checkpoints' / '6').exists()


def test_killed_while_a_step_is_saved_again(folder):
  """Between putting the first one aside and having the second."""
  (folder.parent / 'replaced_checkpoint').mkdir()
  (folder / '6').rename(folder.parent / 'replaced_checkpoint' / '6')
  quarantine_corrupt(folder)
  assert sorted(f.name for f in folder.parent.iterdir()) == ['checkpoints']
  assert Checkpoints(folder, 'eer').latest() == 6


def test_what_is_undefined_is_never_the_best(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 'eer')
  for step, eer in ((1, 0.1), (2, float('nan')), (3, 0.5), (4, 0.6)):
    checkpoints.save(step, make_state(step), {}, {}, {'eer': eer})
  checkpoints.wait_until_saved()
  assert checkpoints.steps() == [1, 3, 4]
  assert checkpoints.best() == 1


def test_an_error_in_flight_is_not_waited_for(tmp_path, monkeypatch):
  """Of several processes the others do not come."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 'eer')
  checkpoints.save(1, make_state(1), {}, {})
  monkeypatch.setattr(checkpoints, 'wait_until_saved', lambda: pytest.fail('the others were asked'))
  with pytest.raises(ZeroDivisionError), checkpoints:
    1 / 0  # noqa: B018


def test_the_best_must_be_whole_to_be_evaluated(folder):
  flip(largest(folder / '4'))
  with pytest.raises(StateError, match='4 is damaged .*; delete it to continue without it'):
    Checkpoints(folder, 'eer', read_only=True).verify(4)


@pytest.mark.parametrize('file', ['_CHECKPOINT_METADATA', 'state/_METADATA', 'data/metadata'])
def test_what_cannot_be_read_is_named(folder, file):
  """Should the digests be right: written by another version, or not by us."""
  (folder / '6' / file).write_text('{"x": ')
  digests.write(folder / '6')
  try:
    checkpoints = Checkpoints(folder, 'eer')
    checkpoints.restore(6, abstract())
    checkpoints.position(6)
  except StateError as error:
    assert str(folder / '6') in str(error)
    assert len(str(error).splitlines()) == 1
  else:
    assert file == '_CHECKPOINT_METADATA'  # Orbax's diary is not needed


# A disk of 3 MB, of which a checkpoint takes 0.9: filled, given back, filled again.
FULL = """
import json, pathlib, sys
import jax.numpy as jnp, numpy as np
from flexfas_jax.errors import StateError
from flexfas_jax.training.checkpoints import Checkpoints

folder, said = pathlib.Path(sys.argv[1]), []
state = {'w': jnp.asarray(np.random.default_rng(0).standard_normal((480, 480)), jnp.float32)}
checkpoints = Checkpoints(folder / 'checkpoints', 'eer', tries=2, warn=said.append)

def save(step):
  checkpoints.save(step, state, {'next_index': step}, {}, {'eer': 0.5})
  checkpoints.wait_until_saved()

save(1)
filler = folder / 'filler'
filler.write_bytes(bytes(1_700_000))
save(2)                     # fails: the training goes on
found = {'after': checkpoints.steps()}
filler.unlink()
save(3)                     # there is room again: the count begins again
found['again'] = checkpoints.steps()
filler.write_bytes(bytes(1_000_000))
save(4)
checkpoints.verify(3)       # what was there is untouched
try:
  save(5)
except StateError as error:
  found['error'] = str(error)
found['end'] = checkpoints.steps()
found['left'] = sorted(f.name for f in (folder / 'checkpoints').iterdir())
print(json.dumps({**found, 'said': said}))
"""


def test_a_full_disk_is_survived_for_some_tries(tmp_path):
  (tmp_path / 'full.py').write_text(FULL)
  (tmp_path / 'disk').mkdir()
  inside = f'mount -t tmpfs -o size=3000k tmpfs {tmp_path}/disk && exec "$@"'
  command = ['unshare', '-rm', 'sh', '-c', inside, 'sh']
  if not shutil.which('unshare') or subprocess.run([*command, 'true']).returncode:
    pytest.skip('no disk of its own: unshare -rm and mount are not allowed here')
  command += [sys.executable, str(tmp_path / 'full.py'), str(tmp_path / 'disk')]
  ran = subprocess.run(
    command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
  )
  assert ran.returncode == 0, ran.stderr
  found = json.loads(ran.stdout.splitlines()[-1])
  assert found['after'] == [1]
  assert found['again'] == [1, 3]
  first, second = found['said']
  assert 'WARNING: the checkpoint of step 2 cannot be saved' in first
  assert (
    'training continues, the checkpoint of step 1 is intact; 1 more failure(s) will end it' in first
  )
  assert 'the checkpoint of step 4 cannot be saved' in second
  assert 'step 5 cannot be saved' in found['error']
  assert (
    'failure number 2 in a row; the checkpoint of step 3 is intact. Free space' in found['error']
  )
  assert found['end'] == [1, 3]
  assert found['left'] == ['1', '3']


def test_a_tensor_of_another_type_is_named_not_converted(folder):
  """As a run leaves it that had JAX_ENABLE_X64."""
  wanted = abstract()
  wanted['w'] = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16, sharding=wanted['w'].sharding)
  said = r'(?s)another model:\n  w: checkpoint \(64, 32\) float32, model \(64, 32\) bfloat16$'
  with pytest.raises(StateError, match=said):
    Checkpoints(folder, 'eer').restore(6, wanted)
