r"""MATH: 12,500 competition problems, answers in \boxed{} (Hendrycks, 2021).

Splits: 'original' is 7,500/5,000; 'prm800k' is 12,000/500 (Lightman et al.,
2023), whose test problems are MATH500 and whose train problems hold 4,500 of
the original test: never compare a model trained on it on all 5,000. 'math500'
is that test split alone.
"""

import json
from collections.abc import Iterator

from etils import epath

from rest.config import TaskConfig
from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.tasks.sets import math_ids
from rest.types import Problem

# What is asked, and what is answered, in a text of problems.
EXAMPLE = r'Problem:\n(.*?)\n\nSolution:\n?(.*?)\n\n(?=Problem:|\Z)'

# Every example ends in the phrase, and models talk on behind it: of a 1.5B's
# answers 69 % were cut off at 512 tokens, 26 % with the phrase among these.
STOP = ('I hope it is correct.', '\n\nProblem:', '\nProblem:')

# Problems with an empty box.
_CORRECTED = {
  'train/number_theory/7115': '0',
  'train/number_theory/7117': '0',
}


class Math(ProblemSet):
  """Asked with the four examples of Minerva (Lewkowycz et al., 2022)."""

  name = 'math'
  version = '2'  # 1 let answers go on behind the phrase that ends each example.
  verifier = 'math'
  stop = STOP
  example = EXAMPLE
  variants = ('original', 'prm800k', 'math500')
  download = (
    'MATH.tar from github.com/hendrycks/math (folders train/ and test/ with a'
    ' folder for each subject), or train.jsonl and test.jsonl, or a copy as'
    ' parquet (math500.jsonl: prm800k/math_splits/test.jsonl of'
    ' github.com/openai/prm800k)'
  )

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if self.variant == 'math500':
      self.splits = ('test',)

  def shots(self) -> str:
    shots = files.prompt_text('minerva_math_4shot.jsonl').splitlines()
    return ''.join(
      f'{ask(shot["problem"])}\n{shot["solution"]}\n\n'
      for shot in map(json.loads, shots)
    )

  def read(self, split: str) -> list[Problem]:
    if self.variant == 'original':
      return self._original(split)
    records = self.records('math500.jsonl', 'math500.parquet')
    test = [_problem(record) for record in records]
    if split == 'test':
      return test
    held_out = {problem.id for problem in test}
    every = self._original('train') + self._original('test')
    return [problem for problem in every if problem.id not in held_out]

  def read_folder(self, folder: epath.Path) -> Iterator[files.Record]:
    """Yields Hendrycks' tree, a file a problem, by subject and number."""
    subjects = sorted(path for path in folder.iterdir() if path.is_dir())
    for subject in subjects:
      problems = [p for p in subject.iterdir() if p.suffix == '.json']
      for path in sorted(problems, key=lambda p: (len(p.stem), p.stem)):
        record = files.parse(path.read_bytes(), str(path))
        name = f'{folder.name}/{subject.name}/{path.name}'
        yield files.Record({**record.fields, 'unique_id': name}, record.where)
    if not subjects:
      raise ValueError(f'{folder}: no folders of subjects in it.')

  def question(self, problem: Problem) -> str:
    return ask(problem.question)

  def target(self, problem: Problem) -> str:
    """Returns the solution as the examples would have ended it."""
    return (
      f'\n{problem.solution}\nFinal Answer: The final answer is'
      f' ${problem.answer}$. I hope it is correct.'
    )

  def _original(self, split: str) -> list[Problem]:
    records = list(self.records(*files.names(split, 'data', '*'), split))
    if not all('unique_id' in record.fields for record in records):
      records = math_ids.named(records, split)
    return [_problem(record) for record in records]


def ask(problem: str) -> str:
  """Returns Minerva's way to put a problem."""
  return f'Problem:\n{problem}\n\nSolution:'


def last_boxed(solution: str) -> str | None:
  r"""Returns what the last \boxed or \fbox holds, or None without one."""
  start = max(solution.rfind('\\boxed'), solution.rfind('\\fbox'))
  if start < 0:
    return None
  rest = solution[start:].removeprefix('\\boxed').removeprefix('\\fbox')
  if not rest.startswith('{'):
    return rest.split('$')[0].strip()  # As in `$\boxed 2$`.
  depth = 0
  for index, character in enumerate(rest):
    # Braces of sets are written \{ and come in pairs as well.
    depth += (character == '{') - (character == '}')
    if depth == 0:
      return rest[1:index].strip()
  return None


def _problem(record: files.Record) -> Problem:
  """Reads a record of Hendrycks (type, 'Level 3') or PRM800K (subject, 3)."""
  name = record.text('unique_id').removesuffix('.json')
  solution = record.text('solution')
  answer = _CORRECTED.get(name) or last_boxed(solution)
  if not answer:
    raise ValueError(
      f"{record.where}: field 'solution' has no answer in \\boxed{{}}."
    )
  if 'subject' in record.fields:
    subject, level = record.text('subject'), str(record.integer('level'))
  else:
    subject, level = record.text('type'), record.text('level')
  return Problem(
    id=f'math/{name}',
    question=record.text('problem'),
    answer=answer,
    solution=solution,
    level=level.removeprefix('Level '),
    subject=subject,
  )
