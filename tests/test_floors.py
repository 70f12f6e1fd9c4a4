"""Imports run downward only, and the host wing stays free of JAX."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
  'types': 0,
  'bounds': 0,
  'tokenizer': 1,
  'metrics': 1,
  'hardware': 1,
  'sharding': 1,
  'processes': 1,
  'store': 1,
  'keep': 1,
  'events': 1,
  'fates': 1,
  'model': 2,
  'tasks': 2,
  'dataset': 2,
  'packing': 2,
  'recipe': 2,
  'judging': 2,
  'journal': 2,
  'tally': 2,
  'attention': 3,
  'flash': 3,
  'loss': 3,
  'lora': 3,
  'schedule': 3,
  'optimizer': 3,
  'live': 3,
  'report': 3,
  'card': 3,
  'share': 3,
  'sampler': 3,
  'weights': 3,
  'checkpoint': 3,
  'verify': 3,
  'e_step': 4,
  'runs': 4,
  'update': 4,
  'estimate': 4,
  'curves': 4,
  'm_step': 5,
  'evaluate': 5,
  'export': 5,
  'sample': 5,
  'loop': 6,
  'pretrain': 6,
  'training_data': 7,
  'plan': 7,
  'em': 8,
  'setup': 8,
  'main': 9,
  'sweep': 10,
}
HOST = (
  *('types', 'bounds', 'hardware', 'tokenizer', 'metrics', 'keep', 'store'),
  'dataset',
  *('judging', 'card', 'events', 'fates', 'journal', 'tally', 'share'),
  *('tasks', 'verify', 'curves', 'report'),
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


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_imports_run_downward(path: pathlib.Path):
  room = _room(path)
  assert room in FLOORS, f'{room} has no floor: give it one here.'
  for name in _imports(path):
    parts = name.split('.')
    if parts[0] != 'rest' or len(parts) < 2 or parts[1] == room:
      continue
    if parts[1] in FLOORS:
      assert FLOORS[parts[1]] < FLOORS[room], f'{path.name} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_host_wing_imports_no_device_library(path: pathlib.Path):
  if _room(path) in HOST:
    tops = {name.split('.')[0] for name in _imports(path)}
    assert not tops & set(DEVICE_LIBRARIES)


@pytest.mark.parametrize(
  ('library', 'owner'),
  [('orbax', 'checkpoint'), ('ml_collections', 'main')],
)
def test_one_room_knows_a_library(library: str, owner: str):
  users = {
    _room(path)
    for path in FILES
    if any(name.split('.')[0] == library for name in _imports(path))
  }
  assert users <= {owner, 'pretrain'} if owner == 'main' else users <= {owner}


def test_configs_import_nothing_of_rest():
  for path in sorted((ROOT / 'configs').glob('*.py')):
    assert not any(name.split('.')[0] == 'rest' for name in _imports(path)), (
      path.name
    )
