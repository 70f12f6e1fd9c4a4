"""The host's side of the table: loads, what comes back, what is rearranged."""

import dataclasses
import functools
from collections import deque

import jax
import numpy as np
from letters import Letters

from rest.model.sharding import MeshConfig, make_mesh
from rest.model.transformer import ModelConfig
from rest.sampler import Ask, SamplerConfig
from rest.sampler.attention import read_for
from rest.sampler.capacity import size_tables
from rest.sampler.order import Draft, Order, Track
from rest.sampler.placing import Placing
from rest.sampler.queue import Queue
from rest.sampler.rearrange import share_out
from rest.sampler.scheduler import Scheduler, stretches
from rest.sampler.stops import Stops
from rest.sampler.table import Drawn, TableShape

CONFIG = ModelConfig(
  vocab=96, width=32, layers=1, heads=4, kv_heads=2, head_width=8, ffn=48
)


def test_questions_are_prefilled_together_but_at_their_own_width():
  settings = SamplerConfig(max_tokens=64, max_prompt_tokens=512, rows=128)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  (capacity,) = size_tables(settings, CONFIG, mesh, prefix=0, samples=1)
  lengths = np.random.default_rng(0).integers(1, 512, 100).tolist()
  asks = [Ask(i, (3,) * length, (0,)) for i, length in enumerate(lengths)]
  scheduler = Scheduler(
    capacity.shape, iter(enumerate(asks)), 1, capacity.questions, 64, 0, (), 1
  )
  loads = []
  while load := scheduler.load():
    loads.append(load)
    width = load.tokens_XT.shape[1]
    for length in load.length_X[load.last_X > 0].tolist():
      assert length <= width
      assert width == 64 or length > width // 2
      lengths.remove(length + 1)
  assert not lengths
  assert len(loads) <= 100 / capacity.questions + 4  # Four widths.


def test_few_programs_serve_all_lengths():
  settings = SamplerConfig(max_tokens=4096, max_prompt_tokens=2048)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  (capacity,) = size_tables(settings, CONFIG, mesh, 0, 1, question=2048)
  widths = set()
  for length in range(1, 2049, 7):
    asks = enumerate([Ask(0, (3,) * length, (0,))])
    scheduler = Scheduler(
      capacity.shape, asks, 1, capacity.questions, 4096, 0, (), 1
    )
    widths.add(scheduler.load().tokens_XT.shape[1])
  assert widths == {64, 128, 256, 512, 1024, 2048}
  reads = {read_for(n, 4096, CONFIG, mesh) for n in range(1, 4097)}
  assert reads == {128, 256, 512, 1024, 4096}


def test_rows_that_are_left_fill_a_smaller_table_to_the_last():
  random = np.random.default_rng(0)
  for _ in range(50):
    slots, rows = 8, int(random.integers(4, 12))
    shape = TableShape(slots, 16, 0, 32, 32, 16)
    scheduler = Scheduler(shape, iter(()), 16, 1, 32, 0, (), 1)
    left = total = slots * rows
    for slot in range(slots):
      count = min(left, int(random.integers(1, 17)))
      left -= count
      drafts = [Draft(i, slot * 16 + i, i) for i in range(count)]
      ask = Ask(slot, (1, 2), tuple(range(count)))
      if count:
        order = Order(slot, ask, drafts, count, 0)
        scheduler.owners[slot][0] = order
    smaller = dataclasses.replace(shape, rows=rows)
    moved = scheduler.rearrange(smaller)
    assert moved is not None
    move, _ = moved
    at_work = (move.entry_QR >= 0).ravel()
    assert at_work.sum() == total - left
    assert len(set(move.row_B[at_work].tolist())) == at_work.sum()


def begun(index, count, slot=0, rows=4):
  """Returns an order whose drafts are all being drawn in its slot."""
  drafts = [Draft(i, slot * rows + i, i) for i in range(count)]
  return Order(index, one_ask(index, count), drafts, count, 0)


@functools.cache
def one_ask(index, count):
  return Ask(index, (1, 2), (0,) * count)


