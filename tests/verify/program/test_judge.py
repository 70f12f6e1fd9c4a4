"""The program verifier: right verdicts, and nothing gets out of the sandbox."""

import collections
import concurrent.futures
import contextlib
import datetime
import decimal
import fractions
import json
import os
import pathlib
import queue
import tracemalloc
from collections.abc import Iterator

import pytest

from rest import types
from rest.verify import program
from rest.verify.program import compare, reader, sharing, wire
from rest.verify.program.judge import ProgramConfig, ProgramJudge
from rest.verify.sandbox import sandbox

_PROGRAMS = pathlib.Path(__file__).parents[2] / 'data' / 'programs'
_SMALL = ProgramConfig(
  cpu_seconds=1,
  total_cpu_seconds=3,
  memory_mib=256,
  processes=16,
  file_mib=1,
)
_TESTS = {
  'assert': types.Tests(
    'assert',
    'import math\n'
    'def check(candidate):\n'
    '  assert candidate(1, 2) == 3\n'
    '  assert abs(candidate(4, 5) - 9) < 1e-6\n'
    '  assert math.isclose(candidate(7, 8), 15)\n'
    '  assert candidate(20, 1) in [21]\n',
    'add',
  ),
  # What is drawn is no value, so that this one runs.
  'linked': types.Tests(
    'assert',
    'import math, random\n'
    'def check(candidate):\n'
    '  for i, (a, b) in enumerate(zip(range(1, 4), sorted([2, 5, 8]))):\n'
    '    assert candidate(a, b) == a + b, round(i)\n'
    '  a, b = random.randint(3, 99), random.randint(3, 99)\n'
    '  assert abs(candidate(a, b) - a - b) < 1e-6\n'
    '  assert math.isclose(candidate(7, 8), 15)\n'
    '  assert candidate(b, b) in [2 * b] and candidate(a, 1) in {a + 1}\n'
    '  assert all(candidate(i, 5) == i + 5 for i in range(2))\n'
    '  assert {candidate(i, 1) for i in range(3)} == set([1, 2, 3])\n',
    'add',
  ),
  'stdin': types.Tests('stdin', inputs=('1 2\n', '4 5'), outputs=('3\n', '9')),
  'call': types.Tests(
    'call', entry_point='add', inputs=('[1, 2]', '[4, 5]'), outputs=('3', '9')
  ),
}
_LANES = 8  # Sandboxes that the many programs share: sleepers overlap.


def _read(name: str) -> Iterator[tuple[str, str, str, list[str]]]:
  """Yields name, program, kind and possible reasons of every program."""
  text = (_PROGRAMS / name).read_text()
  for part in text.split('### ')[1:]:
    head, _, source = part.partition('\n')
    title, kinds, *reasons = [x.strip() for x in head.split('|')]
    for kind in kinds.replace('assert', 'assert linked').split():
      yield title, source, kind, reasons[0].split() if reasons else ['passed']


@pytest.fixture(scope='module')
def lanes() -> Iterator[queue.Queue]:
  judges = [ProgramJudge(_SMALL) for _ in range(_LANES)]
  free: queue.Queue = queue.Queue()
  for judge in judges:
    free.put(judge)
  yield free
  for judge in judges:
    judge.close()


@pytest.fixture(scope='module')
def judge(lanes) -> Iterator[ProgramJudge]:
  own = lanes.get()
  yield own
  lanes.put(own)


def _survivors() -> list[str]:
  """Returns the processes of the users that our programs have run as."""
  first = sandbox.FIRST_USER + os.getpid() * sandbox.USERS
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(FileNotFoundError):
      if first <= path.stat().st_uid < first + sandbox.USERS:
        found.append(path.name)
  return found


def _judge_all(name: str, lanes: queue.Queue) -> list[str]:
  """Judges all programs of a file; returns what went wrong."""

  def one(case: tuple[str, str, str, list[str]]) -> str:
    title, source, kind, reasons = case
    judge = lanes.get()
    try:
      verdict = judge.judge(source, _TESTS[kind])
    finally:
      lanes.put(judge)
    right = verdict.reward == float(reasons == ['passed'])
    if right and verdict.reason in reasons:
      return ''
    return f'{title} ({kind}): {verdict.reward} {verdict.reason}'

  with concurrent.futures.ThreadPoolExecutor(_LANES) as threads:
    return [x for x in threads.map(one, _read(name)) if x]


def test_hostile_programs_never_pass_and_leave_nothing(lanes):
  assert _judge_all('hostile.txt', lanes) == []
  for place in ('/tmp', '/var/tmp', '/', '/etc', os.path.expanduser('~')):
    assert not os.path.exists(os.path.join(place, 'rest_was_here'))
  if os.getuid() == 0:
    assert _survivors() == []


