"""Preflight: what is asked for, what is counted, and real compilations for absent slices.

Those need libtpu, the `tpu` extra, and are skipped without.
"""

import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import vit_fusion
from flexfas_jax.errors import ConfigError
from flexfas_jax.preflight import chips, collectives
from flexfas_jax.preflight import run as preflight
from flexfas_jax.training import setup

P = jax.sharding.PartitionSpec


def make_config(**more):
  config = vit_fusion.get_config()
  toy = {
    'model.image_size': 16,
    'model.backbone.variant': 'mu',
    'model.backbone.patch_size': 8,
    'model.backbone.stem': 'patch',
    'batch_size': 4,
    **more,
  }
  with config.unlocked():
    config.update_from_flattened_dict(toy)
  return config


def flops(config):
  return preflight.step_flops(preflight._single_device_experiment(config))


@pytest.fixture
def devices():
  """Of a slice of v5e by its name; skips where there is no compiler."""
  pytest.importorskip('libtpu', reason="TPU's compiler is the `tpu` extra")
  preflight.hide_accelerators()
  return preflight.slice_devices


def test_several_topologies_each_once():
  text = 'v5e:4x4, v5p:2x2x1,cuda,,v5e:4x4,16xv6e:2x2'
  assert preflight.parse_topologies(text) == ['v5e:4x4', 'v5p:2x2x1', 'cuda', '16xv6e:2x2']


@pytest.mark.parametrize(
  'text',
  [
    *(None, '', ' , ', 'v9:2x2', 'v5e', 'v5e:4', 'v5e:2x2x2x2', '2x2'),
    *('0xv5e:2x2', '2v5e:2x2', '2xcuda', '2x2xv5e:2x2'),
  ],
)
def test_a_topology_that_is_none_is_refused_with_an_example(text, tmp_path):
  with pytest.raises(ConfigError, match='v5e:4x4'):
    preflight.run(make_config(), str(tmp_path / 'w'), text)
  assert not (tmp_path / 'w').exists()


def test_slices_of_a_kind_whose_network_is_not_published_are_refused(tmp_path):
  with pytest.raises(ConfigError, match='2xv4:2x2x1: the rate of the network between v4 slices'):
    preflight.run(make_config(), str(tmp_path / 'w'), '2xv4:2x2x1')


def test_without_the_compiler_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(preflight.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ConfigError, match=r"pip install 'flexfas_jax\[tpu\]'"):
    preflight.slice_devices('v5e:2x2')


def test_what_libtpu_refuses_is_reported_in_one_line(devices):
  with pytest.raises(ConfigError, match='v5e:3x3') as caught:
    devices('v5e:3x3')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.25G of 15.75G hbm', 17.25),
    (
      'Ran out of memory on HBM, the total memory required for HLO temporaries (200.00G) exceeds '
      'available HBM (15.75G).',
      200,
    ),
    ('Ran out of memory in memory space vmem. Used 17.25M of 16.00M vmem', None),
    ('RESOURCE_EXHAUSTED: in words that are new', None),
  ],
)
def test_the_bytes_of_a_refusal(message, expected):
  assert preflight._bytes_in(message) == (expected and int(expected * 2**30))


@pytest.mark.parametrize(
  ('scan', 'accumulate', 'fsdp'), [(True, 1, 1), (False, 2, 1), (False, 1, 4)]
)
def test_flops_are_of_every_turn_of_a_loop(scan, accumulate, fsdp):
  config = make_config(**{'accumulate': accumulate, 'mesh.fsdp': fsdp})
  with config.unlocked():
    config.model.backbone.scan = scan
  assert flops(config) == pytest.approx(flops(make_config()), rel=1e-6)


