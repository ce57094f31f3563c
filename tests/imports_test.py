"""The import rules of the project, read from the sources, also inside functions."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TRAINING = 'training models export preflight'
# place: what its files never import. A name without a dot that is no folder of flexfas_jax is a
# library; an entry of the form 'a but b' exempts the folder or module b.
RULES = {
  'schema errors files': 'schema errors files csv_dialect plain_csv images protocols evaluation '
  f'prediction input_pipeline data {TRAINING}',
  'data': f'jax flax {TRAINING}',
  'images': 'jax flax protocols evaluation training input_pipeline',
  'protocols': f'jax flax evaluation input_pipeline {TRAINING}',
  'evaluation': f'jax flax grain input_pipeline {TRAINING}',
  'input_pipeline': f'jax flax evaluation {TRAINING}',
  'models': 'ml_collections optax orbax grain training evaluation protocols images',
  'models.fusion models.adapters': 'models.backbone models.flexmodal',
  'training.step training.losses': 'absl orbax grain ml_collections os pathlib io',
  'prediction demo': 'flax optax orbax grain absl ml_collections tensorflow_datasets array_record '
  'input_pipeline training export preflight',
  'prediction but prediction.runners': 'jax onnxruntime ai_edge_litert models',
  'prediction but prediction.folders prediction.samples prediction.sensor_names '
  'prediction.score_table': 'protocols evaluation',  # these four are batch prediction
  'score ensemble compare lint': 'jax flax grain absl input_pipeline training models',
  'flexfas_jax but training.checkpoints export': 'orbax',
  'flexfas_jax but models': 'flax.linen flax.nnx',
  'flexfas_jax': 'main tests experiments torch tensorflow',
}


def modules_below(folder: str, prefix: str = '') -> dict[str, pathlib.Path]:
  modules = {}
  for path in sorted((ROOT / folder).rglob('*.py')):
    name = prefix + '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    modules[name.removesuffix('.__init__')] = path
  return modules


# flexfas_jax/data and flexfas_jax/configs are links to the folders at the top.
MODULES = {
  **{
    module: path
    for module, path in modules_below('flexfas_jax').items()
    if not module.startswith(('flexfas_jax.data.', 'flexfas_jax.configs.'))
  },
  **modules_below('data', 'flexfas_jax.'),
  **modules_below('configs', 'flexfas_jax.'),
  **modules_below('experiments'),
}


@functools.cache
def imported_names(module: str) -> frozenset[str]:
  """Full names: `from a.b import c` is a.b and a.b.c."""
  names = set()
  for node in ast.walk(ast.parse(MODULES[module].read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{module}: a relative import'
      names |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
  return frozenset(names)


def full_name(short: str) -> str:
  """'images' is flexfas_jax.images; 'data' and libraries are themselves."""
  ours = f'flexfas_jax.{short}'
  return ours if any(is_within(module, ours) for module in MODULES) else short


def is_within(name: str, place: str) -> bool:
  return name == place or name.startswith(place + '.')


def modules_in(places: str) -> list[str]:
  inside, _, outside = places.partition(' but ')
  inside, outside = (list(map(full_name, names.split())) for names in (inside, outside))
  return [
    module
    for module in MODULES
    if any(is_within(module, place) for place in inside)
    and not any(is_within(module, place) for place in outside)
  ]


@pytest.mark.parametrize('places', RULES)
def test_import_rules(places):
  modules = modules_in(places)
  assert modules, 'the rule has no modules'
  for module in modules:
    for forbidden in map(full_name, RULES[places].split()):
      if is_within(module, forbidden):
        continue
      broken = [name for name in imported_names(module) if is_within(name, forbidden)]
      assert not broken, f'{module} imports {broken}'


def test_configs_import_ml_collections_alone():
  for module in modules_in('configs'):
    assert imported_names(module) <= {'ml_collections', 'ml_collections.ConfigDict'}, module


def test_no_import_cycle():
  graph = {}
  for module in MODULES:
    names = imported_names(module)
    # `from a import b` imports the package a, too; what it names is a.b.
    packages = {name.rpartition('.')[0] for name in names if name in MODULES}
    graph[module] = {name for name in names - packages - {module} if name in MODULES}
  while leaves := [module for module, targets in graph.items() if not targets & graph.keys()]:
    for module in leaves:
      del graph[module]
  assert not graph, f'these modules import each other: {sorted(graph)}'


def test_private_names_stay_in_their_folder():
  for module, path in MODULES.items():
    folder = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for name in imported_names(module):
      owner, _, last = name.rpartition('.')
      if last.startswith('_') and is_within(owner, 'flexfas_jax'):
        inside = owner == folder or owner.rpartition('.')[0] == folder
        assert inside, f'{module} imports {name}'


def test_the_reader_sees_every_form_of_import(tmp_path, monkeypatch):
  path = tmp_path / 'a.py'
  path.write_text('import jax\ndef f():\n  from flax import linen as nn\n')
  monkeypatch.setitem(MODULES, 'a', path)
  assert imported_names('a') == {'jax', 'flax', 'flax.linen'}
  assert is_within('jax.numpy', 'jax') and not is_within('jaxtyping', 'jax')
