"""APPS: programming problems with hidden tests (Hendrycks et al., 2021).

The paper uses the introductory ones and trains on 2,342 of the 2,639 published
without saying which. We keep all that can be used: to train, those with a test
and a human solution that compiles; to test, those with a test. Asked in the
words of APPS, with two examples of our own since the paper's are unpublished.
"""

import json
import warnings
from collections.abc import Iterator
from typing import Any

from etils import epath

from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem, Tests

# What APPS' own harness puts before functions, and more: LeetCode's use such
# names unimported.
_PREAMBLE = """\
import bisect, collections, fractions, functools, heapq, itertools, math
import random, re, string, sys, time
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
"""

# A folder's files, and the names that their texts have in JSON lines.
_FILES = {
  'question.txt': 'question',
  'solutions.json': 'solutions',
  'input_output.json': 'input_output',
  'starter_code.py': 'starter_code',
}


class Apps(ProblemSet):
  """Asked for a program (standard input) or a function (call)."""

  name = 'apps'
  version = '2'  # 1 put imports before programs, which hid builtins.
  verifier = 'program'
  stop = ('\n\nQUESTION:', '\nQUESTION:')
  example = r'QUESTION:\n(.*?)\n\nANSWER:\n(.*?)(?=\n\nQUESTION:|\s*\Z)'
  variants = ('introductory', 'interview', 'competition', 'all')
  download = (
    'APPS.tar.gz from github.com/hendrycks/apps (folders train/ and test/ with'
    ' a folder for each problem), or train.jsonl and test.jsonl, or a copy as'
    ' parquet'
  )

  def shots(self) -> str:
    return files.prompt_text('apps_2shot.txt')

  def read(self, split: str) -> list[Problem]:
    problems = []
    for record in self.records(*files.names(split, 'data', 'all'), split):
      if self.variant not in ('all', record.text('difficulty')):
        continue
      problem = _problem(record, split)
      usable = problem.tests and (problem.solution or split == 'test')
      if usable:
        problems.append(problem)
    return problems

  def read_folder(self, folder: epath.Path) -> Iterator[files.Record]:
    """Yields the original layout, a folder a problem."""
    for problem in sorted(path for path in folder.iterdir() if path.is_dir()):
      metadata = problem / 'metadata.json'
      if not metadata.exists():
        raise ValueError(f'{problem}: metadata.json is missing.')
      if not problem.name.isdigit():
        raise ValueError(f'{problem}: a folder must be named by a number.')
      record = files.parse(metadata.read_bytes(), str(metadata))
      fields = {**record.fields, 'problem_id': int(problem.name)}
      for file, field in _FILES.items():
        path = problem / file
        # Texts but the question are absent where there is nothing to say.
        is_there = file == 'question.txt' or path.exists()
        fields[field] = path.read_text() if is_there else ''
      yield files.Record(fields, str(problem))

  def statement(self, problem: Problem) -> str:
    text = problem.question.removeprefix('\nQUESTION:\n')
    return text.removesuffix('\nANSWER:\n')


def _problem(record: files.Record, split: str) -> Problem:
  # Where there is nothing to say, some copies have null.
  fields = {k: '' if v is None else v for k, v in record.fields.items()}
  record = files.Record(fields, record.where)
  # The Hugging Face copy says `id`.
  name = 'problem_id' if 'problem_id' in record.fields else 'id'
  tests = _tests(record)
  starter = record.text('starter_code')
  kind = 'call' if tests and tests.kind == 'call' else 'stdin'
  way = 'Call-Based' if kind == 'call' else 'Standard Input'
  solutions = _solutions(record)
  return Problem(
    id=f'apps/{split}/{record.integer(name)}',
    question=(
      f'\nQUESTION:\n{record.text("question")}\n{starter}\nUse {way} format\n'
      '\nANSWER:\n'
    ),
    tests=tests,
    solution=next(filter(_compiles, solutions), None),
    level=record.text('difficulty'),
    subject=kind,
  )


def _solutions(record: files.Record) -> list[str]:
  solutions = _json(record, 'solutions') or []
  if not isinstance(solutions, list) or not all(
    isinstance(solution, str) for solution in solutions
  ):
    raise ValueError(
      f"{record.where}: field 'solutions' must be a list of texts, got"
      f' {solutions!r:.60}.'
    )
  return solutions


def _compiles(program: str) -> bool:
  """Whether this is Python 3; some published solutions are not."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Of escapes such as '\\d'.
    try:
      compile(program, 'solution', 'exec')
    except (SyntaxError, ValueError, RecursionError):
      return False
  return True


def _tests(record: files.Record) -> Tests | None:
  """Returns the hidden tests, or None where a problem has none."""
  cases = _json(record, 'input_output') or {}
  if not isinstance(cases, dict):
    raise ValueError(
      f"{record.where}: field 'input_output' must be an object, got"
      f' {cases!r:.60}.'
    )
  inputs, outputs = cases.get('inputs') or [], cases.get('outputs') or []
  if not inputs:
    return None
  if len(inputs) != len(outputs):
    raise ValueError(
      f"{record.where}: field 'input_output' has {len(inputs)} inputs but"
      f' {len(outputs)} outputs.'
    )
  if not cases.get('fn_name'):
    return Tests(
      kind='stdin',
      inputs=tuple(map(_text, inputs)),
      outputs=tuple(map(_text, outputs)),
    )
  wrapped = all(isinstance(o, list) and len(o) == 1 for o in outputs)
  # Codewars' results stand in a list of one, LeetCode's do not.
  if wrapped and 'class Solution' not in record.text('starter_code'):
    outputs = [output[0] for output in outputs]
  with files.long_integers():
    return Tests(
      kind='call',
      entry_point=cases['fn_name'],
      preamble=_PREAMBLE,
      inputs=tuple(map(json.dumps, inputs)),
      outputs=tuple(map(json.dumps, outputs)),
    )


def _text(case: str | list[Any]) -> str:
  """Returns a case of standard input or output; some are lists of lines."""
  return case if isinstance(case, str) else '\n'.join(map(str, case))


def _json(record: files.Record, field: str) -> Any:
  """Returns a field that is JSON inside of JSON; None where it is empty.

  Some copies have the value itself.
  """
  if isinstance(record.fields.get(field), list | dict):
    return record.fields[field]
  text = record.text(field)
  if not text.strip():
    return None
  return files.load(text, f'{record.where}: field {field!r}')