@pytest.mark.parametrize(
  ('kept', 'batch', 'limit', 'expected', 'tried'),
  [
    (10, 64, 1000, (88, 96), [96, 88]),  # room for 90: half as many again, then what is left
    (10, 64, 740, (64, 72), [96, 80, 72]),  # room for what there is
    (10, 64, 9000, (832, 1152), [832, 1152]),  # for far more
    (1, 64, 740, (640, 768), [96, 640, 960, 768]),  # less is kept than was thought
    (10, 64, 500, (40, 44), [40, 52, 44]),  # too large: what its bytes lead to, then between
    (10, 64, 105, (None, 1), [1]),  # for nothing
    (10, 3, 128, (2, 3), [2]),
  ],
)
def test_the_largest_batch(kept, batch, limit, expected, tried, monkeypatch):
  """On a compiler that needs 100 bytes and some for each triplet, at most 10."""
  seen = []

  def slice_row(batch, topology, flops):
    seen.append(batch)
    needed = 100 + kept * batch
    return {'batch_per_chip': batch, 'bytes_per_chip': needed, 'fits': needed <= limit}

  monkeypatch.setattr(preflight, '_experiment', lambda config, batch, devices: batch)
  monkeypatch.setattr(preflight, '_state_bytes', lambda experiment: 100)
  monkeypatch.setattr(preflight, 'slice_row', slice_row)
  experiment = types.SimpleNamespace(mesh=types.SimpleNamespace(devices=np.zeros(1)))
  row = {
    'topology': 'v5e:1x1',
    'batch_per_chip': batch,
    'bytes_per_chip': 100 + 10 * batch,
    'hbm_per_chip': limit,
    'fits': 100 + 10 * batch <= limit,
  }
  found = preflight.try_batches(ConfigDict({'accumulate': 1}), row, experiment, 1.0)
  assert [one['batch_per_chip'] for one in found] == [batch, *seen]
  assert (preflight.largest_batch(found), seen) == (expected, tried)


def test_a_slice_is_compiled_for_and_written_down(devices, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(preflight, 'MOST_BATCHES', 0)
  config = make_config().lock()
  before = config.to_json()
  preflight.run(config, str(tmp_path / 'new' / 'w'), 'v5e:2x2,cuda')
  assert config.to_json() == before
  slice_row, cuda_row = json.loads((tmp_path / 'new' / 'w' / 'preflight.json').read_text())
  assert slice_row['topology'] == 'v5e:2x2'
  assert slice_row['chips'] == 4
  assert (slice_row['batch_per_chip'], slice_row['global_batch']) == (4, 16)
  assert slice_row['fits'] is True
  assert 0 < slice_row['bytes_per_chip'] < slice_row['hbm_per_chip'] == 15.75 * 2**30
  experiment = preflight._experiment(config, 4, jax.devices()[:4])
  params = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract.params))
  # The gradients in float32, and little else: loss, accuracy, batch norm's moments.
  assert 4 * params <= slice_row['collective_bytes'] < 4 * params + 2000
  assert {one['group'] for one in slice_row['collectives']} == {4}
  exposed = slice_row['compute_seconds'] + slice_row['collective_seconds']
  assert slice_row['estimated_step_seconds'] == exposed
  assert 0 < slice_row['estimated_step_seconds_overlapped'] < exposed
  assert slice_row['estimated_images_per_second'] == pytest.approx(16 * 3 / exposed)
  assert slice_row['estimated_triplets_per_second_per_chip'] == pytest.approx(4 / exposed)
  assert slice_row['estimated_mfu'] == pytest.approx(flops(config) / exposed / 197e12)
  assert cuda_row['flops_per_chip'] == slice_row['flops_per_chip'] == flops(config)
  assert cuda_row['fits'] is None
  assert cuda_row.keys() == slice_row.keys()
  printed, progress = capsys.readouterr()
  assert all(c.isprintable() or c == '\n' for c in printed + progress)
  assert 'estimate' in printed
  assert '4 triplets of 3 images on each chip' in printed
  assert 'compiling for v5e:2x2' in progress


def test_what_does_not_fit_is_reported_with_its_bytes(devices, monkeypatch):
  """A step that only reads its batch, 51.5 GB of RGB on each chip."""
  step = jax.jit(lambda state, batch, key: batch['rgb'].sum())
  monkeypatch.setattr(setup, 'make_step', lambda experiment: step)
  experiment = preflight._experiment(make_config(), 2**24, devices('v5e:2x2'))
  row = preflight.slice_row(experiment, 'v5e:2x2', 1.0)
  assert row['fits'] is False
  assert row['bytes_per_chip'] == pytest.approx(2**24 * 16 * 16 * 3 * 4, rel=0.01)
  assert row['hbm_per_chip'] == 15.75 * 2**30
  assert row['estimated_step_seconds'] is None
  assert 'NO' in preflight.table([row])


def compiled_text(devices, function, shape, spec):
  """Of a function of one array, mapped over a mesh of 2 x 2."""
  mesh = jax.make_mesh((2, 2), ('a', 'b'), (jax.sharding.AxisType.Auto,) * 2, devices=devices)
  place = jax.sharding.NamedSharding(mesh, spec)
  mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
  argument = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
  return jax.jit(mapped).lower(argument).compile().as_text()


