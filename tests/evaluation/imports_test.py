"""What importing flexfas_jax.evaluation loads: neither a framework nor an image library."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, pathlib, sys
folder = pathlib.Path('flexfas_jax/evaluation')
names = ['.'.join(p.with_suffix('').parts).removesuffix('.__init__') for p in folder.rglob('*.py')]
for name in names:
  importlib.import_module(name)
slow = {'jax', 'jaxlib', 'flax', 'grain', 'cv2', 'tensorflow'}
print(len(names), sorted(slow & set(sys.modules)))
"""


def test_no_module_of_evaluation_imports_jax_or_opencv():
  done = subprocess.run(
    [sys.executable, '-c', CODE], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  count, _, modules = done.stdout.strip().partition(' ')
  assert int(count) > 30
  assert modules == '[]'
