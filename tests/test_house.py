"""Imports run downward only, and the host wing stays free of JAX."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
  'types': 0,
  'config': 0,
  'metrics': 1,
  'tasks': 2,
  'verify': 3,
  'model': 3,
  'run': 4,
  'sampler': 4,
  'e_step': 5,
  'm_step': 7,
  'report': 7,
  'plan': 8,
  'use': 8,
  'em': 9,
  'main': 10,
  'experiment': 11,
  '__main__': 11,
}
HOST = ('types', 'config', 'metrics', 'tasks', 'verify', 'run', 'report')
# In these packages, what is about devices.
DEVICE_FILES = ('run/opened.py', 'run/processes.py', 'run/progress.py')
# In the others, what is not.
HOST_FILES = (
  *('model/tokenizer.py', 'model/hardware.py'),
  *('e_step/choose.py', 'e_step/dataset.py', 'e_step/verdicts.py'),
  *('e_step/summary.py', 'experiment/compare.py', 'experiment/share.py'),
  'use/card.py',
)
DEVICE_LIBRARIES = ('jax', 'flax', 'optax', 'orbax', 'tensorflow')


def _room(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'rest').parts[0].removesuffix('.py')


def _imports(path: pathlib.Path) -> set[str]:
  """Returns the dotted names that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names.add(node.module)
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


FILES = [
  path
  for path in sorted((ROOT / 'rest').rglob('*.py'))
  if path != ROOT / 'rest' / '__init__.py'
]


def _id(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / 'rest').as_posix()


@pytest.mark.parametrize('path', FILES, ids=_id)
def test_imports_run_downward(path: pathlib.Path):
  room = _room(path)
  if path.stem == '__main__':
    return  # It stands on top of all: nobody imports it.
  assert room in FLOORS, f'{room} has no floor: give it one here.'
  for name in _imports(path):
    parts = name.split('.')
    if parts[0] != 'rest' or len(parts) < 2 or parts[1] == room:
      continue
    if parts[1] in FLOORS:
      assert FLOORS[parts[1]] < FLOORS[room], f'{path.name} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=_id)
def test_the_host_wing_imports_no_device_library(path: pathlib.Path):
  name = path.relative_to(ROOT / 'rest').as_posix()
  host = _room(path) in HOST and name not in DEVICE_FILES
  if host or name in HOST_FILES:
    tops = {name.split('.')[0] for name in _imports(path)}
    assert not tops & set(DEVICE_LIBRARIES)


@pytest.mark.parametrize(
  ('library', 'owner'),
  [('orbax', 'model'), ('ml_collections', 'main')],
)
def test_one_room_knows_a_library(library: str, owner: str):
  users = {
    _room(path)
    for path in FILES
    if any(name.split('.')[0] == library for name in _imports(path))
  }
  assert users <= {owner, 'use'} if owner == 'main' else users <= {owner}


def test_configs_import_nothing_of_rest_but_its_config():
  for path in sorted((ROOT / 'configs').rglob('*.py')):
    for name in _imports(path):
      if name.split('.')[0] == 'rest':
        assert name.split('.')[:2] == ['rest', 'config'], path.name


def test_the_config_needs_python_alone():
  names = _imports(ROOT / 'rest' / 'config.py')
  assert {name.split('.')[0] for name in names} <= sys.stdlib_module_names
