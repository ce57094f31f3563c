"""Who never imports whom, read from the sources, also inside functions."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = [p.relative_to(ROOT) for d in ('flexfas_jax', 'data', 'configs', 'experiments')
        for p in sorted((ROOT / d).rglob('*.py'))]  # fmt: skip


def of(pattern, *but):
  return [p for p in OURS if p.match(pattern) and p.as_posix() not in but]


def under(folder, *but):
  return [p for p in OURS if p.as_posix().startswith(folder + '/') and p.as_posix() not in but]


IN_FLEXFAS = 'flexfas_jax.'
CHECKPOINTS = 'flexfas_jax/training/checkpoints.py'
WEIGHTS_RUNNER = 'flexfas_jax/prediction/runners/weights.py'
SCORING = 'flexfas_jax/evaluation/scoring.py'
NEVER = {  # rule: (files, what they never import)
  'data': (
    under('data'),
    'jax flax flexfas_jax.training flexfas_jax.models flexfas_jax.fusion flexfas_jax.export',
  ),
  'models': (
    under('flexfas_jax/models'),
    'ml_collections optax orbax grain flexfas_jax.training flexfas_jax.evaluation',
  ),
  'fusion': (
    under('flexfas_jax/fusion'),
    'ml_collections optax orbax grain flexfas_jax.training flexfas_jax.evaluation '
    'flexfas_jax.models',
  ),
  'evaluation': (under('flexfas_jax/evaluation', SCORING), 'jax flax grain'),
  'score, ensemble and lint': (
    [p for name in ('score', 'ensemble', 'lint') for p in of(f'flexfas_jax/{name}.py')],
    'jax flax grain absl flexfas_jax.models flexfas_jax.training',
  ),
  'input_pipeline': (under('flexfas_jax/input_pipeline'), 'jax flax'),
  'prediction': (  # what is on a device; weights without a graph are the exception
    under('flexfas_jax/prediction', WEIGHTS_RUNNER) + of('flexfas_jax/demo.py'),
    'flax optax orbax grain absl ml_collections tensorflow_datasets array_record '
    'flexfas_jax.training flexfas_jax.models flexfas_jax.fusion flexfas_jax.export '
    'flexfas_jax.input_pipeline.pipeline flexfas_jax.input_pipeline.sources '
    'flexfas_jax.evaluation.scoring',
  ),
  'prediction but its runners': (
    [p for p in under('flexfas_jax/prediction') if p.parent.name != 'runners'],
    'jax onnxruntime ai_edge_litert',
  ),
  'step and losses': (
    of('training/step.py') + of('training/losses.py'),
    'absl orbax grain ml_collections os pathlib io',
  ),
  'orbax': (
    [p for p in under('flexfas_jax', CHECKPOINTS) if not p.match('flexfas_jax/export/*')],
    'orbax',
  ),
  'the runner of weights': (
    of(WEIGHTS_RUNNER),
    'optax orbax grain tensorflow_datasets flexfas_jax.training flexfas_jax.export',
  ),
  'linen': (
    [p for p in under('flexfas_jax') if p.parent.name not in ('models', 'fusion')],
    'flax.linen flax.nnx',
  ),
  'everything': (
    under('flexfas_jax') + under('data') + under('configs'),
    'flexfas_jax.main data configs tests experiments torch tensorflow',
  ),
}


def imports(path):
  """Full names, `from a.b import c` being a.b and a.b.c."""
  names = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: a relative import'
      names |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def imported(names, forbidden):
  return {n for n in names for f in forbidden if n == f or n.startswith(f + '.')}


@pytest.mark.parametrize('rule', NEVER)
def test_who_never_imports_whom(rule):
  files, forbidden = NEVER[rule]
  assert files, 'the rule is about nothing'
  for path in files:
    assert not imported(imports(path), forbidden.split()), path


def test_configs_are_data():
  for path in under('configs'):
    assert imports(path) <= {'ml_collections', 'ml_collections.ConfigDict'}, path


def test_the_rules_see_what_is_forbidden():
  """The reader itself: one import of each form."""
  names = {'jax', 'jax.numpy', 'flax.linen', 'jaxtyping'}
  assert imported(names, ['jax']) == {'jax', 'jax.numpy'}
  assert 'orbax.checkpoint' in imports(pathlib.Path(CHECKPOINTS))
  assert 'jax' in imports(pathlib.Path(SCORING))
