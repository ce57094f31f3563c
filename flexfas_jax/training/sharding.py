"""Where arrays live: a mesh of ("data", "fsdp"), and rules that place state and batches on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flexfas_jax.errors import ConfigError


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
  """All devices as [data, fsdp].

  The axes are `Auto`: Linen's dropout and the ViT's class token raise under `Explicit`, which is
  `jax.make_mesh`'s default.

  Raises:
    ConfigError: `fsdp` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  if fsdp < 1 or len(devices) % fsdp:
    raise ConfigError(f'config.fsdp = {fsdp} does not divide the {len(devices)} devices')
  shape = (len(devices) // fsdp, fsdp)
  return jax.make_mesh(shape, ('data', 'fsdp'), (AxisType.Auto,) * 2, devices=devices)


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


def check_batch(batch_size: int, mesh: Mesh, field: str) -> None:
  """Raises a ConfigError where the devices do not divide the global batch."""
  if batch_size < 1 or batch_size % mesh.size:
    raise ConfigError(
      f'{field} = {batch_size} does not divide over {mesh.size} devices; '
      f'choose a multiple of {mesh.size}'
    )


def place_batch(batch, mesh: Mesh):
  """A process's arrays, as the global batch: the processes' parts one after the other."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)
