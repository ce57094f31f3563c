"""Checkpoints that other versions of JAX wrote are restored, to the last bit of every tensor.

tests/golden/checkpoints/ has the second step of a small run with jax 0.10.2 (Python 3.11) and with
jax 0.12.0.1 (Python 3.13), written on two CPUs by

  python -m tests.training.stored_checkpoints_test FOLDER DATA_DIR

which also writes what is compared: a digest of every tensor, and the logits of fixed images.
"""

import functools
import hashlib
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from flexfas_jax.training import digests, loop, scoring, setup
from flexfas_jax.training.checkpoints import Checkpoints, quarantine_corrupt
from tests.small_job import CONFIG

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'checkpoints'
STEP = 2


def make_config(data_dir: str = '') -> ConfigDict:
  names = {}
  exec(CONFIG.format(data_dir=data_dir, steps=STEP), names)
  config = names['get_config']()
  config.schedule.warmup, config.checkpoint_every, config.eval_every = 0, 1, STEP
  config.model.backbone = ConfigDict({'name': 'cdcn', 'variant': 'mu'})  # 3,752 parameters
  config.ema = 0.9
  return config


def tensors(state) -> dict[str, str]:
  """{path: digest of type, shape and bytes} of every tensor of a state."""
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    array = np.asarray(leaf)
    contents = f'{array.dtype} {array.shape} '.encode() + array.tobytes()
    found[jax.tree_util.keystr(path)] = hashlib.sha256(contents).hexdigest()[:16]
  return found


def logits(experiment: setup.Experiment, state) -> list:
  """Of four images of each sensor, the last of which lacks infrared, under every subset."""
  model, variables = experiment.model, setup.scored_variables(state)
  shapes = setup.abstract_batch(experiment)
  batch = {'present': np.array([[True, True]] * 3 + [[True, False]])}
  for i, modality in enumerate(model.modalities):
    shape = (4, *shapes[modality].shape[1:])
    batch[modality] = np.sin(np.linspace(-7 - i, 7, np.prod(shape), dtype=np.float32)).reshape(
      shape
    )
  step = functools.partial(scoring.score_step, model=model, subsets=experiment.subsets)
  found, _ = jax.jit(step)(variables, model.absent_maps(variables), batch)
  return np.asarray(found).astype(float).round(9).tolist()


def restore(folder: pathlib.Path):
  """(experiment, state, what is stored besides arrays) of a stored checkpoint."""
  experiment = setup.build(make_config())
  with Checkpoints(folder, 'eer', read_only=True) as checkpoints:
    assert checkpoints.latest() == STEP and checkpoints.has_metrics(STEP)
    checkpoints.verify(STEP)
    assert checkpoints.position(STEP) == {'next_index': STEP}
    info = checkpoints.run_info(STEP)
    return experiment, checkpoints.restore(STEP, experiment.abstract), info


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


@pytest.mark.parametrize('version', ['jax-0.10.2', 'jax-0.12.0.1'])
def test_a_checkpoint_of_another_version(tmp_path, version):
  expected = json.loads((GOLDEN / f'{version}.json').read_text())
  folder = shutil.copytree(GOLDEN / version, tmp_path / 'checkpoints')
  quarantine_corrupt(folder, strict=True)
  experiment, state, info = restore(folder)
  assert tensors(state) == expected['tensors'] and len(expected['tensors']) > 50
  assert digests.hash_weights(setup.scored_variables(state)) == expected['weights_hash']
  assert info['config']['steps'] == STEP and info['data'].keys() == {'train', 'val', 'test.intra'}
  np.testing.assert_allclose(logits(experiment, state), expected['logits'], rtol=1e-4, atol=1e-6)


def main() -> None:
  """Trains, keeps the last checkpoint, and writes what is expected of it."""
  jax.config.update('jax_platforms', 'cpu')
  target, data_dir = pathlib.Path(sys.argv[1]), sys.argv[2]
  name, run = f'jax-{jax.__version__}', target / 'run'
  loop.train(make_config(data_dir), str(run))
  shutil.copytree(run / 'checkpoints' / str(STEP), target / name / str(STEP))
  experiment, state, _ = restore(target / name)
  expected = {
    'weights_hash': digests.hash_weights(setup.scored_variables(state)),
    'logits': logits(experiment, state),
    'tensors': tensors(state),
  }
  (target / f'{name}.json').write_text(json.dumps(expected, indent=1) + '\n')
  shutil.rmtree(run)


if __name__ == '__main__':
  main()
