"""Signed bundles: nothing that was not signed by the key is parsed, whatever is wrong."""

import json
import subprocess
import sys

import pytest

from flexfas_jax import demo, predict
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.export import signing
from flexfas_jax.prediction import Predictor
from tests.prediction import bundles

serialization = pytest.importorskip('cryptography.hazmat.primitives.serialization')
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: E402


def write_keys(folder, name, made=None):
  """Writes NAME.pem and NAME.pub."""
  key = made or ed25519.Ed25519PrivateKey.generate()
  private = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  public = key.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
  )
  (folder / f'{name}.pem').write_bytes(private)
  (folder / f'{name}.pub').write_bytes(public)
  return folder / f'{name}.pem', folder / f'{name}.pub'


@pytest.fixture(scope='module')
def keys(tmp_path_factory):
  folder = tmp_path_factory.mktemp('keys')
  for name in ('own', 'other'):
    write_keys(folder, name)
  write_keys(folder, 'rsa', rsa.generate_private_key(65537, 2048))
  (folder / 'empty.pub').write_bytes(b'')
  return folder


@pytest.fixture
def bundle(tmp_path, keys):
  """A signed bundle, its sequence number 7."""
  folder = bundles.write(tmp_path / 'toy')
  signing.write(folder, signing.read_key(keys / 'own.pem'))
  return folder


def test_a_signed_bundle_is_read(bundle, keys):
  found = Predictor.load(bundle, public_key=keys / 'own.pub', require_signature=True)
  assert found.card.contents['sequence'] == 7
  assert len((bundle / 'card.json.sig').read_bytes()) == 64
  Predictor.load(bundle)  # without a key, signatures are not read


def flip(signature):
  return signature[:5] + bytes([signature[5] ^ 1]) + signature[6:]


CHANGES = {  # (what becomes of the card, what becomes of the signature)
  'unsigned': (None, lambda signature: None),
  'a space': (lambda card: card + b' ', None),
  'no JSON': (lambda card: b'{', None),
  'a threshold': (lambda card: card.replace(b'0.45', b'0.01'), None),
  'no signature': (None, lambda signature: b''),
  'a short signature': (None, lambda signature: signature[:63]),
  'a long signature': (None, lambda signature: signature + b'x'),
  'another signature': (None, flip),
}


@pytest.mark.parametrize('change', CHANGES)
def test_what_was_not_signed_is_refused(bundle, keys, change):
  for name, of in zip(('card.json', 'card.json.sig'), CHANGES[change], strict=True):
    content = (bundle / name).read_bytes()
    changed = of(content) if of else content
    assert (changed != content) == bool(of)
    (bundle / name).unlink()
    if changed is not None:
      (bundle / name).write_bytes(changed)
  with pytest.raises(StateError, match='not signed|not the signature|card.json.sig cannot be read'):
    Predictor.load(bundle, public_key=keys / 'own.pub')


@pytest.mark.parametrize(
  ('key', 'error', 'says'),
  [
    ('other.pub', StateError, 'not the signature of card.json by the key'),
    ('rsa.pub', ConfigError, 'is not an Ed25519 key. openssl genpkey'),
    ('empty.pub', ConfigError, 'is not the PEM file of a public'),
    (
      'own.pem',
      ConfigError,
      r'is a private key.* openssl pkey -in \S*own.pem -pubout -out \S*own.pub$',
    ),
    ('absent.pub', ConfigError, 'cannot be read: No such file'),
    ('', ConfigError, 'not a regular file'),
  ],
)
def test_keys_that_verify_nothing(bundle, keys, key, error, says):
  with pytest.raises(error, match=says):
    Predictor.load(bundle, public_key=keys / key)


def test_an_empty_name_of_a_key_is_no_permission(bundle, keys, capsys):
  """As from a variable that is not set."""
  with pytest.raises(ConfigError, match='cannot be read'):
    Predictor.load(bundle, public_key='')
  with pytest.raises(ConfigError, match='give the public key'):
    Predictor.load(bundle, require_signature=True)
  for command in (predict, demo):
    args = [str(bundle), '--public_key='] + ['--rgb=a.png'] * (command is predict)
    assert command.main(args) == 2
    assert 'the public key' in capsys.readouterr().err


def test_without_the_package_nothing_is_verified(bundle, keys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'cryptography.exceptions', None)
  with pytest.raises(ConfigError, match=r"pip install 'flexfas_jax\[sign\]'"):
    Predictor.load(bundle, public_key=keys / 'own.pub')
  monkeypatch.setitem(sys.modules, 'cryptography.hazmat.primitives', None)
  with pytest.raises(ConfigError, match=r"pip install 'flexfas_jax\[sign\]'"):
    signing.read_key(keys / 'own.pem')


@pytest.mark.parametrize(
  ('key', 'says'),
  [
    ('own.pub', 'is not the PEM file of a private Ed25519 key'),
    ('rsa.pem', 'is not an Ed25519 key'),
    ('empty.pub', 'is not the PEM file of a private'),
    ('absent.pem', 'cannot be read'),
  ],
)
def test_keys_that_sign_nothing(keys, key, says):
  with pytest.raises(ConfigError, match=says):
    signing.read_key(keys / key)


def test_an_older_bundle_is_refused_though_it_is_signed(bundle, keys):
  Predictor.load(bundle, public_key=keys / 'own.pub', min_sequence=7)
  with pytest.raises(StateError, match='sequence number is 7, and at least 8 is required'):
    Predictor.load(bundle, public_key=keys / 'own.pub', min_sequence=8)
  with pytest.raises(ConfigError, match='not an integer'):
    Predictor.load(bundle, min_sequence='8')


def test_the_commands(bundle, keys, tmp_path, capsys):
  (tmp_path / 'rgb.png').write_bytes(bundles.png(bundles.triplet()['rgb']))
  args = [str(bundle), f'--rgb={tmp_path}/rgb.png', f'--public_key={keys}/own.pub', '--json']
  assert predict.main(args) == 0
  assert json.loads(capsys.readouterr().out)['used'] == ['rgb']
  assert predict.main([*args, '--min_sequence=8']) == 4
  assert 'is too old' in capsys.readouterr().err
  (bundle / 'card.json.sig').unlink()
  assert predict.main(args) == 4
  assert 'is not signed' in capsys.readouterr().err
  assert demo.main([str(bundle), f'--public_key={keys}/own.pub']) == 4
  assert 'is not signed' in capsys.readouterr().err


def test_keys_of_openssl(tmp_path, bundle):
  """The commands that the messages give."""
  try:
    subprocess.run(['openssl', 'version'], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('there is no openssl')
  from flexfas_jax.prediction import signature

  subprocess.run(signature.MAKE_KEYS, shell=True, check=True, cwd=tmp_path, capture_output=True)
  signing.write(bundle, signing.read_key(tmp_path / 'key.pem'))
  Predictor.load(bundle, public_key=tmp_path / 'key.pub')
