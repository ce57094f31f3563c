"""Signs a bundle's card; `prediction.signature` verifies it."""

import os
from pathlib import Path

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction import signature


def read_key(path: str | os.PathLike):
  """The private Ed25519 key of an unencrypted PEM file.

  Raises:
    ConfigError: the file holds no such key, or `cryptography` is not installed.
  """
  try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
  except ImportError:
    raise ConfigError(signature.INSTALL) from None
  key = signature.read_key(
    path, lambda content: serialization.load_pem_private_key(content, password=None), 'private'
  )
  if not isinstance(key, Ed25519PrivateKey):
    raise ConfigError(f'{path} is not an Ed25519 key. {signature.MAKE_KEYS}')
  return key


def write(folder: Path, key) -> None:
  """Writes the signature of a bundle's `card.json`."""
  (folder / signature.NAME).write_bytes(key.sign((folder / 'card.json').read_bytes()))
