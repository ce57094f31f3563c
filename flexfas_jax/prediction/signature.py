"""Verifies the signature of a bundle: Ed25519 over the exact bytes of `card.json`.

`card.json.sig`, next to `card.json`, holds the signature, 64 bytes. The card holds the SHA-256 of
every other file of the bundle, so that the signature covers all of it.
"""

import os
from pathlib import Path

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.images import files as image_files

NAME = 'card.json.sig'
MAKE_KEYS = (
  'openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub'
)
INSTALL = "signatures require the `sign` extra: pip install 'flexfas_jax[sign]'"
_LENGTH = 64
_LARGEST_KEY = 1 << 16  # bytes of a PEM file


def read_key(path: str | os.PathLike, load, kind: str) -> object:
  """Reads a key from a PEM file.

  Args:
    path: the file.
    load: function that parses its bytes.
    kind: 'public' or 'private', for messages.

  Raises:
    ConfigError: the file cannot be read, or holds no key of this kind.
  """
  try:
    return load(image_files.read(path, _LARGEST_KEY))
  except OSError as error:
    raise ConfigError(f'the {kind} key {path} cannot be read: {error.strerror}') from None
  except ConfigError:
    raise
  except Exception as error:  # cryptography raises several kinds
    if kind == 'public' and 'PRIVATE KEY' in _first_line(path):
      raise ConfigError(
        f'{path} is a private key, which stays where bundles are signed; write the public one: '
        f'openssl pkey -in {path} -pubout -out {Path(path).with_suffix(".pub")}'
      ) from None
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
    raise ConfigError(
      f'{path} is not the PEM file of a {kind} Ed25519 key ({line}). {MAKE_KEYS}'
    ) from None


def _first_line(path: str | os.PathLike) -> str:
  lines = image_files.read(path, _LARGEST_KEY).decode('ascii', 'replace').splitlines()
  return lines[0] if lines else ''


def verify(card: bytes, folder: Path, public_key: str | os.PathLike) -> None:
  """Verifies the signature of a card without parsing the card.

  Args:
    card: the bytes of `card.json`.
    folder: the bundle.
    public_key: a PEM file.

  Raises:
    ConfigError: no public Ed25519 key is in the file, or `cryptography` is not installed.
    StateError: the signature is missing, or of other bytes or of another key.
  """
  try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
  except ImportError:
    raise ConfigError(INSTALL) from None
  key = read_key(public_key, serialization.load_pem_public_key, 'public')
  if not isinstance(key, Ed25519PublicKey):
    raise ConfigError(f'{public_key} is not an Ed25519 key. {MAKE_KEYS}')
  path = folder / NAME
  try:
    signature = image_files.read(path, _LENGTH)
  except FileNotFoundError:
    raise StateError(
      f'{folder} is not signed: a public key was given, but there is no {NAME}. Export it again '
      'with --sign_key'
    ) from None
  except OSError as error:
    raise StateError(f'{path} cannot be read: {error.strerror}') from None
  try:
    key.verify(signature, card)
  except InvalidSignature:
    raise StateError(
      f'{folder}: {NAME} is not the signature of card.json by the key {public_key}: the card was '
      'changed, or signed with another key. Fetch the bundle again from where it was exported'
    ) from None
