"""The house keeps itself: rooms and floors, README's tree, commands, tests."""

import ast
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest

from rest.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
REST = ROOT / 'rest'
# From top to bottom: a room imports only from floors below its own.
GUIDE = (ROOT / 'CONTRIBUTING.md').read_text().split('\n## Where things are\n')
TABLE = GUIDE[1].split('\n\n')[1]
FLOORS = [line.replace('*', '').split() for line in TABLE.splitlines()]
HOST = re.findall(r'(\w+)\*', TABLE)
# Rooms within the verifier, which is large; from bottom to top.
VERIFY_FLOORS = (
  ('sandbox', 'child', 'exact', 'user_file'),
  ('math', 'reward'),
  ('request',),
  ('pool',),
  ('answers', 'program'),
  ('worker',),
)
# In these packages, what is about devices.
DEVICE_FILES = tuple(
  f'run/{name}.py' for name in ('opened', 'phase', 'processes', 'progress')
)
# In the others, what is not.
HOST_FILES = (
  *('model/tokenizer.py', 'model/hardware.py', 'use/card.py'),
  *('e_step/choose.py', 'e_step/verdicts.py', 'model/completion.py'),
  *('e_step/grader.py', 'e_step/graders.py'),
  *('e_step/summary.py', 'experiment/compare.py', 'experiment/share.py'),
)
DEVICE_LIBRARIES = {'jax', 'flax', 'optax', 'orbax', 'tensorflow'}

FILES = {path.relative_to(REST).as_posix(): path for path in REST.rglob('*.py')}
DOCUMENTS = [
  *ROOT.glob('*.md'),
  *(path for path in ROOT.glob('[!.]*/**/*.md') if 'results' not in path.parts),
  *ROOT.glob('bench/*.py'),
  *ROOT.glob('colab/*.ipynb'),
  *ROOT.glob('configs/**/*.py'),
  *ROOT.glob('launch/*.sh'),
  *REST.rglob('*.py'),
]


def _room(file: str) -> str:
  return file.split('/')[0].removesuffix('.py')


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


def _is_program(module: str) -> bool:
  path = ROOT / module.replace('.', '/')
  return path.with_suffix('.py').exists() or (path / '__main__.py').exists()


def _find(pattern: str) -> Iterator[tuple[str, str]]:
  """Yields what documents say of this pattern, with their names."""
  for path in DOCUMENTS:
    for found in re.findall(pattern, path.read_text()):
      yield path.relative_to(ROOT).as_posix(), found


def test_a_house_has_sixteen_rooms_and_every_room_a_floor():
  rooms = {_room(file) for file in FILES} - {'__init__', '__main__'}
  assert rooms == {room for floor in FLOORS for room in floor}
  assert len(rooms) <= 16


@pytest.mark.parametrize('file', sorted(FILES))
def test_imports_run_downward(file: str):
  if file.endswith('__main__.py'):
    return  # It stands on top of all: nobody imports it.
  height = {room: -i for i, floor in enumerate(FLOORS) for room in floor}
  own = _room(file)
  for name in _imports(FILES[file]):
    package, _, room = f'{name}.'.partition('.')
    room = room.split('.')[0]
    if package == 'rest' and room in height and room != own:
      assert own != '__init__', name
      assert height[room] < height[own], name


@pytest.mark.parametrize(
  'file', sorted(file for file in FILES if _room(file) == 'verify')
)
def test_imports_run_downward_in_the_verifier(file: str):
  height = {room: i for i, floor in enumerate(VERIFY_FLOORS) for room in floor}
  own = _room(file.removeprefix('verify/'))
  if own.startswith('__'):
    return  # The package's face, and its program.
  for name in _imports(FILES[file]):
    room = name.removeprefix('rest.verify.').split('.')[0]
    if name.startswith('rest.verify.') and room in height and room != own:
      assert height[room] < height[own], name


def _is_host(file: str) -> bool:
  return (
    _room(file) in HOST and file not in DEVICE_FILES
  ) or file in HOST_FILES


