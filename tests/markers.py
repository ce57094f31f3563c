"""Which markers a test has: by the libraries that it imports and the processes that it starts.

A test that imports none of JAX and starts no process is `unit`. What a file imports counts for each
of its tests; what a function imports or starts, for the tests that use it.
"""

import contextlib
import dis
import functools
import inspect
import pathlib
import re
import types
from collections.abc import Iterable, Iterator

import pytest

from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
LIBRARIES = {  # any of them gives the marker
  'jax': {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'grain'},
  'process': {'subprocess', 'multiprocessing'},
  'export': {'jax2onnx', 'onnx', 'onnxruntime', 'litert_converter', 'ai_edge_litert'},
}
KINDS = ('unit', *LIBRARIES)
_IMPORT = re.compile(
  r'^(?:import (?P<modules>[\w., ]+)|from (?P<package>[\w.]+) import (?P<names>[\w, ]+|\([^)]*\))'
  r"|(?:\w+ = )?pytest\.importorskip\(\s*'(?P<optional>[\w.]+)')",
  re.MULTILINE,
)


def of_libraries(modules: Iterable[str]) -> set[str]:
  roots = {module.partition('.')[0] for module in modules}
  return {kind for kind, libraries in LIBRARIES.items() if libraries & roots}


@functools.cache
def of_file(path: pathlib.Path) -> frozenset[str]:
  """The markers that each test of a file has. Importing a library starts no process."""
  kinds = of_libraries(reach(_imports(path))) - {'process'}
  return frozenset(kinds | ({'export'} if path.parent.name == 'export' else set()))


def reach(modules: Iterable[str]) -> set[str]:
  """These modules and all that importing them imports."""
  seen: set[str] = set()
  todo = list(modules)
  while todo:
    module = todo.pop()
    if module not in seen:
      seen.add(module)
      package = module.rpartition('.')[0]
      path = path_of(module)
      todo += [package] * bool(package) + (_imports(path) if path else [])
  return seen


@functools.cache
def path_of(module: str) -> pathlib.Path | None:
  """The source of a module of this project; None for others."""
  place = ROOT.joinpath(*module.split('.'))
  paths = (place / '__init__.py', place.with_suffix('.py'))
  return next((path for path in paths if path.is_file()), None)


@functools.cache
def _imports(path: pathlib.Path) -> list[str]:
  """The modules that a file imports on its unindented lines."""
  modules = []
  for match in _IMPORT.finditer(path.read_text()):
    if match['package']:
      names = re.findall(r'\w+', match['names'])
      modules += [match['package'], *(f'{match["package"]}.{name}' for name in names)]
    elif match['modules']:
      modules += [part.split()[0] for part in match['modules'].split(',')]
    else:
      modules.append(match['optional'])
  return modules


def of_test(item: pytest.Function) -> set[str]:
  """The markers of a test, of the fixtures that it uses and of the helpers that they call."""
  kinds = set(of_file(item.path))
  definitions = item._fixtureinfo.name2fixturedefs.values()
  todo: list = [item.function, *(one.func for fixtures in definitions for one in fixtures)]
  seen = set()
  while todo:
    used = todo.pop()
    if id(used) in seen:
      continue
    seen.add(id(used))
    if isinstance(used, types.ModuleType):
      helpers = vars(used).values() if _is_of_tests(vars(used)) else ()
      modules = (used, *(value for value in helpers if isinstance(value, types.ModuleType)))
      kinds |= of_libraries(module.__name__ for module in modules) & {'process'}
    elif isinstance(used, type):
      todo += [value for value in vars(used).values() if inspect.isfunction(value)]
    elif callable(used) and inspect.isfunction(function := inspect.unwrap(used)):
      variables = function.__globals__
      for code in _codes(function.__code__) if _is_of_tests(variables) else ():
        kinds |= _of_imports(code)
        todo += [variables.get(name) for name in code.co_names]
  return kinds or {'unit'}


def _is_of_tests(variables: dict) -> bool:
  return str(variables.get('__file__')).startswith(str(ROOT / 'tests'))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
  """A function's code and that of the functions in it."""
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _codes(constant)


@functools.cache
def _of_imports(code: types.CodeType) -> frozenset[str]:
  if dis.opmap['IMPORT_NAME'] not in code.co_code[::2]:  # reading all instructions takes long
    return frozenset()
  modules = {ins.argval for ins in dis.get_instructions(code) if ins.opname == 'IMPORT_NAME'}
  modules |= {f'{module}.{name}' for module in modules for name in code.co_names}
  return frozenset(of_libraries(modules) | of_libraries(reach(modules)) - {'process'})


@contextlib.contextmanager
def no_process() -> Iterator[None]:
  """Fails what starts a process."""
  import multiprocessing.process
  import subprocess

  def fail(*_, **__):
    raise AssertionError('a unit test starts a process: mark it process')

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(subprocess.Popen, '__init__', fail)
    patch.setattr(multiprocessing.process.BaseProcess, 'start', fail)
    patch.setattr(forked.Process, '__init__', fail)
    yield
