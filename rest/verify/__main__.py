"""Judges completions from the command line.

python -m rest.verify grade samples.jsonl --verifier=math --out=verdicts.jsonl
python -m rest.verify regrade WORKDIR

`grade` reads one JSON object a line: 'text' with 'gold', both text, also where
they are numbers; or 'text' with 'tests' for programs, an object as
`rest.types.Tests` says, in which what 'call' passes and expects is JSON written
as text. `regrade` judges all samples of a run again, by the verifiers of today,
keeps of them what the run's config says, and prints which would enter and which
would leave its datasets. It also counts the samples whose tokens, which
training sees, do not say what was judged: older versions cut stop strings so
that it could happen. It changes no file.
"""

import argparse
import collections
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import TypeVar

import tqdm
from etils import epath

from rest import tasks
from rest.config import EStepConfig, VerifyConfig
from rest.e_step.choose import choose
from rest.model import tokenizer
from rest.run import dataset, store
from rest.run.command import check_out, refusing
from rest.tasks import files
from rest.tasks.jsonl import read_tests
from rest.types import Graded, Tokenizer, Verdict
from rest.verify.answers import reader
from rest.verify.pool import Pool
from rest.verify.request import Request, make_request

_T = TypeVar('_T')


def main(argv: Sequence[str] | None = None) -> None:
  """Runs what the command line says."""
  arguments = _parser().parse_args(argv)
  with refusing():
    config = VerifyConfig(
      workers=arguments.workers,
      allow_weak_sandbox=arguments.allow_weak_sandbox,
    )
    if arguments.action == 'grade':
      _grade(config, arguments)
    else:
      _regrade(config, pathlib.Path(arguments.workdir), arguments.base)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rest.verify',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  actions = parser.add_subparsers(dest='action', required=True)
  grade = actions.add_parser('grade', help='judge the lines of a file')
  grade.add_argument('file', help='JSONL of text and gold, or of tests')
  grade.add_argument(
    '--verifier', default='math', choices=('math', 'exact', 'program')
  )
  grade.add_argument('--out', help='JSONL file for the verdicts')
  regrade = actions.add_parser('regrade', help="judge a run's samples again")
  regrade.add_argument('workdir', help='directory of the run')
  regrade.add_argument(
    '--base', help='where its base model is, if it has moved'
  )
  for action in (grade, regrade):
    action.add_argument('--workers', type=int, default=2)
    action.add_argument('--allow_weak_sandbox', action='store_true')
  return parser


def _grade(config: VerifyConfig, arguments: argparse.Namespace) -> None:
  check_out(arguments.out)
  requests = list(_requests(arguments.file, arguments.verifier))
  counts: collections.Counter[str] = collections.Counter()
  lines = []
  with _open(config, arguments.verifier) as pool:
    pairs = ((request, request) for request in requests)
    for _, verdict in _judged(pool, pairs, len(requests)):
      counts[_outcome(verdict)] += 1
      lines.append(json.dumps(asdict(verdict)) + '\n')
  if arguments.out:
    store.write_whole(arguments.out, ''.join(lines))
  print(', '.join(f'{count} {name}' for name, count in counts.most_common()))


def _requests(path: str, verifier: str) -> Iterator[Request]:
  for record in files.read_jsonl(epath.Path(path)):
    text = record.text('text')
    if verifier == 'program':
      yield Request(verifier, text, tests=read_tests(record, 'tests'))
    else:
      yield Request(verifier, text, gold=record.text('gold'))


def _regrade(
  config: VerifyConfig, workdir: pathlib.Path, base: str | None
) -> None:
  record = store.read_record(workdir)
  asked = tasks.TaskConfig(**store.section(record, 'task'))
  task = tasks.make(asked)
  estep = EStepConfig(**store.section(record, 'estep'))
  folders = sorted(workdir.glob('iteration_*/parts'))
  if not folders:
    raise ValueError(f'{workdir} has no samples.')
  base = str(base or store.section(record, 'model')['path'])
  codec = None
  if epath.Path(base).is_dir():
    codec = tokenizer.load(base, tasks.for_model(asked, base).turn_end)
  else:
    print(
      'whether tokens say what was judged is not looked at: there is no '
      f'tokenizer in {base}; --base says where it is'
    )
  with _open(config, task.verifier) as pool:
    for folder in folders:
      _regrade_iteration(pool, task, estep, folder.parent, codec)


