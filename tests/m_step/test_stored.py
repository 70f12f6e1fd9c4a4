"""Examples on disk are those that were added."""

import dataclasses

import pytest
from etils import epath

from rest.config import MStepConfig
from rest.m_step.packing import Example
from rest.m_step.schedule import Schedule
from rest.m_step.stored import Stored
from rest.run import spool as spool_module
from rest.run.spool import spool

PREFIX = (9, 8)
EXAMPLES = [
  Example((5, question), (sample + 1,) * (sample + 2), sample + 0.5, PREFIX)
  for question in range(40)
  for sample in range(3)
]


@pytest.fixture
def on_disk(tmp_path):
  with spool(epath.Path(tmp_path)) as disk:
    examples = Stored(disk, PREFIX)
    asked = {q: examples.ask(q) for q in {e.question: 0 for e in EXAMPLES}}
    for example in EXAMPLES:
      question = asked[example.question]
      examples.add(question, example.completion, example.weight)
    yield examples


def in_memory(example):
  """Returns an example with its tokens read."""
  return dataclasses.replace(
    example,
    question=tuple(example.question),
    completion=tuple(example.completion),
  )


def test_they_come_back_in_any_order(on_disk):
  assert [*map(in_memory, on_disk)] == EXAMPLES
  for i in (7, 119, 0, 7, -1):
    assert in_memory(on_disk[i]) == EXAMPLES[i]
  assert [*map(in_memory, on_disk[3:6])] == EXAMPLES[3:6]
  with pytest.raises(IndexError):
    on_disk[120]


def test_a_schedule_of_them_is_that_of_the_list(on_disk):
  config = MStepConfig(batch=8, row_length=128, epochs=2)
  first, second = (Schedule(x, config, 0) for x in (on_disk, EXAMPLES))
  assert first.fingerprint() == second.fingerprint()
  assert first.shape == second.shape
  for step in range(first.steps):
    for ours, theirs in zip(first.batch(step), second.batch(step), strict=True):
      assert (ours == theirs).all()


def test_to_plan_reads_no_completion(on_disk, monkeypatch):
  """What is packed is read; where it goes is known by its size."""
  schedule = Schedule(on_disk, MStepConfig(batch=8, row_length=128), 0)
  read = []
  get = spool_module.Spool.get
  monkeypatch.setattr(
    spool_module.Spool, 'get', lambda *a: read.append(a[1]) or get(*a)
  )
  again = Schedule(on_disk, MStepConfig(batch=8, row_length=128), 0)
  assert not read
  assert again.shape == schedule.shape
  again.batch(0)
  assert read
