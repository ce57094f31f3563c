"""Where arrays live: a mesh of ("data", "fsdp"), and rules that place state and batches on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flexfas_jax.errors import ConfigError


def make_mesh(data: int = -1, fsdp: int = 1, devices=None) -> Mesh:
  """All devices as [data, fsdp].

  The axes are `Auto`: Linen's dropout and the ViT's class token raise under `Explicit`, which is
  `jax.make_mesh`'s default.

  Args:
    data: over how many groups of devices the batch goes, each with the whole state; -1: as many as
      there are.
    fsdp: over how many devices a state is cut; the batch is cut over them as well.
    devices: None: all there are.

  Raises:
    ConfigError: the two do not make up the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  n = len(devices)
  if fsdp < 1 or n % fsdp:
    raise ConfigError(f'config.mesh.fsdp = {fsdp} does not divide the {n} devices')
  if data not in (-1, n // fsdp):
    raise ConfigError(
      f'config.mesh = {data} x {fsdp} is not the {n} devices; '
      f'--config.mesh.data=-1 takes as many as there are, {n // fsdp}'
    )
  return jax.make_mesh((n // fsdp, fsdp), ('data', 'fsdp'), (AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """A copy on every device."""
  return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis cut over all devices."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def state_sharding(abstract, mesh: Mesh):
  """A sharding for each leaf: cut over `fsdp` along its largest axis that divides, else copied.

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
  """Raises a ConfigError where devices, and the parts of a step, do not divide the global batch."""
  if accumulate < 1:
    raise ConfigError(f'config.accumulate = {accumulate}; 1 takes the batch whole')
  parts = mesh.size * accumulate
  if batch_size < 1 or batch_size % parts:
    over = f'{mesh.size} devices' + (f', {accumulate} times each' if accumulate > 1 else '')
    raise ConfigError(
      f'{field} = {batch_size} does not divide over {over}; choose a multiple of {parts}'
    )


def rows(mesh: Mesh, batch_size: int, process: int | None = None) -> np.ndarray:
  """The rows of the global batch that a process's devices hold, in their order: [b] int.

  On a torus the devices of one host need not stand side by side in the mesh.
  """
  process = jax.process_index() if process is None else process
  places = batch_sharding(mesh).devices_indices_map((batch_size,))
  ours = {
    (index[0].start or 0, index[0].stop or batch_size)
    for device, index in places.items()
    if device.process_index == process
  }
  return np.concatenate([np.arange(*span) for span in sorted(ours)])


def place_batch(batch, mesh: Mesh):
  """What a process has of the batch, the rows of `rows`, as a part of the global one."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)
