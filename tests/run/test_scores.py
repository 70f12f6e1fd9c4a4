"""Scores are those of the files, and all who read a run choose alike."""

import collections
import pathlib
import threading
from concurrent.futures import Future
from typing import Any

import pytest
import report_run
from etils import epath

from rest.experiment import compare
from rest.report import sections
from rest.run import digests, scores, store
from rest.types import Completion, Graded, Preempted, Verdict
from rest.use import card
from rest.verify.request import Request


def _row(problem: str, sample: int, reward: float | None) -> Graded:
  text = '#### 1' if reward else f'#### {sample + 2}'
  completion = Completion(text, (1,), (-1.0,), 'token')
  return Graded(problem, sample, 'q', completion, Verdict(reward, '', 'math-1'))


def _validated(
  workdir: pathlib.Path, stops: bool, *shares: float
) -> scores.Results:
  """Writes a small run with other validation scores, and reads it."""
  report_run.write_run(workdir)
  for iteration, share in enumerate(shares):
    path = workdir / f'iteration_{iteration}/validation.json'
    store.write_json(path, store.read_json(path) | {'pass_1': share})
    made = {'examples': 1, 'chosen': 1, 'steps': 1, 'loss': 1.0}
    store.write_json(path.parent / 'm_step.json', made)
  record = store.read_json(workdir / 'run.json')
  record['config'] |= {'em.stop_on_validation': stops}
  store.write_json(workdir / 'run.json', record)
  return scores.read_run(workdir)


def _readers(run: scores.Results) -> dict[str, int]:
  """Returns the iteration that each reader of a run takes for the chosen."""
  table = sections.scores(run)
  (report,) = [i for i in range(3) if f'>{_name(i)} (chosen)</th>' in table]
  arms = {'one': [pathlib.Path(run.workdir)]}
  experiment = compare.Experiment('T', arms, 'arm', ('test',))
  (point,) = compare.read(experiment)['test']
  folders = [run.workdir / f'iteration_{i}' for i in range(3)]
  text = card.model_card(_whole(run.record), list(map(epath.Path, folders)))
  (told,) = [i for i in range(3) if f'validation chooses {_told(i)}.' in text]
  return {
    'report': report,
    'experiment': int(point.notes.split(',')[0].removeprefix('iteration ')),
    'card': told,
  }


def _name(iteration: int) -> str:
  return str(iteration) if iteration else '0, the base'


def _told(iteration: int) -> str:
  return ('the base', 'iteration 1', 'this one')[iteration]


def _whole(record: dict[str, Any]) -> dict[str, Any]:
  """Returns a record with all that a card tells of; most of it is 0."""
  config = collections.defaultdict(int, record['config'])
  config |= {'em.source': 'human', 'model.path': 'base', 'task.name': 'set'}
  texts = dict.fromkeys(('base', 'data', 'prefix', 'device'), '')
  versions = {'rest': '1'}
  return {'config': config, 'versions': versions, 'leaks': [], **texts}


@pytest.mark.parametrize(
  ('stops', 'shares', 'expected'),
  [
    (False, (0.2, 0.3, 0.4), 2),
    (False, (0.2, 0.4, 0.4), 1),  # The first of equals.
    (False, (0.9, 0.3, 0.4), 2),  # The number of iterations is fixed.
    (True, (0.9, 0.3, 0.4), 0),  # The first iteration did not raise it.
    (True, (0.2, 0.4, 0.3), 1),
  ],
)
def test_all_who_read_a_run_take_the_iteration_that_validation_chooses(
  stops, shares, expected, tmp_path
):
  run = _validated(tmp_path, stops, *shares)
  assert scores.chosen(run.rows, run.record).iteration == expected
  assert set(_readers(run).values()) == {expected}


def test_digests_of_suites_are_no_suite(tmp_path):
  report_run.write_run(tmp_path)
  digests.note(tmp_path / 'iteration_0/suites/other-set.json')
  assert [*scores.read(tmp_path)[0].suites] == ['other-set']