def test_honest_programs_pass(lanes):
  assert _judge_all('honest.txt', lanes) == []


_FORGER = """
import json, os, struct, sys
def read(size):
  data = b''
  while len(data) < size:
    data += os.read(4, size - len(data)) or os._exit(0)
  return data
number = 0
while True:
  asked = json.loads(read(struct.unpack('!I', read(4))[0]))
  for answer in ANSWERS:
    number += 1
    answer = {'changes': [], 'printed': '', **answer}
    text = json.dumps(answer).replace('"NUMBER"', str(number))
    os.write(4, struct.pack('!I', len(text)) + text.encode())
"""
_YES = [  # An object of a class that can do everything.
  'NUMBER',
  {'o': ['NUMBER', 'Yes', [], ['__call__', '__eq__', '__bool__', '__iter__']]},
]
_FORGED: list[list[dict]] = [
  [{'value': True}],
  [{'value': None}],
  [{'value': 3}, {'value': 3}],
  [{'value': {'d': [[{'m': [0, 'l', []]}, 1]]}}],
  [{'value': {'m': [0, 'd', [['abs', 3], ['range', 3], ['add', 3]]]}}],
  [{'value': {'o': _YES}}],
  [{'value': {'o': [0]}}],
  [{'value': {'o': [0, {'n': 'int'}]}}],
  [{'value': {'o': [0, 'bool', [{'n': 'bool'}], []]}}],
  [{'value': {'o': [0, 'E', [{'n': 'AssertionError'}, {'n': 'int'}], 'xx']}}],
  [{'value': {'o': [0, '\x00', [], []]}}],
  [{'value': {'n': 'bool'}}],
  [{'value': {'n': 'object'}}],
  [{'value': {'n': 'exec'}}],
  [{'value': {'n': '__import__'}}],
  [{'value': {'c': 0}}],
  [{'value': {'c': -1}}],
  [{'value': {'module': 'os'}}],
  [{'value': {'module': 'rest.verify.tester'}}],
  [{'value': {'module': 'msvcrt'}}],
  [{'value': {'exception': ['os', '_exit']}}],
  [{'value': {'exception': ['rest.verify.remote', 'Unfit']}}],
  [{'value': {'exception': ['decimal', 'Inexact']}}],
  [{'value': {'L': 3}}],
  [{'value': {'L': 1 << 60}}, {'value': [3] * 1000}],
  [{'value': {'L': -1}}],
  [{'value': {'T': [['a'], [1], '\x00']}}],
  [{'value': {'a': ['O', [1], [1]]}}],
  [{'value': {'i': '0x3'}}],
  [{'value': {'b': ['range', [0, 1 << 60, 1]]}}],
  [{'value': {'I': [3]}}],
  [{'value': {'r': 0}}],
  [{'value': {'m': [0, 'l', [{'r': 0}]]}}],
  [{'raise': [None, {'n': 'AssertionError'}, []]}],
  [{'raise': [None, {'n': 'StopIteration'}, [3]]}],
  [{'raise': [None, {'n': 'SystemExit'}, [0]]}],
  [{'raise': [None, {'n': 'KeyboardInterrupt'}, []]}],
  [{'raise': [None, {'n': 'ImportError'}, ['math']]}],
  [{'raise': [None, {'n': 'SyntaxError'}, []]}],
  [{'raise': [None, {'n': 'KeyError'}, ['abs']]}],
  [{'raise': [None, {'n': 'NameError'}, []]}],
  [{'raise': [None, {'n': 'MemoryError'}, []]}],
  [{'raise': [None, {'n': 'int'}, [3]]}],
  [{'raise': [None, {'exception': ['rest.verify.remote', 'Unfit']}, []]}],
  [{'raise': [{'o': _YES}, {'n': 'ValueError'}, []]}],
  [{'raise': [3, 3, 3]}],
  [{'raise': 3}],
  [{}],
  [{'back': 0, 'args': [], 'named': {}}],
  [{'back': -1, 'args': ['passed'], 'named': {}}],
  [{'back': 'exit', 'args': 3}],
  [{'value': 3, 'changes': [[0, [3]]]}],
  [{'value': 3, 'changes': [[-1, [3]]]}],
  [{'value': 3, 'changes': 3}],
  [{'value': 3, 'changes': [3]}],
  [{'value': 3, 'printed': 3}],
  [{'value': 3, 'printed': 'passed'}],
  [{'value': 3, 'id': 0, 'passed': True, 'outcome': 'passed'}],
]


