"""What the text of a script of tests says, before any of it runs.

Decides which names are the program's, and what is computed before it sees its
arguments. Stops: a program's own `abs` or `range` in somebody else's tests, and
arguments emptied so that the tests expect nothing. Does not stop: tests that
look again, in a later statement, at what the program has made of them.
"""

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

  Invariant: what a script needs and this host lacks raises here, before the
  program is asked anything, so that no ImportError of a program looks like it.
  Example: `import os.path as p; assert f() == p.sep and g.__code__` says os,
  path, sep and __code__.
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


class ReferencesFirst(ast.NodeTransformer):
  """Computes what a test expects before the program sees the arguments.

  In `assert f(v) == sorted(v)` a program could empty `v` and answer nothing. So
  `sorted(v)` becomes a name that is bound before the statement, by a call with
  copies (`COPIED`), where something else is called with `v` as well. So does
  `expected(*row)`, a function of the tests; `size(v)` does not, which may ask
  what has become of `v`.
  """

  COPIED = '#copied'
  _READERS = ('sorted', 'sum', 'min', 'max', 'set')

  def __init__(self, tree: ast.Module):
    self._own = {
      node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }
    self._moved: list[ast.Call] = []
    self._bound: list[ast.stmt] = []

  def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
    return self._statement(node, node.test)

  def visit_Expr(self, node: ast.Expr) -> list[ast.stmt]:
    return self._statement(node, node.value)

  def _statement(self, node: ast.stmt, said: ast.expr) -> list[ast.stmt]:
    calls = [x for x in ast.walk(said) if isinstance(x, ast.Call)]
    own = [x for x in calls if self._is_reference(x)]
    seen = {
      name
      for x in calls
      if x not in own and _is_simple(x)
      for name in _given(x)
    }
    self._moved = [x for x in own if seen & _given(x)]
    if not self._moved or _is_conditional(said):
      return [node]
    self._bound = []
    self.generic_visit(node)
    return [*self._bound, node]

  def _is_reference(self, call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Name) or not _is_simple(call):
      return False
    name, row = call.func.id, any(isinstance(x, ast.Starred) for x in call.args)
    return name in self._own if row else name in self._READERS

  def visit_Call(self, node: ast.Call) -> ast.expr:
    if node not in self._moved:
      self.generic_visit(node)
      return node
    name = f'#{len(self._bound)}'
    copied = ast.Name(self.COPIED, ast.Load())
    value = ast.Call(copied, [node.func, *node.args], [])
    bind = ast.Assign([ast.Name(name, ast.Store())], value)
    self._bound.append(ast.copy_location(bind, node))
    ast.fix_missing_locations(bind)
    return ast.copy_location(ast.Name(name, ast.Load()), node)


def _given(call: ast.Call) -> set[str]:
  """Returns the names that a call hands over."""
  bare = [x.value if isinstance(x, ast.Starred) else x for x in call.args]
  return {x.id for x in bare if isinstance(x, ast.Name)}


def _is_simple(call: ast.Call) -> bool:
  bare = [x.value if isinstance(x, ast.Starred) else x for x in call.args]
  plain = all(isinstance(x, (ast.Name, ast.Constant)) for x in bare)
  return bool(bare) and plain and not call.keywords


def _is_conditional(said: ast.expr) -> bool:
  """Whether some of an expression may be evaluated later, or not at all."""
  kinds = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.comprehension)
  return any(isinstance(node, kinds) for node in ast.walk(said))


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