def test_orders_of_one_width_are_taken_together():
  # The example of `Queue.take`.
  a, b, c, d = (
    Ask(key, (3,) * length, (0, 1) if key == 0 else (0,))
    for key, length in enumerate((5, 99, 6, 7))
  )
  queue = Queue(enumerate([a, b, c, d]), chunk=1, withdrawn=())

  def take():
    free = deque((slot, 0) for slot in range(8))
    placing = Placing([free], [0], questions=2)
    queue.take(lambda ask: len(ask.tokens) // 64, placing.add, 16)
    return [(one.order.index, one.source) for one in placing.filled]

  assert take() == [(0, 0), (0, 0), (2, 1)]
  assert take() == [(1, 0)]
  assert take() == [(3, 0)]
  assert not queue.has_next()


def test_a_load_has_one_shape_however_few_orders_it_is_of():
  # The example of `_pack`.
  shape = TableShape(8, 4, 0, 32, 32, 8)
  asks = [Ask(0, (3, 4), (0, 1)), Ask(1, (5, 6, 7), (0,))]
  scheduler = Scheduler(shape, enumerate(asks), 1, 2, 32, 0, (), 1)
  load = scheduler.load()
  assert load.slot_Y.tolist() == [0, 1, 2, 8, 8, 8, 8, 8]
  assert load.source_Y[:3].tolist() == [0, 0, 1]
  assert load.tokens_XT[:, :3].tolist() == [[3, 0, 0], [5, 6, 0]]
  assert load.last_X.tolist() == [4, 7]


def test_asks_fill_buffers_beside_their_question_and_shards_evenly():
  # The example of `Placing.add`.
  free = [deque((slot, 0) for slot in own) for own in (range(8), range(8, 16))]
  placing = Placing(free, [0, 0], questions=2)
  asks = [0] * 6 + [1]
  assert all(placing.add(begun(index, 1)) for index in asks)
  slots = [one.buffer[0] for one in placing.filled]
  assert slots == [0, 1, 2, 3, 4, 8, 9]
  assert [one.source for one in placing.filled] == [0, 0, 0, 0, 0, 2, 3]
  assert [one.place for one in placing.filled] == [0, 1, 2, 3, 4, 8, 9]


def test_a_question_lies_where_its_slot_does():
  shape = TableShape(8, 4, 0, 32, 32, 8)
  asks = [Ask(index, (3 + index, 4), (0,)) for index in range(5)]
  scheduler = Scheduler(shape, enumerate(asks), 1, 4, 32, 0, (), shards=2)
  load = scheduler.load()
  # Of each shard two questions, for slots counted from its first.
  assert load.tokens_XT[:, 0].tolist() == [3, 5, 4, 6]
  assert load.slot_Y.tolist() == [0, 1, *[4] * 6] * 2
  assert load.source_Y.tolist() == [0, 1, *[0] * 6] * 2
  assert scheduler.load().tokens_XT[:, 0].tolist() == [7, 0, 0, 0]
  owned = [slot for slot, own in enumerate(scheduler.owners) if own[0]]
  assert owned == [0, 1, 2, 4, 5]


def test_what_a_call_drew_falls_into_stretches_of_one_entry():
  entry_BT = np.int32([[-1, 2, 2], [6, 6, 9]])
  found = [(0, 2, 1, 3), (1, 6, 0, 2), (1, 9, 2, 3)]
  assert list(stretches(entry_BT)) == found


def test_tokens_go_to_the_draft_of_their_entry():
  # The example of `collect`: entry 9 in row 2.
  shape = TableShape(2, 2, 0, 32, 32, 8)
  ask = Ask(0, (3, 4), (0, 1, 2))
  scheduler = Scheduler(shape, iter(()), 8, 1, 32, 0, (), 1)
  order = Order(0, ask, [Draft(place) for place in range(3)], 3, 3)
  scheduler.owners[1][1] = order
  entry_TQR = np.full((4, 2, 2), -1, np.int32)
  entry_TQR[1:, 1, 0] = 9
  token_TQR = np.arange(16).reshape(4, 2, 2)
  ended_TQR = np.arange(4)[:, None, None] * np.ones((2, 2), int) == 3
  drawn = Drawn(token_TQR, token_TQR / 8, entry_TQR, ended_TQR)
  stops = Stops(Letters(), (), 100)
  held = scheduler.held()
  ((draft, stop, is_known),) = scheduler.collect(held, drawn, stops)
  assert draft is order.drafts[1]
  assert is_known
  assert draft.drawn(held.track, stop)[0].tolist() == [6, 10, 14]
  assert (draft.row, draft.entry, order.waiting) == (2, 9, 2)


def call(steps, rows, at):
  """Returns a call whose tokens are their step, their row in the tenths."""
  token_TB = np.arange(at, at + steps)[:, None] + np.zeros((1, rows), int)
  return token_TB, token_TB + np.arange(rows) / 10


def test_a_draft_has_the_steps_of_its_row():
  # The example of `Track`.
  track = Track(rows=3, limit=9)
  draft = Draft(0, row=2, entry=5)
  for number in range(3):
    track.file(*call(4, 3, 4 * number))
    if number == 1:
      track.begin(draft, 6)
      assert track.longest == 2
  tokens_T, logprobs_T = draft.drawn(track, 10)
  assert tokens_T.tolist() == [6, 7, 8, 9]
  np.testing.assert_allclose(logprobs_T, tokens_T + 0.2)
  assert draft.drawn(track, 10, most=3)[0].tolist() == [7, 8, 9]
  track.forget(2)
  assert track.longest == 0


def test_a_row_keeps_as_many_tokens_as_a_completion_may_have():
  for first in range(4, 12):
    track, draft = Track(rows=1, limit=10), Draft(0, row=0, entry=0)
    for at in range(0, 24, 4):
      track.file(*call(4, 1, at))
      if at <= first < at + 4:
        track.begin(draft, first)
      if at < first + 10 <= at + 4:
        tokens_T, _ = draft.drawn(track, first + 10)
        assert tokens_T.tolist() == [*range(first, first + 10)]


def test_a_draft_is_whole_wherever_its_table_was_rearranged():
  """Two calls are under way as it moves; it ends in one of them, or later."""
  for end in range(5, 16):
    old, new = Track(rows=4, limit=32), Track(rows=2, limit=32)
    draft = Draft(0, row=3, entry=1)
    old.file(*call(4, 4, 0))
    old.begin(draft, 1)
    draft.row, draft.entry = 1, 0
    new.begin(draft, 0, length=old.longest)
    old.file(*call(4, 4, 4))
    old.file(*call(4, 4, 8))
    new.file(*call(4, 2, 12))
    track, stop = (old, end) if end <= 12 else (new, end - 12)
    tokens_T, logprobs_T = draft.drawn(track, stop)
    assert tokens_T.tolist() == [*range(1, end)]
    rows = [0.3] * (min(end, 12) - 1) + [0.1] * max(0, end - 12)
    np.testing.assert_allclose(logprobs_T, tokens_T + rows, rtol=1e-6)
    tail_T, _ = draft.drawn(track, stop, most=3)
    assert tail_T.tolist() == [*range(1, end)][-3:]


def test_the_longest_draft_is_known_behind_calls_that_are_under_way():
  shape = TableShape(2, 4, 0, 32, 32, 8)
  scheduler = Scheduler(shape, iter(()), 8, 1, 32, 0, (), 1)
  scheduler.owners[0][0] = order = Order(
    0, Ask(0, (3, 4), (0, 1)), [Draft(0), Draft(1)], 2, 2
  )
  entry_QR = np.int32([[0, 1, -1, -1], [-1] * 4])

  def collect(held, entry_QR):
    entry_TQR = np.stack([entry_QR] * 4)
    token_TQR = np.ones_like(entry_TQR)
    ended_TQR = np.zeros_like(entry_TQR, bool)
    drawn = Drawn(token_TQR, token_TQR / 8, entry_TQR, ended_TQR)
    assert not [*scheduler.collect(held, drawn, Stops(Letters(), (), 100))]

  first = scheduler.held()
  collect(first, entry_QR)
  assert (scheduler.longest, order.waiting) == (4, 0)
  smaller = dataclasses.replace(shape, slots=1)
  move, _ = scheduler.rearrange(smaller)
  assert scheduler.longest == 4
  collect(first, entry_QR)
  assert scheduler.longest == 8
  collect(scheduler.held(), move.entry_QR)
  assert scheduler.longest == 12


def test_asks_are_shared_out_until_slots_are_full():
  # The examples of `share_out`.
  shape = TableShape(2, 4, 0, 32, 32, 8)

  def shared(*counts):
    owners = [[begun(i, n, i, 8), None] for i, n in enumerate(counts)]
    old = range(len(counts))
    placed = share_out(owners, old, range(2), shape)
    return [(p.buffer, p.source[0], p.order.left) for p in placed]

  assert shared(2, 6) == [((0, 0), 0, 2), ((0, 1), 1, 2), ((1, 0), 1, 4)]
  assert shared(1, 3, 4) == [((0, 0), 0, 1), ((0, 1), 1, 3), ((1, 0), 2, 4)]


def test_rows_of_a_rearranged_slot_are_taken_in_order():
  # The example of `Scheduler.rearrange`.
  shape = TableShape(2, 4, 0, 32, 32, 8)
  scheduler = Scheduler(shape, iter(()), 8, 1, 32, 0, (), 1)
  scheduler.owners = [[begun(0, 2), None], [begun(1, 1, slot=1), None]]
  move, slots = scheduler.rearrange(dataclasses.replace(shape, slots=1))
  assert move.entry_QR.tolist() == [[0, 8, 9, -1]]
  assert move.row_B.tolist() == [4, 0, 1, 0]
  assert move.slot_QE.tolist() == [[1, 0]]
  assert slots.count_QE.tolist() == [[1, 2]]