def test_a_right_value_passes_whoever_sends_it(judge):
  source = _FORGER.replace('ANSWERS', repr([{'value': 3}]))
  script = 'import random\nassert x == 3'
  verdict = judge.judge(source, types.Tests('assert', script))
  assert verdict.reason == 'passed'


@pytest.mark.parametrize('answers', _FORGED)
def test_no_message_of_the_link_can_be_forged(judge, answers):
  source = _FORGER.replace('ANSWERS', repr(answers))
  for script in (
    _TESTS['linked'].script,
    # One that hands over a list and a function, and looks into what it gets.
    'def check(candidate):\n'
    '  given = [5]\n'
    '  try:\n'
    '    got = candidate(given, lambda: given.append(1))\n'
    '  except ValueError:\n'
    '    got = 2\n'
    '  assert given == [5, 7] and len(got) == 2 and got[0] == 5',
  ):
    verdict = judge.judge(source, types.Tests('assert', script, 'add'))
    assert verdict.reward == 0
    assert verdict.reason in ('wrong', 'error', 'timeout', 'memory')


@pytest.mark.parametrize(
  ('output', 'expected', 'same'),
  [
    ('3', '3\n', True),
    ('  1  2 \n\n 3', '1 2\n3\n', True),
    ('1 2 3', '1 2\n3', False),
    ('2 1', '1 2', False),
    ('yes', 'YES', False),
    ('0.3333333', '0.33333333', True),
    ('0.3334', '0.3333', False),
    ('3.0', '3', False),  # Integers are exact.
    ('3', '3.0', True),
    ('50000000000000000', '50000000000000001', False),
    ('nan', '0.5', False),
    ('1e3', '1000.0', True),
    ('', '', True),
    ('', '0', False),
  ],
)
def test_output_is_compared_by_words_and_reals_by_value(output, expected, same):
  assert compare.prints(output.encode(), expected) == same


@pytest.mark.parametrize(
  ('result', 'expected', 'same'),
  [
    (3, '3', True),
    (3.0, '3', True),
    (True, '1', False),
    (1, 'true', False),
    ((1, [2]), '[1, [2]]', True),
    ([1, 2], '[2, 1]', False),
    (5, '[5]', True),  # Results in a list of one.
    ([5], '[[5]]', True),
    ({1: 'a'}, '{"1": "a"}', True),
    ({1: 'a'}, '{"1": "a", "2": "b"}', False),
    ({1, 2}, '[1, 2]', False),
    (0.1 + 0.2, '0.3', True),
    (10**30, str(10**30), True),
    ([10**5000], '[1' + '0' * 5000 + ']', True),
    (10**30 + 1, str(10**30), False),
    ('3', '3', False),
    (None, 'null', True),
    ('', 'null', False),
  ],
)
def test_results_are_compared_by_value(result, expected, same):
  tree = json.loads(wire.dump(wire.Values().encode(result)))
  assert compare.returns(tree, expected) == same


@pytest.mark.parametrize(
  'value',
  [
    None,
    -(2**70),
    1.5,
    float('-inf'),
    'a\ud800b',
    [1, [2, (3,)], {'a': {1: {2}}}],
    frozenset({1, 'b'}),
    collections.Counter('aab'),
    collections.OrderedDict(a=1),
    collections.deque([1, 2]),
    b'\x00\xff',
    bytearray(b'x'),
    3 + 4j,
    range(1, 9, 2),
    fractions.Fraction(1, 3),
    decimal.Decimal('1.10'),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.timedelta(days=1, microseconds=3),
    int,
  ],
)
def test_data_crosses_unchanged(value):
  for make in (wire.Values, sharing.SharedValues):
    text = wire.dump(make().encode(value))
    back = make().decode(json.loads(text))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
  'tree',
  [
    {'n': 'exec'},
    {'n': 'missing'},
    {'i': 'zz'},
    {'s': [{'t': [[]]}]},
    {'b': ['Popen', []]},
    {'d': [[1]]},
    {'a': ['O', [1], [1]]},
    {'d': [], 's': []},
    {'t': 3},
    {'T': [['a'], [1], '\x00']},
    {'no data': 'object'},
  ],
)
def test_what_is_no_data_does_not_cross(tree):
  for values in (wire.Values(), sharing.SharedValues()):
    with pytest.raises(wire.Violation):
      values.decode(tree)


@pytest.mark.parametrize(
  'tree',
  [
    [1],
    {'d': []},
    {'r': 0},
    {'m': [1, 'l', []]},
    {'m': [0, 't', []]},
    {'m': [0, 'l', {'r': 1}]},
    {'m': [0.0, 'x', []]},
    {'m': [0]},
  ],
)
def test_shared_containers_come_in_their_turn(tree):
  with pytest.raises(wire.Violation):
    sharing.SharedValues().decode(tree)


