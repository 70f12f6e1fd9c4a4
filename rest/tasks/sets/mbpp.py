"""MBPP and MBPP+: short Python functions (Austin et al., 2021, 2108.07732).

MBPP has no split field; its README splits by task_id: 1 to 10 are for prompts,
11 to 510 test, 511 to 600 validate, 601 to 974 train. MBPP+ (Liu et al., 2023)
re-tests 378 of all of these, so by default only those of the test range are
asked; 'all' holds 108 that MBPP trains on. Of the sanitized MBPP (427 problems
put more clearly) the same numbers decide.
"""

import re

from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem, Tests

_RANGES = {
  'train': range(601, 975),
  'validation': range(511, 601),
  'test': range(11, 511),
}


class Mbpp(ProblemSet):
  """Asked with problems 2, 3 and 4, in the words of its README."""

  name = 'mbpp'
  version = '1'
  verifier = 'program'
  stop = ('\n[DONE]', '[DONE]')
  example = r'(You are .*?)\n\[BEGIN\]\n(.*?)\n\[DONE\]'
  splits = ('train', 'validation', 'test')
  names = (
    *('mbpp.jsonl', 'mbpp.jsonl.gz', 'sanitized-mbpp.json', '*.parquet'),
    *('full/*.parquet', 'sanitized/*.parquet', 'data/*.parquet'),
  )
  download = (
    'mbpp/mbpp.jsonl of github.com/google-research/google-research (or'
    ' sanitized-mbpp.json, or a copy as parquet)'
  )

  def shots(self) -> str:
    return files.prompt_text('mbpp_3shot.txt')

  def read(self, split: str) -> list[Problem]:
    return [
      _problem(record)
      for record in self.records(*self.names)
      if self.variant == 'all' or record.integer('task_id') in _RANGES[split]
    ]

  def question(self, problem: Problem) -> str:
    text, blank, tests = problem.question.partition('\n\n')
    if not blank:
      raise ValueError(
        f'A question of {self.name} is a text, an empty line, and tests; got '
        f'{problem.question!r}.'
      )
    return (
      f'You are an expert Python programmer, and here is your task: {text} Your'
      f' code should pass these tests:\n\n{tests}\n[BEGIN]\n'
    )

  def statement(self, problem: Problem) -> str:
    return self.question(problem).removesuffix('[BEGIN]\n')


class MbppPlus(Mbpp):
  """Many more tests; asked as MBPP is. Only tests."""

  name = 'mbpp_plus'
  splits = ('test',)
  variants = ('test', 'all')
  names = (
    *('MbppPlus-OriginFmt.jsonl', 'MbppPlus-OriginFmt.jsonl.gz'),
    *files.names('test', 'data'),
  )
  download = (
    'MbppPlus-OriginFmt.jsonl.gz of github.com/evalplus/mbppplus_release (or'
    ' a copy as parquet)'
  )


def _problem(record: files.Record) -> Problem:
  """Reads a record of MBPP, of the sanitized MBPP, or of MBPP+."""
  shown = record.texts('test_list')
  if 'prompt' in record.fields:
    text, setup = record.text('prompt'), record.texts('test_imports')
  else:
    text, setup = record.text('text'), (record.text('test_setup_code'),)
  tests = (record.text('test'),) if 'test' in record.fields else shown
  solution = _lines(record.text('code'))
  return Problem(
    # MBPP+ keeps the numbers of MBPP: the same problem under other tests.
    id=f'mbpp/{record.integer("task_id")}',
    question=f'{text.strip()}\n\n{_lines(*shown)}',
    tests=Tests('assert', _lines(*setup, *tests), _function(solution, shown)),
    solution=solution,
  )


def _function(solution: str, shown: tuple[str, ...]) -> str:
  """Returns the function under test: only the tests name it in a question.

  Of the names called there, it is the first that the reference defines: others
  are helpers of the test, such as `set` or `math.isclose`.
  """
  called = re.findall(r'\b(\w+)\s*\(', '\n'.join(shown))
  defined = re.findall(r'^(?:def|class)\s+(\w+)', solution, re.MULTILINE)
  return next((name for name in called if name in defined), '')


def _lines(*texts: str) -> str:
  """Joins texts by lines that end as Python's do; MBPP has CRLF."""
  return '\n'.join(texts).replace('\r\n', '\n').strip('\n').rstrip()
