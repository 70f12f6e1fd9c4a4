"""The Hungarian national finals in mathematics of 2023: graded by hand.

33 problems without answers (Paster, 2023: keirp/hungarian_national_hs_finals_
exam). A verifier can only say 'unknown' of them: write a sheet with
`python -m rest.tasks sheet` and grade that. The 1-shot prompt of the paper is
not published; the example here is ours.
"""

import csv
import io
from collections.abc import Iterable

from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.tasks.sets.math import EXAMPLE, STOP, ask
from rest.types import Problem


class HungarianExam(ProblemSet):
  """Asked as MATH is, with one example."""

  name = 'hungarian_exam'
  version = '2'  # 1 let answers go on behind the phrase that ends the example.
  verifier = 'math'
  stop = STOP
  example = EXAMPLE
  splits = ('test',)
  download = 'test.jsonl of keirp/hungarian_national_hs_finals_exam'

  def shots(self) -> str:
    return files.prompt_text('hungarian_exam_1shot.txt') + '\n'

  def read(self, split: str) -> list[Problem]:
    return [
      Problem(
        id=f'hungarian_exam/{record.integer("idx")}',
        question=record.text('problem'),
      )
      for record in self.records(*files.names('test'))
    ]

  def question(self, problem: Problem) -> str:
    return ask(problem.question)


def sheet(problems: list[Problem], answers: Iterable[tuple[str, str]]) -> str:
  """Returns CSV to grade by hand: a row an answer, points left empty.

  Args:
    problems: What was asked.
    answers: Problem ids with completions, in any order.

  Raises:
    ValueError: An answer is to no problem of these.
  """
  order = {problem.id: index for index, problem in enumerate(problems)}
  given = list(answers)
  strangers = sorted({name for name, _ in given if name not in order})
  if strangers:
    raise ValueError(f'Answers to problems of another set: {strangers[:3]}.')
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(['id', 'problem', 'answer', 'points', 'of', 'remark'])
  for name, text in sorted(given, key=lambda answer: order[answer[0]]):
    writer.writerow([name, problems[order[name]].question, text, '', '', ''])
  return file.getvalue()
