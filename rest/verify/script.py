"""What the text of a script of tests says, before any of it runs."""

import ast
import builtins
import collections
import importlib
import itertools
import symtable
import sys


def names(text: str) -> tuple[set[str], set[str]]:
  """Returns the global names that a script uses, and those that it binds."""
  used, bound = set(), set()
  tables = [symtable.symtable(text, 'tests', 'exec')]
  while tables:
    table = tables.pop()
    tables += table.get_children()
    for symbol in table.get_symbols():
      if table.get_type() != 'module' and not symbol.is_global():
        continue
      if symbol.is_referenced():
        used.add(symbol.get_name())
      if symbol.is_assigned():  # By imports and definitions, too.
        bound.add(symbol.get_name())
  return used, bound


def dotted(tree: ast.Module) -> set[str]:
  """Returns the names that have an attribute taken."""
  return {
    node.value.id
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
  }


def imported(tree: ast.Module) -> set[str]:
  """Imports what a script does; returns all that it says of modules.

  That is their names, and the attributes that it takes of them; and special
  attributes of anything.
  """
  said, modules = set(), set(sys.stdlib_module_names)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        said |= {*alias.name.split('.')}
        modules.add(alias.asname or alias.name.split('.')[0])
    elif isinstance(node, ast.ImportFrom):
      said |= {*(node.module or '').split('.'), *(x.name for x in node.names)}
  for node in tree.body:  # What stands in a `try` may fail.
    if isinstance(node, ast.Import):
      for alias in node.names:
        importlib.import_module(alias.name)
    elif isinstance(node, ast.ImportFrom):
      exec(
        compile(ast.Module([node], []), 'tests', 'exec'), {'__name__': 'tests'}
      )
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute):
      root = node.value
      while isinstance(root, ast.Attribute):
        root = root.value
      of_module = isinstance(root, ast.Name) and root.id in modules
      if of_module or node.attr.startswith('__'):
        said.add(node.attr)
  return said


def reached(tree: ast.Module, entry_point: str) -> set[str]:
  """Returns the names in code that a script can come to.

  A function that nothing names is never run; `check` is run by us.
  """
  bodies = collections.defaultdict(list)
  for node in ast.walk(tree):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      bodies[node.name].append(node)
  found: set[str] = set()
  new = {'check', entry_point} if entry_point else set()
  parts: list[ast.AST] = [
    node
    for node in tree.body
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef))
  ]
  while parts or new:
    found |= new
    parts += [node for name in new for node in bodies.pop(name, ())]
    nodes = itertools.chain.from_iterable(map(ast.walk, parts))
    new = {node.id for node in nodes if isinstance(node, ast.Name)} - found
    parts = []
  return found


def builtins_kept(used: set[str], entry_point: str) -> set[str]:
  """Returns the builtin names that the program may not redefine for the tests.

  A program's own `sum` is what some tests are about; a program's own `len`
  would spoil tests of something else. So a builtin name is the program's only
  where the script names nothing else that could be under test.
  """
  shadowed = {n for n in used if hasattr(builtins, n)} - {entry_point}
  if entry_point or len(shadowed) > 1 or used - shadowed:
    return shadowed
  return set()
