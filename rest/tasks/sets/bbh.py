"""BIG-Bench Hard: 27 tasks, 6,511 questions (Suzgun et al., 2022, 2210.09261).

Only tests; never to be trained on (the files carry a canary).
"""

import re

from rest.config import TaskConfig
from rest.tasks import files
from rest.tasks.problem_set import ProblemSet
from rest.types import Problem

TASKS = (
  'boolean_expressions',
  'causal_judgement',
  'date_understanding',
  'disambiguation_qa',
  'dyck_languages',
  'formal_fallacies',
  'geometric_shapes',
  'hyperbaton',
  'logical_deduction_five_objects',
  'logical_deduction_seven_objects',
  'logical_deduction_three_objects',
  'movie_recommendation',
  'multistep_arithmetic_two',
  'navigate',
  'object_counting',
  'penguins_in_a_table',
  'reasoning_about_colored_objects',
  'ruin_names',
  'salient_translation_error_detection',
  'snarks',
  'sports_understanding',
  'temporal_sequences',
  'tracking_shuffled_objects_five_objects',
  'tracking_shuffled_objects_seven_objects',
  'tracking_shuffled_objects_three_objects',
  'web_of_lies',
  'word_sorting',
)

_REASONING = re.compile(
  r"A: Let's think step by step\.\s"
  r'.*?So the answer is (.*?)\.(?=\n\nQ: |\s*\Z)',
  re.DOTALL,
)


class Bbh(ProblemSet):
  """Asked with three examples, that reason ('cot') or do not ('direct').

  Every task has examples of its own, so with all tasks they are part of the
  question; with one task they are the prefix, which is cheaper to sample.
  """

  name = 'bbh'
  # 1 had no stop text for an answer's empty line; 2 let direct answers go on
  # behind their line.
  version = '3'
  verifier = 'exact'
  stop = ('\n\n', '\nQ:')  # No example has an empty line in its answer.
  splits = ('test',)
  prompts = ('cot', 'direct')
  variants = ('all', *TASKS)
  download = (
    'the folder bbh of github.com/suzgunmirac/BIG-Bench-Hard (27 files .json,'
    ' or their examples as .jsonl or parquet)'
  )

  def __init__(self, config: TaskConfig):
    super().__init__(config)
    if self.prompt == 'direct':  # Models that were taught to explain go on.
      self.stop = ('\n',)
    if self.variant != 'all':
      self.prefix = shots(self.variant, self.prompt)

  def read(self, split: str) -> list[Problem]:
    tasks = TASKS if self.variant == 'all' else (self.variant,)
    return [
      Problem(
        id=f'bbh/{task}/{index}',
        question=record.text('input'),
        answer=record.text('target'),
        subject=task,
      )
      for task in tasks
      for index, record in enumerate(self.records(*_names(task)))
    ]

  def question(self, problem: Problem) -> str:
    before = '' if self.prefix else shots(problem.subject, self.prompt)
    begin = " Let's think step by step.\n" if self.prompt == 'cot' else ''
    return f'{before}Q: {problem.question}\nA:{begin}'


def shots(task: str, prompt: str) -> str:
  """Returns what stands before a task's question: instruction and examples."""
  text = files.prompt_text(f'bbh/{task}.txt')
  text = text.split('-----\n', 1)[1].rstrip()  # After the canary.
  if prompt == 'direct':
    text = _REASONING.sub(r'A: \1', text)
  return text + '\n\n'


def _names(task: str) -> tuple[str, ...]:
  return (
    *(f'{task}.jsonl', f'{task}.json', f'bbh/{task}.json'),
    *(f'{task}.parquet', f'{task}/*.parquet'),
  )