def test_containers_are_the_same_on_both_sides():
  ours, theirs = sharing.SharedValues(), sharing.SharedValues()
  inner = [3, 1]
  outer = {'a': inner, 'b': (inner, {1})}
  copy = theirs.decode(ours.encode([outer, inner]))
  ours.settle()
  theirs.settle()
  assert copy[0]['a'] is copy[1] is copy[0]['b'][0]
  copy[1].append(True)
  copy[0]['b'][1].clear()
  copy[0]['c'] = copy[0]
  changes = theirs.changes()
  ours.apply(changes)
  assert inner == [3, 1, True] and inner[2] is True
  assert outer['c'] is outer and outer['b'] == (inner, set())
  theirs.settle()
  ours.settle()
  assert theirs.changes() == ours.changes() == []
  ours.forget()
  with pytest.raises(wire.Violation):
    ours.apply(changes)


@pytest.mark.parametrize(
  ('source', 'script'),
  [
    # Arguments that the program changes are changed for the tests.
    (
      'def f(x, y):\n  x[0].append(5)\n  y.clear()\n  x.reverse()',
      'x, y = [[1], [2]], {1: 2}\nf(x, y)\nassert x == [[2], [1, 5]] and not y',
    ),
    ('def f(v): v.sort()', 'v = [3, 1, 2]\nf(v)\nassert v == [1, 2, 3]'),
    ('def f(*, v): v.sort()', 'v = [3, 1]\nf(v=v)\nassert v == [1, 3]'),
    ('def f(t): t[1].pop()', 'v = [3, 1]\nf((0, v))\nassert v == [3]'),
    ('def f(v): v.sort(); return v', 'v = [3, 1]\nassert f(v) is v'),
    (
      'def f(a, b):\n  a.append(1)\n  return a is b',
      'v = []\nassert f(v, v) and v == [1]',
    ),
    ('def f(v): v[0] = True', 'v = [1]\nf(v)\nassert v[0] is True'),
    ('def f(v): v[:] = map(abs, v)', 'v = [-1]*20000\nf(v)\nassert sum(v) > 9'),
    (
      'def f(v): return len(v)',
      'v = [1, 2]\nassert f(v) == 2\nassert len(v) > 1',
    ),
    (
      'kept = []\ndef f(v): kept.append(v)\ndef g(): kept[0].append(1)',
      'v = []\nf(v)\ng()\nassert v\nv.append(2)\nassert kept[0] == [1, 2]',
    ),
    ('n = 0\ndef f():\n  global n\n  n += 1', 'f()\nf()\nassert n == 2'),
    # Classes, their objects, and what tests do with those.
    (
      'class Stack:\n'
      '  def __init__(self, x): self.x = list(x)\n'
      '  def push(self, v): self.x.append(v); return self\n'
      '  def __len__(self): return len(self.x)\n'
      '  def __getitem__(self, i): return self.x[i]\n'
      '  def __eq__(self, other): return self.x == other.x\n'
      '  def __str__(self): return f"Stack({self.x})"',
      's = Stack([1]).push(2)\n'
      'assert len(s) == 2 and s[1] == 2 and s.x == [1, 2]\n'
      'assert list(s) == [1, 2] and 2 in s and str(s) == "Stack([1, 2])"\n'
      'assert s == Stack([1, 2]) and s != Stack([]) and s != [1, 2]\n'
      's.x = [7]\nassert s[0] == 7',
    ),
    (
      'class Node:\n  "A node."\n  count = 0\n  _number = 5\n'
      '  def __init__(self): Node.count += 1; self.x = 1\n'
      'class Leaf(Node): pass\ndef f(): return Leaf()',
      'assert isinstance(f(), Node) and issubclass(Leaf, Node)\n'
      'assert type(f()) is Leaf and type(f()).__name__ == "Leaf"\n'
      'assert Node.count == 3 and f()._number == 5\n'
      'assert Node.__doc__ == Node().__doc__ == "A node."\n'
      'assert not isinstance(f(), int) and f().__class__ is not Node\n'
      'assert vars(f()) == {"x": 1} and not hasattr(f(), "y")\n'
      'assert callable(f) and not callable(f()) and f.__name__ == "f"',
    ),
    ('class A: x = 5', 'assert A.x == 5'),
    ('class A: pass', 'assert A is not None'),
    (
      'class V:\n  def __init__(self, x): self.x = x\n'
      '  def __add__(self, other): return V(self.x + other.x)\n'
      '  def __eq__(self, other): return self.x == other.x\n'
      '  def __hash__(self): return hash(self.x)\n'
      '  def __contains__(self, x): return self.x == x',
      'assert V(1) + V(2) == V(3) and len({V(1), V(1)}) == 1\n'
      'assert V(1) in [V(1)] and 3 in V(3) and 4 not in V(3)',
    ),
    (
      'class V:\n  def __init__(self, x): self.x = x\n'
      '  def __mul__(self, n): return V(self.x * n)\n  __rmul__ = __mul__\n'
      '  def __radd__(self, n): return V(self.x + n)\n'
      '  def __add__(self, other): return V(self.x + other.x)\n'
      '  def __neg__(self): return V(-self.x)\n'
      '  def __eq__(self, other): return self.x == other.x\n'
      '  def __abs__(self): return abs(self.x)',
      'assert V(2) * 3 == V(6) == 3 * V(2) and sum([V(1), V(2)]) == V(3)\n'
      'assert -V(2) == V(-2) and abs(V(-3)) == 3',
    ),
    (
      'import enum\nclass C(enum.Enum):\n  A = 1\n  B = 2\ndef f(): return C.A',
      'assert f() is C.A and C.A == f() != C.B and C["B"].name == "B"\n'
      'assert list(C) == [C.A, C.B] and C.B.value == 2',
    ),
    (
      'from dataclasses import dataclass\n@dataclass(frozen=True)\n'
      'class P:\n  x: int',
      'p = P(3)\nassert p == P(3) and p.x == 3\ntry:\n  p.x = 4\n'
      'except AttributeError:\n  pass\nelse:\n  assert False',
    ),
    # Generators, functions that return functions, and callbacks.
    (
      'def count(n):\n  while True:\n    yield n\n    n += 1',
      'g = count(3)\nassert [next(g), next(g)] == [3, 4]',
    ),
    (
      'def f(n): yield from range(n)',
      'assert [*f(3)] == [0, 1, 2] and next(f(0), 7) == 7',
    ),
    (
      'def twice(f):\n  return lambda x: f(f(x))',
      'def more(x):\n  return x + 1\n'
      'assert twice(more)(1) == 3\nassert twice(twice(more))(1) == 5',
    ),
    (
      'def f(g): g(1)',
      'v = []\nf(v.append)\nf(lambda x: v.insert(0, 2))\nassert v == [2, 1]',
    ),
    # Exceptions keep their class, and what they carry.
    (
      'class Bad(ValueError): pass\ndef f(x):\n  raise Bad("no", x)',
      'try:\n  f(3)\nexcept ValueError as e:\n  assert e.args == ("no", 3)\n'
      'else:\n  assert False',
    ),
    (
      'class Bad(Exception):\n  def __init__(self, text, code):\n'
      '    super().__init__(text)\n    self.code = code\n'
      'class Worse(Bad): pass\ndef f(): raise Worse("no", 5)',
      'try:\n  f()\nexcept KeyError:\n  assert False\nexcept Bad as e:\n'
      '  assert e.code == 5 and str(e) == "no" and type(e) is Worse\n'
      'else:\n  assert False',
    ),
    (
      'import json, sys\ndef f(): json.loads("{")\ndef g(): sys.exit(3)',
      'import json\ntry:\n  f()\n  assert False\n'
      'except json.JSONDecodeError:\n  pass\ntry:\n  g()\n  assert False\n'
      'except SystemExit as e:\n  assert e.code == 3',
    ),
    # What a call prints is printed where the tests say.
    (
      'def f(x): print("hi", x)',
      'import contextlib, io\nout = io.StringIO()\n'
      'with contextlib.redirect_stdout(out):\n  f(3)\n'
      'assert out.getvalue() == "hi 3\\n"',
    ),
    (
      'import sys\ndef f(): sys.stdout.buffer.write(b"hi")',
      'import io, sys\nsys.stdout = out = io.StringIO()\nf()\n'
      'assert out.getvalue() == "hi"',
    ),
    # A builtin name that is under test, and modules of the tests' own.
    ('def sum(a, b):\n  return 6', 'assert sum(10, 15) == 6'),
    ('import sys\ndef f(): return 1', 'assert f() < sys.maxsize'),
    ('def f(*a, **k):\n  return a, k', 'assert f(1, b=2) == ((1,), {"b": 2})'),
    ('import re\nf = re.compile("a").match', 'assert f("ab").group() == "a"'),
    ('def f(x):\n  return {1: 2}.keys()', 'assert f(0) == {1}'),
    ('def f(t):\n  return t(3.7)', 'assert f(int) == 3'),
    ('x = [1, 2]', 'assert x == [1, 2]'),
    (
      'def f(x): return x',
      'from datetime import *\nt = datetime(2020, 1, 1, tzinfo=timezone.utc)\n'
      'assert f(t) == t and f(t).tzinfo == t.tzinfo',
    ),
    # A name that is the program's, though a function of the tests has it too.
    (
      'def f(x): return [x]',
      'def expected(x):\n  f = [x]\n  return f\nassert f(3) == expected(3)',
    ),
  ],
)
def test_tests_see_the_program_as_if_it_were_theirs(judge, source, script):
  verdict = judge.judge(source, types.Tests('assert', script))
  assert (verdict.reward, verdict.reason) == (1.0, 'passed')
  wrong = script.replace('assert ', 'assert not ').replace('not False', 'True')
  verdict = judge.judge(source, types.Tests('assert', wrong))
  assert (verdict.reward, verdict.reason) in [(0.0, 'wrong'), (1.0, 'passed')]


