"""Meshes over several slices or nodes, with devices that are not attached."""

import math
import types

import jax
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.preflight import run as preflight
from flexfas_jax.training import sharding


class Device(types.SimpleNamespace):
  """Stands for a device that is not attached; a mesh hashes it."""

  __hash__ = object.__hash__
  __eq__ = object.__eq__


def nodes(processes, of_each, gpus_of_a_node=None, platform='gpu'):
  """Devices of processes; with `gpus_of_a_node`, each names its node as XLA does."""
  devices = []
  for i in range(processes * of_each):
    device = Device(id=i, process_index=i // of_each, platform=platform, device_kind='NVIDIA H100')
    if gpus_of_a_node:
      device.slice_index = i // gpus_of_a_node
    devices.append(device)
  return devices


def indices(mesh, name):
  return np.vectorize(lambda device: getattr(device, name))(mesh.devices)


@pytest.mark.parametrize('fsdp', [1, 2, 8])
@pytest.mark.parametrize('named', [True, False])
def test_the_nodes_of_a_cluster_are_slices(fsdp, named):
  """Two nodes of eight GPUs, one process each; they name their node, or are grouped by process."""
  mesh = sharding.make_mesh(fsdp=fsdp, devices=nodes(2, 8, 8 if named else None))
  assert dict(mesh.shape) == {'data': 16 // fsdp, 'fsdp': fsdp}
  np.testing.assert_array_equal(indices(mesh, 'id').ravel(), np.arange(16))
  for group in indices(mesh, 'process_index'):
    assert len(set(group)) == 1


def test_a_process_for_each_gpu_shares_its_node():
  """As slurm.sbatch starts them: sixteen processes, two nodes, groups of eight."""
  mesh = sharding.make_mesh(fsdp=8, devices=nodes(16, 1, gpus_of_a_node=8))
  np.testing.assert_array_equal(indices(mesh, 'slice_index'), [[0] * 8, [1] * 8])
  for process in range(16):
    np.testing.assert_array_equal(
      sharding.local_rows(mesh, 64, process), np.arange(4 * process, 4 * process + 4)
    )


def test_the_order_of_devices_does_not_mix_slices():
  devices = nodes(4, 4, gpus_of_a_node=4)
  shuffled = [devices[i] for i in np.random.default_rng(0).permutation(16)]
  mesh = sharding.make_mesh(fsdp=2, devices=shuffled)
  np.testing.assert_array_equal(indices(mesh, 'slice_index')[:, 0], np.repeat(range(4), 2))


@pytest.mark.parametrize(
  'devices,fsdp,message',
  [
    (nodes(2, 4, 4), 3, 'fsdp = 3 does not divide the 4 devices of each of the 2 slices'),
    # It divides all sixteen devices; a group would span both nodes.
    (nodes(2, 8, 8), 16, 'fsdp = 16 does not divide the 8 devices of each of the 2 slices'),
    (nodes(1, 8, 8), 3, 'fsdp = 3 does not divide the 8 devices$'),
    (nodes(2, 8, 8)[:12], 1, r'slices \(GPU nodes\) have 8, 4 devices; use slices of one size'),
  ],
)
def test_what_does_not_fit_the_slices_is_refused(devices, fsdp, message):
  with pytest.raises(ConfigError, match=message) as caught:
    sharding.make_mesh(fsdp=fsdp, devices=devices)
  assert caught.value.exit_code == 2


def test_cpus_are_one_slice():
  """Of any number of processes: their number does not limit fsdp."""
  mesh = sharding.make_mesh(fsdp=8, devices=nodes(4, 2, platform='cpu'))
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 8}
  assert dict(sharding.make_mesh(fsdp=4, devices=jax.devices()).shape) == {'data': 2, 'fsdp': 4}


@pytest.fixture
def slices():
  """TPU slices by name, as devices to compile for."""
  pytest.importorskip('libtpu', reason="TPU's compiler is the `tpu` extra")
  preflight.hide_accelerators()
  return preflight.slice_devices


@pytest.mark.parametrize('fsdp', [1, 2, 4, 8])
def test_two_slices_of_the_tpu_compiler(slices, fsdp):
  devices = slices('2xv5e:2x4')
  mesh = sharding.make_mesh(fsdp=fsdp, devices=devices)
  assert dict(mesh.shape) == {'data': 16 // fsdp, 'fsdp': fsdp}
  assert set(mesh.devices.flat) == set(devices)
  for group in indices(mesh, 'slice_index'):
    assert len(set(group)) == 1
  assert indices(mesh, 'slice_index')[:, 0].tolist() == sorted([0, 1] * (8 // fsdp))


@pytest.mark.parametrize('name,fsdp', [('2xv5e:2x4', 4), ('2xv5e:4x4', 2), ('v5e:4x4', 8)])
def test_each_process_gets_the_rows_of_its_own_devices(slices, name, fsdp):
  """Each row is of as many processes as devices hold it: exactly one, as nothing is replicated."""
  mesh = sharding.make_mesh(fsdp=fsdp, devices=slices(name))
  processes = sorted({device.process_index for device in mesh.devices.flat})
  B = 4 * mesh.size
  rows = [sharding.local_rows(mesh, B, process) for process in processes]
  assert {len(r) for r in rows} == {B // len(processes)}
  assert sorted(np.concatenate(rows)) == list(range(B))
  place = sharding.batch_sharding(mesh).devices_indices_map((B,))
  for process, own in zip(processes, rows, strict=True):
    held = [place[d][0] for d in mesh.devices.flat if d.process_index == process]
    assert set(own) == {row for part in held for row in range(B)[part]}


def test_an_axis_of_a_slice_may_be_split(slices):
  """Groups of two on a torus of 4 x 4 x 4 take a part of an axis, on every kind of chip."""
  mesh = sharding.make_mesh(fsdp=2, devices=slices('v4:4x4x4'))
  assert mesh.size == math.prod(mesh.shape.values()) == 64
  assert mesh.shape['fsdp'] == 2