def test_without_validation_the_last_iteration_is_chosen(tmp_path):
  run = _validated(tmp_path, False)
  for row in run.rows:
    (tmp_path / f'iteration_{row.iteration}/validation.json').unlink()
  rows = scores.read(tmp_path)
  assert scores.chosen(rows, run.record).iteration == 2
  assert scores.chosen(rows[:1], run.record).iteration == 0


def test_a_gain_is_of_answers_now_readable_and_of_answers_now_right():
  def row(
    by_problem: dict[str, float], unreadable: tuple[str, ...]
  ) -> scores.Row:
    test = {'scores': by_problem, 'unreadable': unreadable}
    return scores.Row(0, {}, {}, {}, test, {}, {})

  names = 'abcdefghij'
  before = row({n: float(n in 'ij') for n in names}, ('a', 'b', 'c'))
  after = row({n: float(n in 'abdehj') for n in names}, ('c', 'i'))
  # a, b can be read now and i no longer; d, e, h were wrong.
  assert scores.split_gain(before, after) == pytest.approx((0.1, 0.3))
  assert (
    scores.split_gain(before, scores.Row(0, {}, {}, {}, {}, {}, {})) is None
  )


def test_bins_begin_at_their_lower_edge():
  edges = (0.0, 0.2499, 0.25, 0.4999, 0.5, 0.75, 1.0)
  assert [scores.difficulty_of(edge) for edge in edges] == [0, 0, 1, 1, 2, 3, 3]


def test_training_scores_are_the_next_e_steps_and_unknown_ones_are_left_out(
  tmp_path,
):
  store.write_json(tmp_path / 'iteration_0/test.json', {'scores': {}})
  run = scores.read_run(tmp_path)
  parts = store.Parts(tmp_path / 'iteration_1/parts')
  parts.write(0, [_row('a', i, r) for i, r in enumerate((1.0, 0.0, None))])
  parts.write(1, [_row('b', i, None) for i in range(3)])
  assert scores.by_problem(run, 0, 'train') == {'a': 0.5}


def test_votes_and_pass_at_k_are_read_from_the_samples(tmp_path):
  store.write_json(tmp_path / 'iteration_0/test.json', {'scores': {}})
  run = scores.read_run(tmp_path)
  parts = store.Parts(tmp_path / 'iteration_0/test/sampled')
  parts.write(0, [_row('a', i, float(i < 2)) for i in range(4)])
  assert scores.by_problem(run, 0, 'maj') == {'a': 1.0}
  assert scores.by_problem(run, 0, 'pass@2')['a'] == pytest.approx(5 / 6)
  with pytest.raises(ValueError, match='not measured'):
    scores.by_problem(run, 0, 'suites/gsm8k')


class _Judge:
  """Finds any two answers equal, and knows that it was asked."""

  def __init__(self):
    self.asked = threading.Event()

  def submit(self, request: Request) -> Future[Verdict]:
    self.asked.set()
    future: Future[Verdict] = Future()
    future.set_result(Verdict(1.0, '', 'math-1'))
    return future


def _unlike(problem: str) -> list[Graded]:
  """Returns samples whose answers only a judge can compare."""
  texts = [r'\boxed{x^2}', r'\boxed{y^2}', r'\boxed{x^2}']
  return [
    Graded(
      *(problem, sample, 'q', Completion(text, (1,), (-1.0,), 'token')),
      Verdict(float(sample != 1), '', 'math-1'),
    )
    for sample, text in enumerate(texts)
  ]


def test_votes_are_cast_while_others_are_drawn():
  judge = _Judge()

  def drawn():
    yield _unlike('b')
    assert judge.asked.wait(20)
    yield [_row('a', 0, None)]
    yield _unlike('c')

  assert [*scores.majority(drawn(), judge).items()] == [
    ('b', 2 / 3),
    ('c', 2 / 3),
  ]


def test_no_vote_outlives_a_drawing_that_ends_early():
  def drawn():
    for number in range(50):
      yield _unlike(str(number))
    raise Preempted('while sampling')

  with pytest.raises(Preempted):
    scores.majority(drawn(), _Judge())
  assert not [t for t in threading.enumerate() if t.name.startswith('vote')]