def test_no_object_is_near_a_number(judge):
  source = (
    'class V:\n  def __init__(self, x=0): pass\n'
    '  def length(self): return V()\n'
    '  def __sub__(self, other): return V()\n  __rsub__ = __sub__\n'
    '  def __abs__(self): return 0\n'
    '  __float__ = lambda self: 0.0\n  __int__ = __round__ = __abs__\n'
    '  __bool__ = lambda self: False\n  __len__ = __abs__\n'
    '  def __eq__(self, other): return True\n  __lt__ = __eq__\n'
  )
  for said in (
    'abs(V(3).length() - 3) < 1e-6',
    'abs(3 - V(3).length()) < 1e-6',
    'V(3).length() == 3',
    'V(3).length() - 3 < 1e-6',
    'not V(3).length() - 3',
    'float(V(3).length() - 3) == 0',
    'round(V(3).length() - 3) == 0',
    'V(3).length() in [3]',
  ):
    verdict = judge.judge(source, types.Tests('assert', f'assert {said}'))
    assert verdict.reward == 0


@pytest.mark.parametrize(
  'script',
  [
    'v = [3, 1]\nassert f(v) == sorted(v)',
    'rows = [[[3, 1]]]\ndef expected(v): return sorted(v)\n'
    'for row in rows:\n  assert f(*row) == expected(*row)',
  ],
)
def test_what_is_expected_is_computed_before_the_program_sees_it(judge, script):
  tests = types.Tests('assert', script)
  emptied = 'def f(v):\n  v.clear()\n  return []'
  assert judge.judge(emptied, tests).reason == 'wrong'
  assert judge.judge('def f(v):\n  v.sort()\n  return v', tests).reward == 1
  tests = types.Tests('assert', 'v = [3, 1]\nassert f(v) == len(v)')
  assert judge.judge('def f(v):\n  return v.pop()', tests).reward == 1


