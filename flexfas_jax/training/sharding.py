"""How arrays are distributed: a ("data", "fsdp") mesh, and the shardings of state and batches."""

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flexfas_jax.errors import ConfigError


def make_mesh(data: int = -1, fsdp: int = 1, devices=None) -> Mesh:
  """All devices as [data, fsdp]; a row never spans two slices, between which the network is slow.

  The axes are `Auto`: Linen's dropout and the ViT's class token raise under `Explicit`, which is
  `jax.make_mesh`'s default.

  Args:
    data: number of device groups, each of which holds the whole state; -1: as many as fit.
    fsdp: number of devices in a group, over which the state is sharded. The batch is sharded over
      all devices.
    devices: None: all that are attached.

  Raises:
    ConfigError: data x fsdp is not the number of devices, fsdp does not divide the devices of a
      slice, or slices differ in size.
  """
  devices = jax.devices() if devices is None else devices
  n, slices = len(devices), split_by_slice(devices)
  per_slice = len(slices[0])
  if any(len(members) != per_slice for members in slices):
    raise ConfigError(
      f'the slices (GPU nodes) have {", ".join(str(len(members)) for members in slices)} devices; '
      'use slices of one size'
    )
  if fsdp < 1 or per_slice % fsdp:
    where = f' of each of the {len(slices)} slices (GPU nodes)' if len(slices) > 1 else ''
    raise ConfigError(f'config.mesh.fsdp = {fsdp} does not divide the {per_slice} devices{where}')
  if data not in (-1, n // fsdp):
    raise ConfigError(
      f'config.mesh = {data} x {fsdp} does not match the {n} devices; --config.mesh.data=-1 uses '
      f'all, {n // fsdp} here'
    )
  grids = [
    mesh_utils.create_device_mesh(
      (per_slice // fsdp, fsdp), members, allow_split_physical_axes=True
    )
    for members in slices
  ]
  return Mesh(np.concatenate(grids), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)


def split_by_slice(devices) -> list[list]:
  """The devices of each TPU slice, or of each GPU node, in the order of the slices.

  Devices of a kind that has no slices (CPUs) are a single one; GPUs that do not name their node
  are grouped by process.
  """
  slices: dict[int, list] = {}
  for device in devices:
    index = getattr(device, 'slice_index', None)
    if index is None:
      index = device.process_index if device.platform == 'gpu' else 0
    slices.setdefault(index, []).append(device)
  return [slices[index] for index in sorted(slices)]


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis sharded over all devices."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def state_sharding(abstract, mesh: Mesh):
  """A sharding for each leaf: over `fsdp` along the largest divisible axis, else replicated.

  Args:
    abstract: a pytree of ShapeDtypeStruct, from `jax.eval_shape`.
    mesh: from `make_mesh`.
  """
  parts = mesh.shape['fsdp']

  def place(leaf):
    axes = [i for i, n in enumerate(leaf.shape) if n % parts == 0 and n >= parts]
    if parts == 1 or not axes:
      return replicated(mesh)
    largest = max(axes, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, P(*(None,) * largest, 'fsdp'))

  return jax.tree.map(place, abstract)


def check_batch(batch_size: int, mesh: Mesh, field: str, accumulate: int = 1) -> None:
  """Raises a ConfigError if devices times `accumulate` do not divide the global batch."""
  if accumulate < 1:
    raise ConfigError(f'config.accumulate = {accumulate}; give 1 to process the batch at once')
  parts = mesh.size * accumulate
  if batch_size < 1 or batch_size % parts:
    over = f'{mesh.size} devices' + (f', {accumulate} times each' if accumulate > 1 else '')
    raise ConfigError(
      f'{field} = {batch_size} does not divide over {over}; choose a multiple of {parts}'
    )


def local_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> np.ndarray:
  """The rows of the global batch that a process's devices hold, ascending: [b] int.

  On a torus, the devices of a host need not be adjacent in the mesh.
  """
  process = jax.process_index() if process is None else process
  indices = batch_sharding(mesh).devices_indices_map((batch_size,))
  spans = {
    (index[0].start or 0, index[0].stop or batch_size)
    for device, index in indices.items()
    if device.process_index == process
  }
  return np.concatenate([np.arange(*span) for span in sorted(spans)])


def place_batch(batch, mesh: Mesh):
  """A global array from each process's part of the batch: the rows of `local_rows`."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)