def seven_times(axis):
  return lambda x: jax.lax.fori_loop(0, 7, lambda _, c: jnp.tanh(jax.lax.psum(c, axis)), x)


@pytest.mark.parametrize(
  ('function', 'expected'),
  [
    (lambda x: jax.lax.psum(x, ('a', 'b')), ('all-reduce', 8 * 1024 * 4, 4, 1)),
    (lambda x: jax.lax.psum(x, 'a'), ('all-reduce', 8 * 1024 * 4, 2, 1)),
    (seven_times('b'), ('all-reduce', 8 * 1024 * 4, 2, 7)),
    (lambda x: jax.lax.all_gather(x, 'b', tiled=True), ('all-gather', 16 * 1024 * 4, 2, 1)),
    (lambda x: jax.lax.ppermute(x, 'a', [(0, 1)]), ('collective-permute', 8 * 1024 * 4, 2, 1)),
  ],
  ids=['psum over all', 'psum over rows', 'psum in a loop', 'all_gather', 'ppermute'],
)
def test_programs_whose_collectives_are_known(devices, function, expected):
  text = compiled_text(devices('v5e:2x2'), function, (32, 1024), P(('a', 'b')))
  program = collectives.parse_program(text, 4)
  found = [
    (one.operation, one.bytes, len(one.groups[0]), count)
    for one, count in program.collectives.items()
  ]
  assert (found, program.unknown_loops) == ([expected], 0)


@pytest.mark.parametrize('name', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2'])
def test_a_large_product_takes_its_time_by_the_clock(devices, name):
  """The clock is right if the compiler's cycles reach the peak, but for a tenth, and no more."""
  device = devices(name)[0]
  place = jax.sharding.SingleDeviceSharding(device)
  a = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16, sharding=place)
  cycles = collectives.parse_program(jax.jit(jnp.matmul).lower(a, a).compile().as_text(), 1).cycles
  chip = chips.CHIPS[name.partition(':')[0]]
  assert 0.85 < 2 * 4096**3 / (cycles / chip.clock) / chip.peak_flops < 1


def test_the_chips_are_where_the_mesh_says(devices):
  """A device is a chip, also on v4, and 16 x 16 closes."""
  assert len(devices('v4:2x2x1')) == 4
  assert len(devices('v5e:1x1')) == 1
  experiment = preflight._experiment(make_config(), 4, devices('v5e:16x16'))
  places = np.array([device.coords for device in experiment.mesh.devices.flat])
  torus = collectives.make_torus(places, chips.CHIPS['v5e'])
  assert torus.shape == (16, 16, 1)
  assert torus.closed == (True, True, False)
  assert math.prod(torus.shape) == len({tuple(place) for place in places})


def test_two_slices_exchange_over_the_network(devices, tmp_path, monkeypatch, capsys):
  """Gradients are summed in each slice, and then each chip's part of them between the slices."""
  monkeypatch.setattr(preflight, 'MOST_BATCHES', 0)
  config = make_config()
  (row,) = preflight.run(config, str(tmp_path / 'w'), '2xv5e:2x2')
  assert (row['kind'], row['chips'], row['global_batch'], row['fits']) == ('v5e', 8, 32, True)
  between = [one for one in row['collectives'] if one['between'] == 'slices']
  inside = [one for one in row['collectives'] if one['between'] == 'chips']
  assert {(one['group'], one['groups'], one['operation']) for one in between} == {
    (2, 4, 'all-reduce')
  }
  assert {one['group'] for one in inside} == {4}
  experiment = preflight._experiment(config, 4, devices('2xv5e:2x2'))
  params = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract.params))
  # A quarter of the float32 gradients, whose rows of 32 the compiler pads to 128.
  sent = sum(one['count'] * one['bytes'] for one in between)
  assert params <= sent < 5 * params
  # Both ways, half of each chip's part at 25 Gb/s.
  assert row['network_seconds'] == pytest.approx(2 * sent / 2 / 3.125e9)
  assert row['network_seconds'] < row['collective_seconds'] < row['estimated_step_seconds']
  printed = capsys.readouterr().out
  assert 'on the network between slices' in printed
  assert 'all-reduce over 2 slices, f32' in printed
