"""Facts and paths of rows in little memory."""

import pickle
import tracemalloc

from flexfas_jax.data.packed_rows import pack_facts, pack_paths
from flexfas_jax.schema import MODALITIES

SHARED = {'label': 'attack', 'attack_type': 'print', 'subject': 'd/s', 'video': 'd/s/v'}


def facts(frame):
  return {'id': f'd/s/v/{frame}', **SHARED, 'frame': frame}


def paths(frame):
  return {m: f'images/subject/video_0001/{m}/frame_{frame:04d}.png' for m in MODALITIES}


def test_packed_rows_have_the_same_content_also_in_another_process():
  for plain, packed in (
    (facts(3), pack_facts(facts(3))),
    (paths(3), pack_paths(paths(3))),
    ({'ir': 'a'}, pack_paths({'ir': 'a'})),
    ({'rgb': 'a\0b', 'ir': 'c'}, pack_paths({'rgb': 'a\0b', 'ir': 'c'})),
  ):
    for same in (packed, pickle.loads(pickle.dumps(packed))):
      assert same == plain and dict(same) == plain and len(same) == len(plain)
      assert list(same.items()) == [(name, plain[name]) for name in same]
      assert list(same.values()) == [plain[name] for name in same]
      assert 'depth' not in same or 'depth' in plain
      assert same.get('none') is None
  assert list(pack_paths(paths(3))) == list(MODALITIES)


def test_packed_rows_take_half_of_the_memory():
  def take(n, row_of):
    tracemalloc.start()
    rows = [row_of(i) for i in range(n)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == n
    return size / n

  plain = take(2000, lambda i: (facts(i), paths(i)))
  packed = take(2000, lambda i: (pack_facts(facts(i)), pack_paths(paths(i))))
  assert packed < 0.52 * plain
