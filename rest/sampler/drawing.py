"""The loop of the sampler: load, call, collect, rearrange."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from rest.config import Decoding
from rest.model.transformer import Transformer
from rest.sampler.ahead import Ahead
from rest.sampler.attention import read_for
from rest.sampler.capacity import Capacity, smallest
from rest.sampler.decode import ENDS, Knobs, Program, program_for
from rest.sampler.order import Sampled
from rest.sampler.programs import Jitted, everywhere, jitted
from rest.sampler.rearrange import Move, move_cache, move_rows
from rest.sampler.scheduler import Scheduler
from rest.sampler.stats import Call, Stats, Watch
from rest.sampler.stops import Stops
from rest.sampler.table import (
  Dropped,
  LayerCache,
  Rows,
  Slots,
  Table,
  TableShape,
  put,
  put_table,
  shards_of,
)


@dataclass(slots=True)
class Drawing:
  """One list of asks while it is drawn.

  Attributes:
    model: Unstacked.
    ends: End tokens.
    mesh: Of the devices.
    ahead: Compiles the programs.
    decoding: How tokens are chosen.
    stops: Finds stop strings.
    stats: What is drawn is counted here.
    scheduler: Has the asks.
    capacity: Of the table; it shrinks with it.
    table: At rest when the list begins, and when it has ended.
    calls: Under way, the oldest first.
    watch: Counts the time that the device waits.
    dropped_QR: Entries to be put to rest by the next call.
  """

  model: Transformer
  ends: tuple[int, ...]
  mesh: Mesh
  ahead: Ahead
  decoding: Decoding
  stops: Stops
  stats: Stats
  scheduler: Scheduler
  capacity: Capacity
  table: Table
  calls: deque[Call] = field(default_factory=deque[Call])
  watch: Watch = field(default_factory=Watch)
  dropped_QR: NDArray[np.int32] = field(init=False)

  def run(self, prefix: Sequence[int]) -> Iterator[list[Sampled]]:
    """Draws all that is asked; yields what each call brought to its end.

    Invariant: a call is read while the next one is under way, so that the
    device never waits for the host; what ends in a call is known one call late.
    Example: where the last sample ends in call 2, there come call 1, call 2,
    read 1, call 3, read 2, and read 3, in which all rows were idle.

    Args:
      prefix: Tokens that all prompts begin with; may be empty.
    """
    knobs = self._knobs(len(prefix))
    self._forget_drops()
    if prefix:
      self._load_prefix(prefix, knobs)
    while True:
      while load := self.scheduler.load():
        width = load.tokens_XT.shape[1]
        self.ahead.wait('questions', self.capacity.shape, width)
        with jax.set_mesh(self.mesh):
          self.table = self._jitted.load_questions(
            self.model, self.table, load, knobs.prefix
          )
      if self.scheduler.is_open:
        self._call(knobs)
      elif not self.calls:
        break
      if len(self.calls) > 1 or not self.scheduler.is_open:
        yield self._collect()
      if self.scheduler.is_open:
        yield from self._even_out()
    self.stats.idle_seconds += self.watch.idle

  @property
  def _jitted(self) -> Jitted:
    return jitted(self.mesh, self.model.config.layers)

  def _load_prefix(self, prefix: Sequence[int], knobs: Knobs) -> None:
    # The same for each shard, which has its own copy.
    shape = (shards_of(self.mesh), self.capacity.shape.prefix)
    tokens_XT = np.zeros(shape, np.int32)
    tokens_XT[:, : len(prefix)] = prefix
    self.ahead.wait('prefix', self.capacity.shape)
    with jax.set_mesh(self.mesh):
      self.table = self._jitted.load_prefix(
        self.model, self.table, tokens_XT, knobs.prefix
      )

  def _call(self, knobs: Knobs) -> None:
    """Sends the next call to the device."""
    self.watch.before(self.calls)
    program = self._program()
    self.ahead.wait('decode', self.capacity.shape, program)
    dropped = Dropped(self.dropped_QR, self.scheduler.withdraw())
    with jax.set_mesh(self.mesh):
      self.table, drawn = self._jitted.decode(
        self.model, self.table, knobs, dropped, program
      )
    self.calls.append(Call(drawn, self.scheduler.held()))
    self._forget_drops()

  def _program(self) -> Program:
    """Returns what to compile for; calls under way may lengthen any draft."""
    steps = self.capacity.steps
    longest = self.scheduler.longest + (len(self.calls) + 1) * steps
    suffix, config = self.capacity.shape.suffix, self.model.config
    read = read_for(longest, suffix, config, self.mesh)
    return program_for(self.decoding, config, steps, read, self.mesh)

  def _collect(self) -> list[Sampled]:
    """Reads the oldest call; returns the completions that ended in it."""
    call = self.calls.popleft()
    drawn = self.watch.read(call)
    self.stats.calls += 1
    self.stats.row_steps += drawn.entry_TQR.size
    self.stats.busy_row_steps += int((drawn.entry_TQR >= 0).sum())
    found: list[Sampled] = []
    for draft, stop, is_known in self.scheduler.collect(
      call.held, drawn, self.stops
    ):
      if not is_known:
        self.dropped_QR.reshape(-1)[draft.row] = draft.entry
      pieces = draft.drawn(call.held.track, stop)
      order = self.scheduler.close(draft)
      sample = order.ask.samples[draft.place]
      found.append(Sampled(order.index, sample, *pieces))
    return found

  def _even_out(self) -> Iterator[list[Sampled]]:
    """Shrinks the table or fills idle rows, where the list's end allows it."""
    target = smallest(self.capacity, self.mesh, self.scheduler.fits)
    if target == self.capacity.shape and not self.scheduler.is_uneven():
      return
    # What waits may begin in a call under way, in a row not yet known.
    while self.calls and self.scheduler.waiting:
      yield self._collect()
    if moves := self.scheduler.rearrange(target):
      self._rearrange(*moves, target)
      self.capacity = replace(self.capacity, shape=target)
      self._forget_drops()  # What was dropped is not moved.

  def _rearrange(self, move: Move, slots: Slots, new: TableShape) -> None:
    for kind in ('rows', 'layer'):
      self.ahead.wait(kind, self.capacity.shape, new)
    with jax.set_mesh(self.mesh):
      rows: Rows = move_rows(self.table.rows, move, self.mesh)
      caches: list[LayerCache] = []
      while self.table.caches:  # Each layer's old one is freed before the next.
        caches.append(move_cache(self.table.caches.pop(0), move, self.mesh))
    self.table = put_table(Table(caches, slots, rows), self.mesh)

  def _forget_drops(self) -> None:
    # A new array: the device may still read the old one.
    shape = self.capacity.shape
    self.dropped_QR = np.full((shape.slots, shape.rows), -1, np.int32)

  def _knobs(self, prefix: int) -> Knobs:
    ends_Z = np.full(ENDS, -1, np.int32)
    ends_Z[: len(self.ends)] = self.ends
    decoding = self.decoding
    knobs = Knobs._make(
      [
        *(np.float32(decoding.temperature), np.int32(decoding.top_k)),
        *(np.float32(decoding.top_p), ends_Z, np.int32(prefix)),
      ]
    )
    place = everywhere(self.mesh)
    return jax.tree.map(lambda x: put(x, place), knobs)