_SCRIPTS = [  # Of `f`, which gives back what it is given.
  'assert f(3) == 3 and f("a") == "a" and f(None) == None',
  'assert f(1) == True and f(True) == 1 and f(0) == False and f(1) == 1.0',
  'assert f(1) is True',
  'assert f(True) is True, "text" + str(f(3))',
  'assert f([1]) == (1,)',
  'assert f((1, [2])) == (1, [2])',
  'assert f({1: (2,), "a": {3}}) == {"a": {3}, 1: (2,)}',
  'assert f({1: 2}) == {"1": 2}',
  'assert f({1, (2, 3)}) == {(2, 3), 1.0}',
  'assert f({1, 2}) == {1}',
  'assert f({1}) == [1]',
  'assert f(frozenset([1])) == {1}',
  'assert f({frozenset([1]), 2}) == {2, frozenset({1})}',
  'assert f(10 ** 40) == 10 ** 40 and f(-(2 ** 63)) == -(2 ** 63)',
  'assert f(10 ** 40) == 10 ** 40 + 1',
  'assert f(float("nan")) == float("nan")',
  'assert f(float("-inf")) == -float("inf")',
  'assert f(b"x") == b"x" and f(1j) == 1j',
  'assert f(0.1 + 0.2) == 0.3',
  'assert abs(f(0.1 + 0.2) - 0.3) < 1e-9',
  'assert abs(f(4) - 3) < 1',
  'assert abs(f(4) - 3) <= 1',
  'assert abs(f("a") - 3) <= 1',
  'import math\nassert math.isclose(f(1.0), 1 + 1e-10)',
  'from math import isclose\nassert isclose(f(1.0), 1.1, rel_tol=0.2)',
  'import math\nassert math.isclose(f(1.0), 1.1, abs_tol=0.01)',
  'import math\nassert f(math.inf) == math.inf and f(math.pi) == math.pi',
  'assert f(3)',
  'assert f([])',
  'assert not f({})',
  'assert not f((0,))',
  'assert f(3) != 4',
  'assert f(3) != 3.0',
  'assert set(f([1, 2, 1])) == {1, 2} and sorted(f({2, 1})) == [1, 2]',
  'assert len(set(f("hello"))) == 4 and int(f(3.7)) == 3',
  'assert tuple(f([1])) == tuple([1]) and round(f(1.25), 1) == 1.2',
  'assert list(f(range(3))) == [0, 1, 2]',
  'x = [1, 2]\nassert f(x) == [1, 2]',
  'for x in range(3):\n  assert f(x + 1) == x + 1',
  'rows = [[1], [2]]\nfor i, (x, y) in enumerate(zip(rows, [1, 3])):\n'
  '  assert f(*x) == y',
  'def check(g):\n  "text"\n  assert g(1) == 1\n  assert True, "no"',
  'def check(g):\n  assert g(1) == 1\n  assert False',
  'f = 3\nassert f == 3',
]
_READ_NOT = [  # What says more than values.
  'v = [3]\nassert f(v) == [3]\nassert v == [3]',
  'v = [3]\nassert f((v, v)) == (v, v)',
  'import random\nassert f(random.random()) < 1',
  'assert f(3) == f(3)',
  'assert f(3) == str(f(3))',
  'assert f(x=3) == 3 or True',
  'def g(x): return x\nassert f(3) == g(3)',
  'str = 3\nassert f(3) == str(3)',
  'try:\n  assert f(3) == 4\nexcept AssertionError:\n  pass',
  'while f(0):\n  pass',
  'assert f(3) == 10 ** 10 ** 10',
  'assert f(3) == "a" * 10 ** 10',
  'assert f(3) == len(range(10 ** 10))',
  'assert f(3) == undefined',
  'assert True',
  'assert f(3) ==',
]


