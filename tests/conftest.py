"""Harsh settings for every test: eight virtual CPU devices, and ranks never promoted silently."""

import os

# Before jax is imported anywhere.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
