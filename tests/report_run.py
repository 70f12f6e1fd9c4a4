"""A small run made of files alone, for tests of the report."""

import pathlib

from rest.config import EStepConfig
from rest.e_step.choose import choose, to_kept
from rest.e_step.summary import Tally
from rest.model import tokenizer
from rest.run import store
from rest.run.dataset import to_lines
from rest.types import Completion, Graded, Problem, Verdict

HOSTILE = (
  '</script><img src=x onerror="console.error(\'run\')"><b>bold</b> &amp; '
  '<!-- {{index}}'
)
TEX = r'So $\frac{3}{4}$ of $8$ is \boxed{6}.'
SAMPLES, CAP = 4, 2
ROOT = pathlib.Path(__file__).parent.parent
CODEC = tokenizer.load(str(ROOT / 'rest/model/assets/arithmetic-1m'))


def write_run(workdir: pathlib.Path, problems: int = 6) -> pathlib.Path:
  """Writes a run of two iterations; problem 0 says what HOSTILE says."""
  asked = [
    Problem(
      id=f'set/{i}',
      question=HOSTILE if i == 0 else f'What is {i} plus {i}?',
      answer=str(2 * i),
      solution=TEX,
      level=f'{1 + i % 3}',
    )
    for i in range(problems)
  ]
  splits = {'train': asked, 'test': asked}
  store.write_problems(workdir / 'problems.jsonl', splits)
  config = {
    'task.name': '<i>set</i>',
    'estep.cap': CAP,
    'estep.distinct': 'text',
  }
  record = {'config': config, 'device': '2 x cpu', 'versions': {'jax': '1'}}
  store.write_json(workdir / 'run.json', record)
  for iteration in range(3):
    folder = workdir / f'iteration_{iteration}'
    if iteration:
      _write_e_step(folder, asked, iteration)
    _write_test(folder, asked, iteration)
  (workdir / 'metrics.jsonl').write_text(
    '{"kind": "train", "iteration": 1, "step": 1, "loss": 3.0}\n'
    '{"kind": "train", "iteration": 1, "step": 1, "loss": 2.0}\n'
    '{"kind": "phase/sample", "iteration": 1, "seconds": 4.0, "tokens": 80}\n'
    '{"kind": "phase/sample", "iteration": 1, "seconds": 6.0, "tokens": 20}\n'
    '{"kind": "tr'
  )
  return workdir


def texts(index: int) -> list[str]:
  """Returns the samples of a problem: 0, 1 and 2 are right, 1 as 0 is."""
  return [TEX, TEX, f'Another way: {2 * index}.', f'{HOSTILE} {index}']


def graded(
  problem_id: str, sample: int, text: str, right: bool = True
) -> Graded:
  """Returns a sample that an end token has ended."""
  tokens = (*CODEC.encode(text, follows=True), CODEC.eos[0])
  completion = Completion(text, tokens, (-1.0,) * len(tokens), 'token')
  reason = 'same value' if right else 'different'
  verdict = Verdict(float(right), reason, 'math-1')
  return Graded(problem_id, sample, 'What is it?', completion, verdict)


def _write_e_step(
  folder: pathlib.Path, problems: list[Problem], iteration: int
) -> None:
  counts = Tally()
  parts, kept = store.Parts(folder / 'parts'), []
  for index, problem in enumerate(problems):
    # The model of iteration 1 solves every second problem, that of 2 all.
    solves = iteration == 2 or index % 2 == 0
    rows = [
      graded(problem.id, sample, text, right=solves and sample < 3)
      for sample, text in enumerate(texts(index))
    ]
    choices = choose(rows, EStepConfig(cap=CAP))
    counts.add(choices)
    parts.write(index, rows)
    kept += [to_kept(choice.row) for choice in choices if choice.kept]
  summary = counts.summary()
  fields = {name: getattr(summary, name) for name in summary.__slots__}
  store.write_json(folder / 'e_step.json', fields)
  path = folder / 'dataset.jsonl'
  path.write_text(to_lines(kept, CODEC, path))


def _write_test(
  folder: pathlib.Path, problems: list[Problem], iteration: int
) -> None:
  scores = {
    problem.id: float(index % 3 < iteration)
    for index, problem in enumerate(problems)
  }
  parts = store.Parts(folder / 'test' / 'greedy')
  for index, problem in enumerate(problems):
    right = scores[problem.id] == 1.0
    text = f'Greedy {iteration}'
    parts.write(index, [graded(problem.id, 0, text, right)])
  share = sum(scores.values()) / len(scores)
  test = {
    'problems': len(scores),
    'unknown': 0,
    'pass_1': share,
    'low': max(0.0, share - 0.1),
    'high': min(1.0, share + 0.1),
    'unfinished': 0.0,
    'unreadable': [problems[-1].id],
    'mean_tokens': 5.0,
    'levels': {'1': share, '2': share, '<u>3</u>': share},
    'subjects': {},
    'pass_at_k': {'1': share, '4': share},
    'maj_at_k': share,
    'scores': scores,
  }
  store.write_json(folder / 'test.json', test)
  store.write_json(folder / 'suites' / 'other-set.json', test)
  store.write_json(folder / 'validation.json', test)