@pytest.mark.parametrize('script', _SCRIPTS)
def test_values_are_compared_as_python_compares_them(judge, script):
  source = 'def f(x): return x'
  names: dict = {}
  try:
    exec(source + '\n' + script, names)
    if 'check' in names:
      names['check'](names['f'])
  except (AssertionError, TypeError):
    expected = 0.0
  else:
    expected = 1.0
  tests = types.Tests('assert', script, 'f')
  assert reader.read(script, 'f') or 'f = 3' in script or 'False' in script
  if 'f = 3' in script:  # It is no test of the program.
    assert judge.judge(source, tests).reason == 'untested'
    return
  assert judge.judge(source, tests).reward == expected
  linked = judge._judge_linked(source, tests, 5)
  assert (linked == 'passed') == bool(expected)


@pytest.mark.parametrize('script', _READ_NOT)
def test_what_says_more_than_values_is_not_read(script):
  assert reader.read(script, 'f') == ()


def test_programs_are_judged_by_values_in_one_process(judge):
  source = 'n = 0\ndef f(x):\n  global n\n  n += 1\n  x.append(n)\n  return x'
  script = 'v = [[], [0]]\nfor x, y in zip(v, [[1], [0, 2]]):\n'
  tests = types.Tests('assert', script + '  assert f(x) == y')
  assert len(reader.read(tests.script)) == 2
  assert judge.judge(source, tests).reason == 'passed'


def test_keys_of_dictionaries_are_integers_again(judge):
  source = 'def f(d, e):\n  return {k + 1: v + e[0]["a"] for k, v in d.items()}'
  tests = types.Tests(
    'call',
    entry_point='f',
    inputs=('[{"1": 5, "-2": 7}, [{"a": 1}]]', '[{}, [{"a": 1, "2": 3}]]'),
    outputs=('{"2": 6, "-1": 8}', '{}'),
  )
  assert judge.judge(source, tests).reason == 'passed'


def test_long_outputs_are_compared_no_further_than_is_expected():
  many = ('1 ' * 1_000_000).encode()
  lines = b'1\n' * 1_000_000
  tracemalloc.start()
  for output in (many, lines, many + lines, b'1' * 8_000_000):
    assert not compare.prints(output, '1 1\n1')
    assert not compare.prints(output, '1.5')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 80_000_000  # Ten times the output.
  assert compare.prints(lines, '1\n' * 1_000_000)


@pytest.mark.parametrize(
  'script',
  [
    'assert True',
    'import sys, io\nsys.stdin = io.StringIO("1")\nassert add() == 1',
    'import random\nrandom.seed(3)\nassert add() == 1',
    'from unittest.mock import patch\nassert add(1, 2) == 3',
    'class Own: pass\nassert add(Own(), 1) is None',
    'class Own(add): pass\nassert Own()',
    'open("x", "w").write("1")\nassert add("x", "") == 1',
    'def test_add():\n  assert add(1, 2) == 4',
    'assert add(1, 2) ==',
    'import no_such_module\nassert add(1, 2) == 3',
  ],
)
def test_tests_that_test_nothing_give_no_verdict(judge, script):
  source = 'class add:\n  def __init__(self, *arguments): pass'
  verdict = judge.judge(source, types.Tests('assert', script))
  assert (verdict.reward, verdict.reason) == (None, 'untested')