def _regrade_iteration(
  pool: Pool,
  task: tasks.ProblemSet,
  estep: EStepConfig,
  folder: pathlib.Path,
  codec: Tokenizer | None,
) -> None:
  """Prints which samples an iteration's dataset would gain and lose now."""
  problems = {problem.id: problem for problem in task.problems('train')}
  groups = store.Parts(folder / 'parts').read_done()
  before = [row for rows in groups for row in rows]

  def requests() -> Iterator[tuple[Graded, Request]]:
    for row in before:
      problem = problems[row.problem_id]
      yield row, make_request(task, problem, row.completion.text, row.prompt)

  judged = _judged(pool, requests(), len(before))
  now = [replace(row, verdict=verdict) for row, verdict in judged]
  path = folder / 'dataset.jsonl'
  # An iteration that was interrupted has no dataset yet.
  kept = [*dataset.read_dataset(path)] if path.exists() else None
  # Hinted samples are not judged again.
  was_in = (
    _kept(before, estep, pool)
    if kept is None
    else {(row.problem_id, row.sample) for row in kept if not row.hinted}
  )
  is_in = _kept(now, estep, pool)
  differ = 0
  for old, new in zip(before, now, strict=True):
    name = (old.problem_id, old.sample)
    was, becomes = _outcome(old.verdict), _outcome(new.verdict)
    differ += was != becomes
    if (name in was_in) == (name in is_in):
      continue
    why = f'{was} ({old.verdict.reason}) -> {becomes} ({new.verdict.reason})'
    if was == becomes:
      why = f'still {becomes}, unlike others of its problem'
    change = 'enters' if name in is_in else 'leaves'
    print(f'{change} {old.problem_id} sample {old.sample}: {why}')
  print(
    f'{folder.name}: of {len(now)} verdicts {differ} differ; of '
    f'{len(was_in)} samples kept {len(was_in - is_in)} leave, and '
    f'{len(is_in - was_in)} enter'
  )
  if codec is not None:
    drawn = [(row.completion.tokens, row.completion.text) for row in before]
    trained = [(row.tokens, row.text) for row in kept or ()]
    print(
      f'{folder.name}: the tokens of {_parted(drawn, codec)} of {len(drawn)} '
      f'samples, and of {_parted(trained, codec)} of {len(trained)} in the '
      'dataset, do not say what was judged'
    )


def _parted(
  pairs: Iterable[tuple[Sequence[int], str]], codec: Tokenizer
) -> int:
  """Returns how many tokens do not decode to the text beside them."""
  return sum(not dataset.says(codec, *pair) for pair in pairs)


def _kept(
  rows: Iterable[Graded], estep: EStepConfig, pool: Pool
) -> set[tuple[str, int]]:
  """Returns problem and number of what is kept of rows, sorted by problem."""
  kept: set[tuple[str, int]] = set()
  for problem, group in itertools.groupby(rows, lambda row: row.problem_id):
    samples = list(group)
    choices = choose(samples, estep, reader(samples, pool))
    kept |= {(problem, choice.row.sample) for choice in choices if choice.kept}
  return kept


def _open(config: VerifyConfig, verifier: str) -> Pool:
  """Starts a pool; says what holds programs."""
  pool = Pool(config, (verifier,))
  if pool.notice:
    print(pool.notice, file=sys.stderr)
  return pool


def _judged(
  pool: Pool, requests: Iterable[tuple[_T, Request]], total: int
) -> Iterator[tuple[_T, Verdict]]:
  """Yields each request's companion with its verdict, in order, and counts."""
  waiting: collections.deque[tuple[_T, Future[Verdict]]] = collections.deque()
  with tqdm.tqdm(total=total, unit=' verdicts') as progress:

    def first() -> tuple[_T, Verdict]:
      companion, future = waiting.popleft()
      verdict = future.result()
      progress.update()
      return companion, verdict

    for companion, request in requests:
      waiting.append((companion, pool.submit(request)))
      if len(waiting) > VerifyConfig().queue:
        yield first()
    while waiting:
      yield first()


def _outcome(verdict: Verdict) -> str:
  if verdict.reward is None:
    return 'unknown'
  return 'correct' if verdict.reward == 1 else 'incorrect'


if __name__ == '__main__':
  main()
