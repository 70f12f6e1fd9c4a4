"""Evaluation: the E-step's sampling and judging, with nothing kept to train on.

pass@1 is greedy, as in the paper. pass@k and maj@k are estimated from samples,
with the settings of the paper's figure 5 by default.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from etils import epath

from rest import metrics
from rest.config import EvaluateConfig
from rest.e_step.draw import Timing, Tools, draw, draw_missing, prepare
from rest.run import processes, scores, store
from rest.tasks.problem_set import choose
from rest.types import Graded, Problem
from rest.verify.answers import EXTRACT


@dataclass(frozen=True, slots=True)
class Evaluation:
  """Scores of one model on one list of problems; shares are in 0..1.

  Attributes:
    problems: Problems judged; those with an unknown verdict are left out.
    unknown: Problems left out.
    pass_1: Share solved greedily, with its 95 % Wilson interval.
    low: The interval's lower end.
    high: The interval's upper end.
    unfinished: Share of greedy completions cut by the length limit.
    unreadable: Ids of the problems, among those judged, whose greedy completion
      holds no answer or no program.
    mean_tokens: Mean length of greedy completions.
    levels: pass@1 by level.
    subjects: pass@1 by subject.
    pass_at_k: pass@k by k.
    maj_at_k: Majority vote over all the samples, without problems that have no
      verdict; None where there is none.
    scores: By problem id, whether the greedy completion is correct.
    halves: By problem id, the share of correct ones among the samples of even
      and of odd number: one half can sort problems by difficulty, and the other
      measure them, without the sorting's luck.
  """

  problems: int
  unknown: int
  pass_1: float
  low: float
  high: float
  unfinished: float
  unreadable: tuple[str, ...]
  mean_tokens: float
  levels: dict[str, float]
  subjects: dict[str, float]
  pass_at_k: dict[str, float]
  maj_at_k: float | None
  scores: dict[str, float]
  halves: dict[str, tuple[float, float]]


def evaluate(
  tools: Tools,
  problems: Sequence[Problem],
  config: EvaluateConfig,
  folder: epath.Path,
  title: str,
  temperature: float = 0.0,
) -> Evaluation:
  """Measures the sampler's current weights; resumable like the E-step.

  Args:
    tools: The sampler holds the model.
    problems: What it is measured on.
    config: What is measured beside greedy pass@1.
    folder: Gets the samples, a part a problem.
    title: Of the progress bars.
    temperature: Of the completion that pass@1 is.
  """
  drawn = draw_missing(
    tools,
    problems,
    1,
    store.Parts(folder / 'greedy'),
    Timing(),
    key='greedy',
    title=title,
    temperature=temperature,
  )
  greedy = {index: row for index, (row,) in drawn}
  sampled = ({}, None, {})
  if config.num_samples:
    sampled = _sampled(tools, problems, config, folder, title)
  asked = [(problems[index], greedy[index]) for index in sorted(greedy)]
  return _score(asked, *sampled)


def prepare_lists(
  tools: Tools, config: EvaluateConfig, temperature: float = 0.0
) -> None:
  """Has the programs of `evaluate` compiled behind what is drawn before it."""
  prepare(tools, 1, temperature=temperature)
  if config.num_samples:
    prepare(tools, config.num_samples, **_choice(config))


def accuracy(tools: Tools, problems: Sequence[Problem], title: str) -> float:
  """Returns the share that the sampler's current weights solve greedily.

  Nothing goes to disk: this is what the M-step stops on.

  Raises:
    Preempted: `tools.should_stop` said so.
  """
  correct = judged = 0
  graded = draw(
    *(tools, problems, range(len(problems)), 1, Timing(), 'greedy', title),
    temperature=0.0,
  )
  # In the M-step, another mesh is set: that of all processes.
  with jax.set_mesh(tools.mesh):
    for _, (row,) in graded:
      if row.verdict.reward is not None:
        judged += 1
        correct += row.verdict.reward == 1.0
  correct, judged = processes.totals(correct, judged)
  return correct / max(1, judged)


def asked_often(
  problems: Sequence[Problem], config: EvaluateConfig
) -> list[Problem]:
  """Returns the problems that are sampled for pass@k: some at random.

  Published sets are in order, as MATH's test is of its subjects.
  """
  count = min(config.num_problems or len(problems), len(problems))
  return choose([*problems], count, 'eval.num_problems', 0)


def _sampled(
  tools: Tools,
  problems: Sequence[Problem],
  config: EvaluateConfig,
  folder: epath.Path,
  title: str,
) -> tuple[dict[str, float], float | None, dict[str, tuple[float, float]]]:
  """Returns pass@k, maj@k and halves, as in `Evaluation`."""
  subset = asked_often(problems, config)
  drawn = draw_missing(
    tools,
    subset,
    config.num_samples,
    store.Parts(folder / 'sampled'),
    Timing(),
    key='evaluation',
    title=f'{title}, {config.num_samples} samples',
    **_choice(config),
  )
  by_index: dict[int, list[Graded]] = {}

  def as_drawn() -> Iterator[list[Graded]]:
    for index, rows in drawn:
      by_index[index] = [*map(_without_tokens, rows)]
      yield by_index[index]

  if tools.task.verifier in EXTRACT:
    votes = scores.majority(as_drawn(), tools.graders)
  else:  # Programs have no answer to vote on.
    votes = None
    deque(as_drawn(), maxlen=0)
  groups = [by_index[index] for index in sorted(by_index)]
  counts = scores.count(groups)
  pass_at_k = {
    str(k): _mean(scores.pass_at(counts, k).values()) for k in config.pass_k
  }
  names = [rows[0].problem_id for rows in groups]
  maj_at_k = None
  if votes is not None:
    maj_at_k = _mean([votes[name] for name in names if name in votes])
  halves = dict(zip(names, map(_halves, groups), strict=True))
  return pass_at_k, maj_at_k, halves


def _choice(config: EvaluateConfig) -> dict[str, Any]:
  """Returns how the tokens of samples are chosen, as `Sampler.draw` has it."""
  names = ('temperature', 'top_k', 'top_p')
  return {name: getattr(config, name) for name in names}


def _without_tokens(row: Graded) -> Graded:
  """Returns what scores look at; the tokens would take ten times its memory."""
  return replace(row, completion=replace(row.completion, tokens=()))


def _score(
  asked: Sequence[tuple[Problem, Graded]],
  pass_at_k: dict[str, float],
  maj_at_k: float | None,
  halves: dict[str, tuple[float, float]],
) -> Evaluation:
  levels: defaultdict[str, list[float]] = defaultdict(list)
  subjects: defaultdict[str, list[float]] = defaultdict(list)
  by_problem: dict[str, float] = {}
  rows = [row for _, row in asked]
  for problem, row in asked:
    if row.verdict.reward is None:
      continue
    by_problem[problem.id] = row.verdict.reward
    if problem.level:
      levels[problem.level].append(row.verdict.reward)
    if problem.subject:
      subjects[problem.subject].append(row.verdict.reward)
  low, high = metrics.interval(sum(by_problem.values()), len(by_problem))
  count = max(1, len(rows))
  return Evaluation(
    problems=len(by_problem),
    unknown=len(rows) - len(by_problem),
    pass_1=_mean(by_problem.values()),
    low=low,
    high=high,
    unfinished=sum(not row.finished for row in rows) / count,
    unreadable=tuple(
      row.problem_id
      for row in rows
      if row.problem_id in by_problem and not row.verdict.readable
    ),
    mean_tokens=sum(len(row.completion.tokens) for row in rows) / count,
    levels={name: _mean(levels[name]) for name in sorted(levels)},
    subjects={name: _mean(subjects[name]) for name in sorted(subjects)},
    pass_at_k=pass_at_k,
    maj_at_k=maj_at_k,
    scores=by_problem,
    halves=halves,
  )


def _mean(values: Collection[float]) -> float:
  return sum(values) / max(1, len(values))


def _halves(rows: Sequence[Graded]) -> tuple[float, float]:
  even, odd = (
    _mean([row.verdict.reward == 1.0 for row in rows if row.sample % 2 == side])
    for side in (0, 1)
  )
  return even, odd
