"""MBPP and MBPP+: short Python functions (Austin et al., 2021, 2108.07732).

MBPP has no split field; its README splits by task_id: 1 to 10 are for prompts,
11 to 510 test, 511 to 600 validate, 601 to 974 train. MBPP+ (Liu et al., 2023)
re-tests 378 of all of these, so by default only those of the test range are
asked; 'all' holds 108 that MBPP trains on.
"""

from rest.tasks import files
from rest.tasks.code import unfenced
from rest.tasks.config import TaskConfig
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
  splits = ('train', 'validation', 'test')

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if self.prompt == 'few_shot':
      self.prefix = files.prompt_text('mbpp_3shot.txt')

  def read(self, split: str) -> list[Problem]:
    path = files.find(
      self.config.path,
      ('mbpp.jsonl',),
      'mbpp/mbpp.jsonl of github.com/google-research/google-research',
    )
    return [
      _mbpp(record)
      for record in files.read_jsonl(path)
      if record.integer('task_id') in _RANGES[split]
    ]

  def question(self, problem: Problem) -> str:
    text, tests = problem.question.split('\n\n', 1)
    return (
      f'You are an expert Python programmer, and here is your task: {text} Your'
      f' code should pass these tests:\n\n{tests}\n[BEGIN]\n'
    )

  def target(self, problem: Problem) -> str:
    assert problem.solution is not None  # Every record has one.
    return problem.solution

  def program(self, problem: Problem, completion: str) -> str:
    return unfenced(completion)


class MbppPlus(Mbpp):
  """Many more tests; asked as MBPP is. Only tests."""

  name = 'mbpp_plus'
  splits = ('test',)
  variants = ('test', 'all')

  def read(self, split: str) -> list[Problem]:
    path = files.find(
      self.config.path,
      ('MbppPlus-OriginFmt.jsonl', 'MbppPlus-OriginFmt.jsonl.gz'),
      'MbppPlus-OriginFmt.jsonl.gz of github.com/evalplus/mbppplus_release',
    )
    return [
      _mbpp_plus(record)
      for record in files.read_jsonl(path)
      if self.variant == 'all' or record.integer('task_id') in _RANGES['test']
    ]


def _mbpp(record: files.Record) -> Problem:
  tests = record.texts('test_list')
  return Problem(
    id=f'mbpp/{record.integer("task_id")}',
    question=_question(record.text('text'), tests),
    tests=Tests(
      kind='assert',
      script=_lines(record.text('test_setup_code'), *tests),
    ),
    solution=_lines(record.text('code')),
  )


def _mbpp_plus(record: files.Record) -> Problem:
  # The id of MBPP: the same problem under other tests.
  return Problem(
    id=f'mbpp/{record.integer("task_id")}',
    question=_question(record.text('prompt'), record.texts('test_list')),
    tests=Tests(
      kind='assert',
      script=_lines(*record.texts('test_imports'), record.text('test')),
    ),
    solution=_lines(record.text('code')),
  )


def _question(text: str, tests: tuple[str, ...]) -> str:
  """Returns the text and the shown tests: only they name the function."""
  return f'{text.strip()}\n\n{_lines(*tests)}'


def _lines(*texts: str) -> str:
  """Joins texts by lines that end as Python's do; MBPP has CRLF."""
  return '\n'.join(texts).replace('\r\n', '\n').strip('\n').rstrip()
