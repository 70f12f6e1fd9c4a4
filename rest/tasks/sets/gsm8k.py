"""GSM8K: 7,473 + 1,319 grade-school word problems (Cobbe et al., 2021)."""

import re

from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem


class Gsm8k(ProblemSet):
  """Asked with the eight chain-of-thought examples of Wei et al. (2022)."""

  name = 'gsm8k'
  version = '1'
  verifier = 'math'
  stop = ('\n\n\n', '\nQuestion:')
  example = r'Question: (.*?)\nAnswer: (.*?)\n\n\n'
  download = (
    'train.jsonl and test.jsonl of github.com/openai/grade-school-math'
    ' (grade_school_math/data), or a copy of them as parquet'
  )

  def shots(self) -> str:
    return files.prompt_text('gsm8k_8shot.txt').rstrip() + '\n\n\n'

  def read(self, split: str) -> list[Problem]:
    records = self.records(*files.names(split, 'main'))
    return [
      _problem(record, f'gsm8k/{split}/{index}')
      for index, record in enumerate(records)
    ]

  def question(self, problem: Problem) -> str:
    return f'Question: {problem.question}\nAnswer:'

  def target(self, problem: Problem) -> str:
    """Returns the solution as the examples would have written it."""
    steps = super().target(problem).rsplit('####', 1)[0].rstrip()
    # Marks such as <<3*4=12>> call a calculator that nobody has here.
    steps = re.sub(r'<<[^<>]*>>', '', steps)
    return f' {steps}\nThe answer is {problem.answer}.'


def _problem(record: files.Record, name: str) -> Problem:
  solution = record.text('answer')
  _, mark, answer = solution.rpartition('####')
  if not mark or not answer.strip():
    raise ValueError(
      f"{record.where}: field 'answer' must end in '#### ' and the result, got"
      f' ...{solution[-40:]!r}.'
    )
  return Problem(
    id=name,
    question=record.text('question'),
    answer=answer.strip().replace(',', ''),
    solution=solution,
  )
