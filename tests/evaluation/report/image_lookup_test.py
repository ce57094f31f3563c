"""Pictures below a root, by id or by column, and none outside of it."""

from flexfas_jax.evaluation.report import image_lookup


def test_by_id_by_column_and_never_outside(tmp_path):
  root = tmp_path / 'root'
  (root / 'a').mkdir(parents=True)
  (root / 'a/1.jpg').write_bytes(b'one')
  (root / 'a/2.png').write_bytes(b'two')
  (root / 'a/ir.png').write_bytes(b'infrared')
  (tmp_path / 'secret.jpg').write_bytes(b'secret')
  columns = {'x': {'rgb': 'a/1.jpg', 'ir': 'a/ir.png', 'depth': '', 'label': 'attack'}}
  find = image_lookup.make_image_finder(root, columns)
  found = find(
    'intra', ['a/1.jpg', 'a/2', 'x', 'no', '../secret', str(tmp_path / 'secret.jpg'), 'a']
  )
  assert found == {
    'a/1.jpg': {'rgb': b'one'},
    'a/2': {'rgb': b'two'},
    'x': {'rgb': b'one', 'ir': b'infrared'},
  }