@pytest.mark.parametrize('file', sorted(filter(_is_host, FILES)))
def test_the_host_wing_imports_no_device_library(file: str):
  names = _imports(FILES[file])
  assert not {name.split('.')[0] for name in names} & DEVICE_LIBRARIES
  for name in names:
    path = name.removeprefix('rest.').replace('.', '/')
    for used in (f'{path}.py', f'{path}/__init__.py'):
      assert used not in FILES or _is_host(used) or not _imports(FILES[used]), (
        used
      )


@pytest.mark.parametrize(
  ('library', 'owners'),
  [('orbax', {'model'}), ('ml_collections', {'main', 'use'})],
)
def test_one_room_knows_a_library(library: str, owners: set[str]):
  users = {
    _room(file)
    for file in FILES
    if any(name.split('.')[0] == library for name in _imports(FILES[file]))
  }
  assert users <= owners


def test_readme_tells_every_room_in_its_own_words():
  readme = (ROOT / 'README.md').read_text()
  tree = readme.split('\n    rest/\n')[1].split('\n    tests/')[0]
  said = dict(line.split(maxsplit=1) for line in tree.splitlines())
  rooms = {}
  for path in REST.iterdir():
    source = path / '__init__.py' if path.is_dir() else path
    if path.name not in ('__init__.py', '__main__.py') and source.exists():
      name = path.name + '/' * path.is_dir()
      doc = ast.get_docstring(ast.parse(source.read_text()))
      rooms[name] = doc and doc.splitlines()[0]
  assert said == rooms


def test_every_folder_of_code_is_a_package():
  folders = {path.parent for path in FILES.values()}
  assert all((folder / '__init__.py').exists() for folder in folders)


def test_tests_stand_where_the_code_stands():
  for folder in (ROOT / 'tests').iterdir():
    if folder.is_dir() and folder.name not in ('data', '__pycache__'):
      assert (REST / folder.name).is_dir(), folder.name


def test_commands_are_listed_and_told_in_readme():
  packages = {
    f'rest.{_room(file)}' for file in FILES if file.endswith('/__main__.py')
  }
  assert packages <= set(COMMANDS)
  readme = (ROOT / 'README.md').read_text()
  for name in COMMANDS:
    assert _is_program(name), name
    assert f'`{name}`' in readme, name


def test_documents_name_only_what_is_there():
  modules = set(_find(r'python3? -m ((?:rest|bench)(?:\.\w+)*)'))
  assert len(modules) > 40
  for where, module in modules:
    assert _is_program(module), f'{where}: python -m {module}'
  folders = 'rest|tests|configs|bench|launch|docs|colab'
  for where, name in set(_find(rf'(?<![\w/.])((?:{folders})/[\w/]+\.\w+)')):
    if 'NAME' not in name:
      assert (ROOT / name).exists(), f'{where}: {name}'
  configs = {path.name for path in ROOT.glob('configs/**/*.py')} | {'NAME.py'}
  for name in ('README.md', 'docs/experiments.md'):
    text = (ROOT / name).read_text()
    assert set(re.findall(r'`(\w+\.py)(?::\w+)?`', text)) <= configs, name


def test_what_strings_and_notebooks_import_is_there():
  pattern = r'(?m)^[ "\']*from (rest(?:\.\w+)*) import (\w[\w, ]*)'
  tests = [(p.name, p.read_text()) for p in ROOT.glob('tests/**/*.py')]
  books = [(p.name, p.read_text()) for p in ROOT.glob('colab/*.ipynb')]
  for where, text in tests + books:
    for module, names in re.findall(pattern, text):
      path = ROOT / module.replace('.', '/')
      source = (
        path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
      )
      for name in re.findall(r'\w+', names.split(' as ')[0]):
        inside = (path / f'{name}.py').exists() or (path / name).is_dir()
        known = inside or re.search(rf'\b{name}\b', source.read_text())
        assert known, f'{where}: from {module} import {name}'


def test_configs_import_nothing_of_rest_but_its_config():
  for path in sorted((ROOT / 'configs').rglob('*.py')):
    for name in _imports(path):
      package, _, room = name.partition('.')
      assert package != 'rest' or _room(room.replace('.', '/')) == 'config'


def test_the_config_needs_python_alone():
  tops = {name.split('.')[0] for name in _imports(REST / 'config.py')}
  assert tops <= sys.stdlib_module_names
