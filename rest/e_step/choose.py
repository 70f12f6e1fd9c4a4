"""What becomes of each sample: kept to train on, with a weight, or why not."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace

from etils import epath

from rest.config import EStepConfig
from rest.e_step.summary import (
  DUPLICATE,
  INCORRECT,
  KEPT,
  OUTVOTED,
  OVER_CAP,
  UNFINISHED,
  UNKNOWN,
  Choice,
  EStepSummary,
  Tally,
)
from rest.run import dataset, store
from rest.run.spool import Spool, spool
from rest.types import Graded, Halted, Kept, Tokenizer, answer_start
from rest.verify.answers import Judge, reader

# Gives the answers of texts, equal ones written alike and '' for none: see
# `rest.verify.answers.alike`.
Reader = Callable[[Sequence[str]], list[str]]

_SPACES = re.compile(r'\s')
# As in '3 + 4 * 2 = 11': numbers and operations, a sign, a number. What has no
# sign is matched as well, so that no part of it is looked at again.
_EQUATION = re.compile(r'[\d(][\d\s.,()%/*+\-]*+(=\s*-?[\d.,]*\d)?')


def choose(
  rows: Sequence[Graded],
  config: EStepConfig,
  answers: Reader | None = None,
) -> list[Choice]:
  """Returns what became of each sample of a problem, in order of sample.

  Kept are distinct, finished samples that weigh something. Where there are more
  than the cap, those of the largest weight are taken, and of equals the first
  by sample index. Samples are drawn independently, so these are a random
  choice; and they do not depend on which samples were quick.

  Invariant: what is seen before a sample, in order of choice, decides it; and
  of what is not kept, a wrong sample is told as wrong, whatever else it is.

  Example: 'a', 'a', 'b' (wrong), 'c' and 'd' with a cap of 2 are kept, a
  duplicate, incorrect, kept and over the cap.

  Args:
    rows: All samples of the problem, in any order.
    config: What is kept.
    answers: Gives the answers of texts for votes.
  """
  rows = sorted(rows, key=lambda row: row.sample)
  weights = weigh(rows, config.weight, answers)
  same = _SAMENESS[config.distinct]
  fates = [''] * len(rows)
  seen: set[object] = set()
  kept = 0
  for index in sorted(range(len(rows)), key=lambda i: -weights[i]):
    row = rows[index]
    text = row.answer if config.thoughts == 'cut' else row.completion.text
    common = same(text.strip()) if same else index
    if not row.finished:
      fate = UNFINISHED
    elif not weights[index]:
      fate = OUTVOTED
    elif common in seen:
      fate = DUPLICATE
    else:
      fate = OVER_CAP if kept == config.cap > 0 else KEPT
      kept += fate == KEPT
      seen.add(common)
    if fate != KEPT and row.verdict.reward != 1.0:
      fate = UNKNOWN if row.verdict.reward is None else INCORRECT
    fates[index] = fate
  return list(map(Choice, rows, weights, fates))


def make_dataset(
  groups: Iterable[tuple[int, Sequence[Graded]]],
  tokenizer: Tokenizer,
  config: EStepConfig,
  folder: epath.Path,
  max_unknown: float,
  judge: Judge,
) -> EStepSummary:
  """Writes dataset.jsonl and e_step.json.

  Samples stream by. What is kept of them waits on disk, since problems come in
  any order; all that stays in memory is a few numbers a problem.

  Args:
    groups: Each problem's index, and all its samples, in any order; those
      numbered `config.num_samples` and above were drawn with a hint, and count
      where no other is kept.
    tokenizer: Of the model that is to be trained.
    config: What is kept.
    folder: Of the iteration.
    max_unknown: Share of unknown verdicts above which this is an error.
    judge: Says which answers are equal, where they vote.

  Raises:
    Halted: Too many verdicts are unknown, or too many samples were cut off.
  """

  with spool(folder) as kept:
    path = folder / 'dataset.jsonl'
    summary, places = _keep(groups, kept, path, tokenizer, config, judge)
    if summary.unknown > max_unknown * summary.sampled:
      raise Halted(
        f'{summary.unknown} of {summary.sampled} verdicts are unknown, more '
        f'than verify.max_unknown={max_unknown} allows: {summary.reasons}. '
        'Nothing is lost: mend the verifier, delete the parts concerned, and '
        'run again.'
      )
    check_cut_off(summary.ended['limit'], summary.sampled, config.max_cut_off)
    store.write_json(folder / 'e_step.json', asdict(summary))
    lines = (kept.get(places[index]) for index in sorted(places))
    store.write_whole(path, lines)
  return summary


def _keep(
  groups: Iterable[tuple[int, Sequence[Graded]]],
  kept: Spool,
  path: epath.Path,
  tokenizer: Tokenizer,
  config: EStepConfig,
  judge: Judge,
) -> tuple[EStepSummary, dict[int, int]]:
  """Puts the lines of each problem into a spool; returns their places, too."""

  def keep(choice: Choice, hinted: bool = False) -> Kept:
    row = choice.row
    if config.thoughts == 'cut':
      row = cut_thoughts(row, tokenizer)
    return to_kept(row, choice.weight, hinted)

  places: dict[int, int] = {}
  tally = Tally()
  for index, group in groups:
    rows = [row for row in group if row.sample < config.num_samples]
    hinted = [row for row in group if row.sample >= config.num_samples]
    answers = reader(group, judge)
    choices = choose(rows, config, answers)
    chosen = [keep(choice) for choice in choices if choice.kept]
    hints = [] if chosen else choose(hinted, config, answers)
    from_hints = [keep(hint, hinted=True) for hint in hints if hint.kept]
    lines = dataset.to_lines(chosen + from_hints, tokenizer, path)
    places[index] = kept.put(lines)
    tally.add(choices, hinted=len(from_hints))
  return tally.summary(), places


def check_cut_off(cut_off: int, sampled: int, most: float) -> None:
  """Refuses to go on where too many samples do not come to their end."""
  if cut_off > most * sampled:
    raise Halted(
      f'{cut_off:,} of {sampled:,} samples were cut off at the length limit, '
      f'more than estep.max_cut_off={most} allows: only short answers would be '
      'learnt. Raise sampling.max_tokens (in another --workdir), or see in '
      'parts/ whether the model ever writes an end; raise estep.max_cut_off '
      'where this is as it should be. What was drawn is on disk.'
    )


def meets_cap(rows: Sequence[Graded], config: EStepConfig) -> bool:
  """Whether no further sample is to be drawn: none could enter the dataset."""
  if not config.stop_at_cap:
    return False
  return sum(choice.kept for choice in choose(rows, config)) == config.cap


def weigh(
  rows: Sequence[Graded],
  weight: str,
  answers: Reader | None = None,
) -> list[float]:
  """Returns f(r) of each sample of a problem; 0 where r is not known.

  Raises:
    ValueError: A vote was asked for where there are no answers.
  """
  rewards = [row.verdict.reward for row in rows]
  best = max((r for r in rewards if r is not None), default=0.0)
  if weight == 'majority':
    return _votes(rows, answers)
  f = {
    'identity': lambda r: r,
    'exponential': math.exp,
    'best': lambda r: float(r == best),
  }[weight]
  return [0.0 if r is None else f(r) for r in rewards]


def equations(text: str) -> tuple[str, ...] | str:
  """Returns the equations of a solution in order; the text if it has none."""
  found = tuple(
    _SPACES.sub('', match.group())
    for match in _EQUATION.finditer(text)
    if match.group(1)
  )
  return found or text


def cut_thoughts(row: Graded, tokenizer: Tokenizer) -> Graded:
  """Returns a finished sample as if its model had answered at once.

  The tokens are those that the answer is encoded to; thoughts that the prompt
  has opened are closed.
  """
  start = answer_start(row.prompt, row.completion.text)
  if not start:
    return row
  opened = answer_start(row.prompt, '') < 0
  text = ('</think>\n\n' if opened else '') + row.answer.lstrip()
  tokens = tokenizer.encode(text, follows=True)
  completion = replace(
    row.completion,
    # Some encoders normalize: see `rest.model.completion.complete`.
    text=tokenizer.decode(tokens, follows=True),
    tokens=(*tokens, row.completion.tokens[-1]),
    logprobs=(),
  )
  return replace(row, completion=completion)


def to_kept(row: Graded, weight: float = 1.0, hinted: bool = False) -> Kept:
  """Returns what a dataset holds of a sample."""
  completion = row.completion
  return Kept(
    problem_id=row.problem_id,
    sample=row.sample,
    prompt=row.prompt,
    text=completion.text,
    tokens=completion.tokens,
    weight=weight,
    hinted=hinted,
  )


def _votes(rows: Sequence[Graded], answers: Reader | None) -> list[float]:
  """Returns 1 for samples with the commonest answer, the first of equals."""
  if answers is None:
    raise ValueError(
      "estep.weight='majority' needs answers to vote on; programs have none."
    )
  voters = [row for row in rows if row.verdict.reward is not None]
  found = answers([row.answer for row in voters])
  votes = Counter(answer for answer in found if answer)
  winner = votes.most_common(1)[0][0] if votes else None
  won = {
    row.sample
    for row, answer in zip(voters, found, strict=True)
    if answer == winner
  }
  return [float(row.sample in won) for row in rows]


# What two solutions have in common that count once; None where all count.
_SAMENESS: dict[str, Callable[[str], object] | None] = {
  'text': str,
  'equations': equations,
  'off': None,
}
