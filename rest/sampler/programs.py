"""The compiled programs of a list of asks.

They can be lowered from shapes and places alone: what was compiled so is what
`drawing.py` calls.
"""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rest.config import Decoding
from rest.model.hardware import compiler_options
from rest.model.sharding import in_step
from rest.model.transformer import Transformer
from rest.sampler import rearrange
from rest.sampler.attention import reads
from rest.sampler.capacity import Capacity, sizes, widths
from rest.sampler.decode import ENDS, Knobs, Program, decode, program_for
from rest.sampler.placing import COPIES
from rest.sampler.prefill import load_prefix, load_questions
from rest.sampler.rearrange import Move
from rest.sampler.table import (
  Dropped,
  Table,
  TableShape,
  abstract_table,
  has_kernels,
  idle_load,
  idle_state,
  placed,
  shards_of,
  table_shardings,
)

Lowered = Any  # A `jax.stages.Lowered`.
Named = tuple[Hashable, Callable[[], Lowered]]


class Jitted(NamedTuple):
  """The functions that change a table, which is donated.

  Attributes:
    load_prefix: See `prefill`.
    load_questions: See `prefill`.
    decode: See `decode`.
  """

  load_prefix: Any
  load_questions: Any
  decode: Any


@functools.cache
def jitted(mesh: Mesh, layers: int) -> Jitted:
  """Returns what works on tables of a mesh, for a model of so many layers.

  Tables come back with their places spelled as they were: of another spelling
  of the same place, all would be compiled again. What is drawn comes to all
  processes that sample in step.
  """
  table = table_shardings(layers, mesh)
  drawn = everywhere(mesh) if in_step(mesh) else None
  jit = functools.partial(
    jax.jit,
    donate_argnames='table',
    compiler_options=compiler_options(mesh.devices.flat[0].platform),
  )
  return Jitted(
    jit(load_prefix, out_shardings=table),
    jit(load_questions, out_shardings=table),
    jit(decode, static_argnames='program', out_shardings=(table, drawn)),
  )


@dataclass(frozen=True, slots=True)
class Programs:
  """Lowers the programs of a list.

  Attributes:
    model: Shapes and places of the weights, as decoding has them.
    capacity: Of the table that the list begins with.
    mesh: Of the devices.
    decoding: How tokens are chosen.
    prefix: Tokens of the shared prefix; 0 for none.
  """

  model: Transformer
  capacity: Capacity
  mesh: Mesh
  decoding: Decoding
  prefix: int

  def all(self) -> Iterator[Named]:
    """Yields what each is known by and what lowers it, the first needed first.

    Tables that shrink by more than a size at a time are not among them.
    """
    shape, *smaller = sizes(self.capacity, self.mesh)
    if self.prefix:
      yield ('prefix', shape), self.lower_prefix
    yield self._named(shape, self._reads()[0])
    for width in widths(shape.question):
      yield (
        ('questions', shape, width),
        functools.partial(self.lower_questions, width),
      )
    for new in (shape, *smaller):
      yield self._named(new, self._reads()[-1])
    for old, new in itertools.pairwise((shape, shape, *smaller)):
      yield ('layer', old, new), functools.partial(self.lower_layer, old, new)
      yield ('rows', old, new), functools.partial(self.lower_rows, old, new)

  def lower_prefix(self) -> Lowered:
    """Lowers what reads the prefix."""
    shape = self.capacity.shape
    tokens_XT = np.zeros((shards_of(self.mesh), shape.prefix), np.int32)
    with jax.set_mesh(self.mesh):
      return self._jitted.load_prefix.lower(
        self.model, self._table(shape), tokens_XT, self._count
      )

  def lower_questions(self, width: int) -> Lowered:
    """Lowers what reads a load of questions of a width."""
    shape, count = self.capacity.shape, self.capacity.questions
    load = idle_load(count, COPIES * count, shape.samples, width, 0)
    with jax.set_mesh(self.mesh):
      return self._jitted.load_questions.lower(
        self.model, self._table(shape), load, self._count
      )

  def lower_decoding(self, shape: TableShape, program: Program) -> Lowered:
    """Lowers a call."""
    table, (slots, rows) = self._table(shape), idle_state(shape)
    ends_Z = np.full(ENDS, -1, np.int32)
    knobs = Knobs._make(
      [np.float32(0), np.int32(0), np.float32(0), ends_Z, np.int32(0)]
    )
    place = everywhere(self.mesh)
    knobs = jax.tree.map(lambda x: placed(x, place), knobs)
    dropped = Dropped(rows.entry_QR, slots.count_QE > 0)
    with jax.set_mesh(self.mesh):
      return self._jitted.decode.lower(
        self.model, table, knobs, dropped, program
      )

  def lower_layer(self, old: TableShape, new: TableShape) -> Lowered:
    """Lowers what moves a layer's keys and values to another table."""
    cache, move = self._table(old).caches[0], _move(new)
    with jax.set_mesh(self.mesh):
      return rearrange.move_cache.lower(cache, move, self.mesh)

  def lower_rows(self, old: TableShape, new: TableShape) -> Lowered:
    """Lowers what moves rows to another table."""
    rows, move = self._table(old).rows, _move(new)
    with jax.set_mesh(self.mesh):
      return rearrange.move_rows.lower(rows, move, self.mesh)

  def _reads(self) -> list[int]:
    runs_kernels = has_kernels(self.model.config, self.mesh)
    return reads(self.capacity.shape.suffix, runs_kernels)

  def _named(self, shape: TableShape, read: int) -> Named:
    config, steps = self.model.config, self.capacity.steps
    program = program_for(self.decoding, config, steps, read, self.mesh)
    lower = functools.partial(self.lower_decoding, shape, program)
    return ('decode', shape, program), lower

  @property
  def _count(self) -> jax.ShapeDtypeStruct:
    """An integer among `Knobs`."""
    return placed(np.int32(0), everywhere(self.mesh))

  @property
  def _jitted(self) -> Jitted:
    return jitted(self.mesh, self.model.config.layers)

  def _table(self, shape: TableShape) -> Table:
    return abstract_table(self.model.config, shape, self.mesh)


def everywhere(mesh: Mesh) -> NamedSharding:
  """Returns the place of what all devices of a mesh have."""
  return NamedSharding(mesh, PartitionSpec())


def _move(new: TableShape) -> Move:
  slots, rows = idle_state(new)
  return Move(
    slot_QE=slots.count_QE,
    buffer_QE=slots.count_QE,
    row_B=np.zeros(new.size, np.int32),
    entry_QR=rows.entry_QR,
  )
