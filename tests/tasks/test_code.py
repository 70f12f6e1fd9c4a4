"""Which part of an answer is judged: the program that it finally gives."""

import pathlib
import textwrap

import pytest

from rest import tasks, types
from rest.tasks.code import continuation, program

DATA = pathlib.Path(__file__).parents[1] / 'data' / 'tasks'

CALLS = types.Tests('assert', 'assert f(2) == 2', 'f')
READS = types.Tests('stdin', inputs=('2',), outputs=('2',))
F = 'def f(x):\n  return x'
DRAFT = 'def f(x):\n  return 0'
BODY = '    return x'
SUM = 'n = int(input())\nprint(n)'
DOCUMENTED = (
  'def f(x):\n  """As in\n\n  ```py\n  f(3)\n  ```\n  """\n  return x'
)


@pytest.mark.parametrize(
  'answer',
  [
    F,
    f'{F}\n```',
    f'{F}```\n',
    f'{F}\n```\nThis returns `x`.\n',
    f'Sure:\n```python\n{F}\n```\nDone.',
    f'Sure: ```py\n{F}```\nDone.',
    f'```\n{F}\n```',
    f'```{{.python}}\n{F}\n```',
    f'```python\r\n{F}\n```\r\n',
    f'```python\n{F}',
    f'```python\n{F}\n    ```\nDone, with a fence that stands too deep.',
    f'1. Write:\n   ```python\n{textwrap.indent(F, "   ")}\n   ```',
  ],
)
def test_the_program_is_found_with_fences_and_without(answer):
  assert program(answer, CALLS).strip() == F


@pytest.mark.parametrize(
  'answer',
  [
    f'```python\n{DRAFT}\n```\nNo:\n```python\n{F}\n```',
    f'```python\n{DRAFT}\n```\nNo:\n```\n{F}\n```',
    f'{DRAFT}\n```\nBetter:\n```python\n{F}\n```',
    f'```python\n{DRAFT}\nBetter:\n```python\n{F}\n```',
    f'```python\nimport math\n```\nThen:\n```python\n{F}\n```',
  ],
)
def test_of_several_programs_the_last_counts(answer):
  assert program(answer, CALLS) == F


@pytest.mark.parametrize(
  'more',
  [
    'Use it:\n```python\nprint(f(3))\n```\nOutput:\n```\n3\n```',
    'Test it:\n```python\ndef test_f():\n  assert f(2) == 2\n```',
    'Run it:\n```bash\npip install f\npython f.py\n```',
    '```text\nf(3) = 3\n```',
    'In C:\n```c\nint f(int x) { return x; }\n```',
    'A wider one:\n```python\ndef f(x, y):\n  if',  # Cut off.
    'Call `f`, or ```f(3)```, in a sentence.',
    '```',
  ],
)
def test_what_is_no_program_does_not_take_its_place(more):
  for before in (f'```python\n{F}\n```', f'{F}\n```\nDone.\n```\nx\n```'):
    assert program(f'{before}\n\n{more}', CALLS) == F


def test_a_program_is_told_by_what_its_tests_need():
  one = 'class f:\n  pass'
  assert program(f'```\n{one}\n```\n```\nf()\n```', CALLS) == one
  one = 'f: object = lambda x: x'
  assert program(f'```\n{one}\n```\n```\nf(3) == 3\n```', CALLS) == one
  one = 'from m import g as f'
  assert program(f'```\n{one}\n```\n```\nf(3)\n```', CALLS) == one
  usage = '```python\nassert solve(3) == 3\n```\n```bash\npy a < stdin\n```'
  assert program(f'```python\n{SUM}\n```\n{usage}', READS) == SUM
  output = 'Input:\n```\n3\n```\nOutput:\n```\nSum = 3\n```'
  assert program(
    f'It reads stdin.\n```python\n{SUM}\n```\n{output}', READS
  ) == (SUM)
  constant = '```python\nprint(5)\n```\nOutput:\n```\n5\n```'
  assert program(constant, READS) == 'print(5)'


def test_thoughts_are_no_answer():
  thought = f'I try\n```python\n{DRAFT}\n```'
  answer = f'```python\n{F}\n```'
  assert program(f'<think>{thought}</think>\n{answer}', CALLS) == F
  assert program(f'{thought}\n</think>\n\n{F}', CALLS).strip() == F
  assert program(f'<think>a</think>{thought}</think>{answer}', CALLS) == F
  assert program(f'<think>\n{thought}\nThen', CALLS) == ''
  tags = 'def f(x):\n  return x.split("</think>")[0] + \'<think>\''
  assert program(tags, CALLS) == tags


def test_fences_inside_of_texts_are_no_ends():
  assert program(f'```python\n{DOCUMENTED}\n```\nDone.', CALLS) == DOCUMENTED
  assert program(f'```python\n{DOCUMENTED}', CALLS) == DOCUMENTED
  assert program(DOCUMENTED, CALLS) == DOCUMENTED
  assert program(f'{DOCUMENTED}\n```\nDone.', CALLS) == DOCUMENTED
  assert program(f'```markdown\n# F\n```python\n{F}\n```\n```', CALLS) == F
  assert program(f'````markdown\n```python\n{F}\n```\n````', CALLS) == F
  quoted = "def f(x):\n  return f'```{x}```'"
  assert program(f'```python\n{quoted}\n```', CALLS) == quoted


@pytest.mark.parametrize(
  'answer',
  [
    BODY,
    f'{BODY}\n```',
    f'{BODY}```',
    f'{BODY}\n```\nThis returns x.',
    f'{BODY}\n```\n\nUse it:\n```python\nprint(f(3))\n```\n```\n    3\n```',
    f'```\n \n{BODY}\n```\nUse it:\n```python\nprint(f(3))\n```',
    f'```python\n{BODY}\n```\nOutput:\n```\n    3\n```',
    f'    ```python\n{BODY}\n    ```\n',
  ],
)
def test_a_body_goes_on_the_head_of_its_function(answer):
  assert continuation(answer, CALLS).strip() == BODY.strip()


def test_a_function_written_anew_replaces_its_body():
  answer = f'{BODY}\n```\nIn full:\n```python\n{F}\n```\n'
  assert continuation(answer, CALLS) == F


@pytest.mark.parametrize('name', ['mbpp', 'humaneval', 'apps'])
def test_human_solutions_come_back_whole(name):
  task = tasks.make(
    tasks.TaskConfig(name, str(DATA / name), num_validation=0, split='')
  )
  for problem in [p for s in tasks.SPLITS for p in task.problems(s)]:
    target = task.target(problem)
    expected = task.program(problem, target)
    assert expected.endswith(target)
    for answer in (
      f'```python\n{target}\n```',
      f'Here it is:\n\n```py\n{target}\n```\nIt prints:\n```\n1 2\n```',
      f'{target}\n```',
      f'<think>```python\nprint(input())\n```</think>```\n{target}\n```',
    ):
      assert task.program(problem, answer) == expected
