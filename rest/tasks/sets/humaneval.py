"""HumanEval and HumanEval+: 164 functions to complete, zero-shot.

Chen et al., 2021 (arXiv 2107.03374); Liu et al., 2023 (arXiv 2305.01210). Both
only test. The published test of HumanEval/32 in HumanEval+ v0.1.10 is broken:
its own reference fails.
"""

from rest.tasks import code, files
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem, Tests


class HumanEval(ProblemSet):
  """The function's head and docstring are asked; its body is answered."""

  name = 'humaneval'
  version = '2'  # 1 let programs redefine the helpers that tests rest on.
  verifier = 'program'
  prompts = ('zero_shot',)
  splits = ('test',)
  # What follows the function, after Chen et al.
  stop = ('\nclass ', '\ndef ', '\n#', '\nif ', '\nprint(')
  names = (
    *('HumanEval.jsonl', 'HumanEval.jsonl.gz'),
    *files.names('test', 'openai_humaneval'),
  )
  download = (
    'data/HumanEval.jsonl.gz of github.com/openai/human-eval (or a copy as'
    ' parquet)'
  )

  def read(self, split: str) -> list[Problem]:
    return [_problem(record) for record in self.records(*self.names)]

  def program(self, problem: Problem, completion: str) -> str:
    assert problem.tests is not None  # Every record has some.
    return problem.question + code.continuation(completion, problem.tests)

  def statement(self, problem: Problem) -> str:
    return f'Complete this function:\n\n```python\n{problem.question}```'


class HumanEvalPlus(HumanEval):
  """The same problems with many more tests."""

  name = 'humaneval_plus'
  names = (
    'HumanEvalPlus-OriginFmt.jsonl',
    'HumanEvalPlus-OriginFmt.jsonl.gz',
    *files.names('test', 'data'),
  )
  download = (
    'HumanEvalPlus-OriginFmt.jsonl.gz of'
    ' github.com/evalplus/humanevalplus_release (or a copy as parquet)'
  )


def _problem(record: files.Record) -> Problem:
  prompt, entry_point = record.text('prompt'), record.text('entry_point')
  # Some tests call a function that the prompt gives beside the one to complete,
  # such as `poly` of HumanEval/32: theirs, whatever a completion calls so.
  given = prompt.partition(f'def {entry_point}(')[0]
  helpers = f'{given}\n' if 'def ' in given else ''
  return Problem(
    id=record.text('task_id'),
    question=prompt,
    tests=Tests(
      kind='assert',
      script=helpers + record.text('test'),
      entry_point=entry_point,
    ),
    solution=record.text('canonical_solution'),
  )
