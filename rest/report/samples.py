"""The samples of a run, cut into pages that a browser can load one by one.

The index says of every sample what came of it, in one character; texts are in
pages of about `_PAGE` bytes. Both are compressed and written in base64, so that
nothing that a model wrote ever stands in the page as text. Every sample is read
once; pages wait on disk until it is known which have room in the report.
"""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from etils import epath

from rest.config import EStepConfig
from rest.e_step.choose import Reader, choose
from rest.run import digests, store
from rest.run.dataset import read_dataset
from rest.run.scores import Results
from rest.run.spool import Spool
from rest.types import Graded, Problem, answer_start, without_thoughts
from rest.verify.answers import EXTRACT, verifier_of

_PAGE = 2_000_000  # Bytes of JSON in a page, roughly.
_FIRST_CODE = 48  # '0': characters below need escapes in JSON.


class Page(NamedTuple):
  """Some problems with the texts of their samples, in a spool."""

  place: int
  size: int


@dataclass(slots=True)
class SampleSet:
  """Samples of one kind, over all iterations, as the page reads them.

  Attributes:
    title: What they are.
    folders: By iteration, where their parts are.
    is_e_step: Whether they were drawn to be trained on.
    count: Problems.
    index: JSON value: problems, outcomes and codes.
    pages: Compressed texts.
  """

  title: str
  folders: dict[int, epath.Path]
  is_e_step: bool
  count: int
  index: dict[str, Any] = field(default_factory=dict)
  pages: list[Page] = field(default_factory=list[Page])


def sample_sets(run: Results, pages: Spool) -> list[SampleSet]:
  """Returns all samples of a run, packed; the E-step's come first.

  Args:
    run: The run.
    pages: Takes the texts.
  """
  if not run.record:
    raise ValueError(f'{run.workdir} has no run.json: it is not a run.')
  path = run.workdir / 'problems.jsonl'
  digests.check(path)
  problems = {
    problem.id: problem
    for listed in store.read_problems(path).values()
    for problem in listed
  }
  sets = list(_find(run))
  for found in sets:
    _pack(run, found, problems, pages)
  return sets


def packed(value: Any) -> str:
  """Returns a JSON value, compressed, as base64; the same for the same."""
  return _packed_text(_json(value))


def _json(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


def _packed_text(text: str) -> str:
  data = gzip.compress(text.encode('utf-8', 'replace'), 6, mtime=0)
  return base64.b64encode(data).decode()


def _find(run: Results) -> Iterator[SampleSet]:
  """Finds the folders of samples of all iterations that have scores."""
  folders: defaultdict[str, dict[int, epath.Path]] = defaultdict(dict)
  e_step = 'training problems'
  folders[e_step] = {}  # Stands first.
  for row in run.rows:
    folder = run.workdir / f'iteration_{row.iteration}'
    if row.e_step and (folder / 'parts').exists():  # Not another run's samples.
      # Parts are numbered by the problems that an iteration asked.
      few = run.config('em.problems_per_iteration')
      title = f'{e_step} of iteration {row.iteration}' if few else e_step
      folders[title][row.iteration] = folder / 'parts'
    for measured in sorted({p.parent for p in folder.glob('*/*/part-000000*')}):
      if 0 not in store.Parts(measured).done():
        continue  # It was damaged.
      name = f'{measured.parent.name}, {measured.name}'
      folders[name][row.iteration] = measured
  for title, found in folders.items():
    if found:
      count = min(len(store.Parts(path).done()) for path in found.values())
      yield SampleSet(title, found, title.startswith(e_step), count)


def _pack(
  run: Results, found: SampleSet, problems: dict[str, Problem], pages: Spool
) -> None:
  """Fills in index and pages, a problem at a time."""
  config, kept = None, {}
  if found.is_e_step:
    config = EStepConfig(**store.section(run.record, 'estep'))
    if config.weight == 'majority':
      kept = {i: _kept(path) for i, path in found.folders.items()}
  outcomes: dict[tuple[float | None, str, str], int] = {}
  codes: dict[int, list[str]] = {iteration: [] for iteration in found.folders}
  listed, starts, page, size = [], [0], [], 0
  groups = {
    iteration: store.Parts(folder).read_all(found.count)
    for iteration, folder in found.folders.items()
  }
  for index in range(found.count):
    problem, texts = None, {}
    for iteration, of_iteration in groups.items():
      rows = next(of_iteration)
      problem = problem or _problem(rows[0], problems)
      fates = [''] * len(rows)
      if config:
        voters = _reader(rows, kept[iteration]) if kept else None
        fates = [choice.fate for choice in choose(rows, config, voters)]
      codes[iteration].append(_codes(rows, fates, outcomes))
      texts[iteration] = [_line(row) for row in rows]
    assert problem is not None
    listed.append(_summary(problem))
    page.append(_json({'solution': problem.solution, 'samples': texts}))
    size += len(page[-1])
    if size > _PAGE or index == found.count - 1:
      data = _packed_text(f'[{",".join(page)}]')
      found.pages.append(Page(pages.put(data), len(data)))
      starts.append(index + 1)
      page, size = [], 0
  found.index = {
    'title': found.title,
    'problems': listed,
    'outcomes': list(outcomes),
    'codes': codes,
    'starts': starts,
  }


def _codes(
  rows: list[Graded],
  fates: list[str],
  outcomes: dict[tuple[float | None, str, str], int],
) -> str:
  """Returns a character a sample: the number of its outcome."""
  numbers = [
    outcomes.setdefault(
      (row.verdict.reward, row.verdict.reason, fate), len(outcomes)
    )
    for row, fate in zip(rows, fates, strict=True)
  ]
  return ''.join(chr(_FIRST_CODE + number) for number in numbers)


def _line(row: Graded) -> list[Any]:
  """Returns a sample: number, tokens, whether it ended, thoughts, answer."""
  completion = row.completion
  length = len(completion.tokens)
  text = completion.text
  start = answer_start(row.prompt, text)
  cut = len(text) if start < 0 else start
  return [row.sample, length, int(row.finished), text[:cut], text[cut:]]


def _reader(rows: list[Graded], kept: dict[str, list[str]]) -> Reader:
  """Returns what tells the answers that have won a vote, and no others.

  By spelling, as here is no pool to ask for equality: a spelling of the winner
  of which the cap has left nothing counts as another answer.

  Args:
    rows: Samples of a problem.
    kept: By problem id, the solutions in the dataset.
  """
  extract = EXTRACT[verifier_of(rows)]
  won = {extract(text) for text in kept[rows[0].problem_id]}

  def read(texts: Sequence[str]) -> list[str]:
    return ['won' if extract(text) in won else '' for text in texts]

  return read


def _kept(parts: epath.Path) -> defaultdict[str, list[str]]:
  kept: defaultdict[str, list[str]] = defaultdict(list)
  path = parts.parent / 'dataset.jsonl'
  digests.check(path)
  for row in read_dataset(path):
    kept[row.problem_id].append(without_thoughts(row.prompt, row.text))
  return kept


def _problem(row: Graded, problems: dict[str, Problem]) -> Problem:
  known = problems.get(row.problem_id)
  return known or Problem(row.problem_id, row.prompt)


def _summary(problem: Problem) -> list[str | None]:
  return [
    problem.id,
    problem.level,
    problem.subject,
    problem.question,
    problem.answer,
  ]