@pytest.mark.parametrize(
  ('tests', 'field'),
  [
    (types.Tests('assert', ' \n'), 'Tests.script'),
    (types.Tests('stdin'), 'Tests.inputs'),
    (types.Tests('stdin', inputs=('1',)), 'Tests.inputs'),
    (types.Tests('call', inputs=('[1]',), outputs=('1',)), 'Tests.entry_point'),
    (
      types.Tests('call', entry_point='f', inputs=('1',), outputs=('1',)),
      'Tests.inputs',
    ),
    (
      types.Tests('call', entry_point='f', inputs=('[1]',), outputs=('x',)),
      'Tests.outputs',
    ),
  ],
)
def test_malformed_tests_are_refused_by_field(judge, tests, field):
  with pytest.raises(ValueError, match=field):
    judge.judge('', tests)


def test_programs_see_no_environment_and_the_same_hashes(judge):
  source = 'import os\nprint(dict(os.environ), hash("a"))'
  tests = types.Tests('stdin', inputs=('',), outputs=('',))
  outputs = set()
  for _ in range(3):
    _, output, _ = judge._run('script', source, '', 1)
    outputs.add(output)
  assert judge.judge(source, tests).reason == 'wrong'
  assert len(outputs) == 1
  assert outputs.pop().startswith(b'{} ')


def test_a_program_gets_its_seconds_whatever_the_clock_ticks_say(judge):
  # The kernel's limit counts ticks, and ends busy programs on busy hosts early.
  ended, _, reason = judge._run('script', 'while True: pass', '', 0.5)
  assert (ended.stopped, reason) == (True, 'timeout')
  assert ended.cpu >= 0.5


def test_a_program_finds_nothing_of_the_one_before(judge):
  leave = 'import os\nos.makedirs("a/b")\nopen("/dev/shm/x", "w").close()'
  look = 'import os\nprint(os.listdir("."), os.listdir("/dev/shm"))'
  empty = types.Tests('stdin', inputs=('',), outputs=('',))
  assert judge.judge(leave, empty).reason == 'passed'
  found = types.Tests('stdin', inputs=('',), outputs=('[] []',))
  if judge.level == 'namespaces':
    assert judge.judge(look, found).reason == 'passed'


def test_a_verdict_is_unknown_only_when_the_sandbox_fails_twice(judge):
  passing = 'def add(a, b):\n  return a + b'
  tests = _TESTS['assert']
  assert judge.judge(passing, tests).reward == 1
  judge._sandboxes['program']._process.kill()
  judge._sandboxes['tests']._process.kill()
  assert judge.judge(passing, tests).reward == 1


def test_run_keeps_its_sandbox(judge):
  tests = types.Tests('assert', 'assert add(1, 2) == 3')
  assert program.run('add = lambda a, b: a + b', tests).reward == 1
  assert program.run('add = lambda a, b: a - b', tests).reward == 0


def test_long_results_cross_whole(judge):
  source = (
    'def f(n):\n  return [(i, "x" * 50) for i in range(n)]\n'
    'def g():\n  return ["y" * 1000] * 30000\n'
    'def h():\n  return [("a", "b") * (i % 3) for i in range(20000)]'
  )
  script = (
    'for n in (9999, 10000, 10001, 25000):\n'
    '  assert f(n) == [(i, "x" * 50) for i in range(n)]\n'
    'assert g() == ["y" * 1000] * 30000\n'
    'assert h() == [("a", "b") * (i % 3) for i in range(20000)]'
  )
  verdict = judge.judge(source, types.Tests('assert', script))
  assert verdict.reason == 'passed'
  verdict = judge.judge(
    source, types.Tests('assert', script.replace('30000', '30001'))
  )
  assert verdict.reason == 'wrong'


def test_many_programs_leave_no_descriptor_process_or_folder(judge):
  def held() -> tuple[int, int]:
    children = pathlib.Path(f'/proc/{os.getpid()}/task').glob('*/children')
    processes = sum(len(path.read_text().split()) for path in children)
    return len(os.listdir('/proc/self/fd')), processes

  for kind in _TESTS:
    judge.judge('add = max', _TESTS[kind])
  before = held()
  for _ in range(30):
    for kind in _TESTS:
      judge.judge('def add(a, b):\n  return a + b', _TESTS[kind])
  assert held() == before
