"""A run's programs, lowered for chips that need not be there.

They are those of a run: the same jitted functions, for shapes and places in the
place of arrays. Of those that come in several sizes, the largest.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rest.config import MStepConfig, SamplerConfig
from rest.m_step import update
from rest.m_step.packing import Batch
from rest.model import lora, sharding
from rest.model.hardware import Device
from rest.model.transformer import ModelConfig, Transformer
from rest.plan import estimate
from rest.sampler import decode, prefill, rearrange, sampler
from rest.sampler.attention import read_for
from rest.sampler.capacity import Capacity, size_table, sizes
from rest.sampler.decode import Knobs, Program
from rest.sampler.order import Ask
from rest.sampler.rearrange import Move
from rest.sampler.scheduler import Scheduler
from rest.sampler.table import (
  Dropped,
  Table,
  TableShape,
  empty_table,
  idle_state,
  shards_of,
  table_shardings,
)
from rest.sampler.token_choice import candidates_for


@dataclass(frozen=True, slots=True)
class Setup:
  """What is compiled for.

  Attributes:
    model: Its shape.
    mesh: Of all chips.
    local_mesh: Of those of the first process.
    device: The chip.
    mstep: How it is trained.
    sampling: How large the table is.
    prefix: Tokens of the shared prefix.
    samples: Of a problem.
    top_k: Best tokens that are drawn from.
    in_parts: Whether a batch needs more rows than are worked on at a time.
  """

  model: ModelConfig
  mesh: Mesh
  local_mesh: Mesh
  device: Device
  mstep: MStepConfig
  sampling: SamplerConfig
  prefix: int
  samples: int
  top_k: int
  in_parts: bool = False

  def capacity(self) -> Capacity:
    """Returns the sampler's table, as planned."""
    return size_table(
      self.sampling,
      self.model,
      self.local_mesh,
      self.prefix,
      self.samples,
      self.device,
    )


class Lowered(NamedTuple):
  """A program, ready to be compiled.

  Attributes:
    name: What it does.
    program: A `jax.stages.Lowered`.
    planned: Bytes of a chip at the peak of its phase, by our plan; 0 where it
      is never the peak.
  """

  name: str
  program: Any
  planned: int


def lower_training(setup: Setup) -> Iterator[Lowered]:
  """Yields a step of the M-step."""
  config, mesh = setup.mstep, setup.mesh
  trained, frozen = _model(setup), None
  if config.lora_rank:
    frozen = trained
    shapes = jax.eval_shape(
      lambda m: lora.init_adapters(m, config.lora_rank, jax.random.key(0)),
      frozen,
    )
    trained = jax.tree.map(_place, shapes, sharding.shardings(shapes, mesh))
  state = update.abstract_state(config, trained, mesh)
  rows = config.rows * shards_of(mesh) * (2 if setup.in_parts else 1)
  kinds = (np.int32,) * 4 + (np.float32,)
  batch = Batch._make(np.zeros((rows, config.row_length), x) for x in kinds)
  by_row = NamedSharding(mesh, PartitionSpec(sharding.ACTIVATIONS['B']))
  with jax.set_mesh(mesh):
    lowered = update.program(config, trained, state).lower(
      trained, state, _places(batch, by_row), np.float32(1e-5), frozen
    )
  plan = estimate.step_memory(
    setup.model, config, mesh, setup.device, setup.in_parts
  )
  yield Lowered('training step', lowered, plan.total)


def lower_hand_over(setup: Setup) -> Iterator[Lowered]:
  """Yields what brings the trainer's weights to the sampler."""
  model, mesh, here = _model(setup), setup.mesh, setup.local_mesh
  processes = mesh.size // here.size
  planned = estimate.hand_over_memory(
    setup.model,
    mesh,
    processes,
    setup.capacity().weight_bytes,
    setup.device,
  )
  if processes == 1:  # The trainer's own are what is handed over.
    planned += estimate.step_memory(
      setup.model, setup.mstep, mesh, setup.device
    ).weights
  else:
    lowered = sharding.gather(mesh, model).lower(model)
    yield Lowered('weights to all processes', lowered, planned)
    places = sharding.shardings(model, here, sharding.COPIES)
    model = jax.tree.map(_place, model, places)
  with jax.set_mesh(here):
    lowered = sampler.hand_over.lower(model, here)
  yield Lowered('weights to the sampler', lowered, planned)


def lower_prefill(setup: Setup) -> Iterator[Lowered]:
  """Yields what reads the prefix, and a load of the longest questions."""
  capacity, mesh = setup.capacity(), setup.local_mesh
  shape = capacity.shape
  model, table = _weights(setup), _table(setup, shape)
  ask = Ask(0, (1,) * shape.question, tuple(range(setup.samples)))
  scheduler = Scheduler(
    shape,
    iter([(0, ask)]),
    shape.samples,
    capacity.questions,
    setup.sampling.max_tokens,
    0,
    (),
    shards_of(mesh),
  )
  planned = capacity.total_bytes
  with jax.set_mesh(mesh):
    if setup.prefix:
      tokens_XT = np.zeros((shards_of(mesh), shape.prefix), np.int32)
      lowered = prefill.load_prefix.lower(model, table, tokens_XT, np.int32(1))
      yield Lowered('prefix', lowered, planned)
    load = scheduler.load()
    lowered = prefill.load_questions.lower(model, table, load, np.int32(1))
    yield Lowered('questions', lowered, planned)


def lower_decoding(setup: Setup) -> Iterator[Lowered]:
  """Yields a call of the first table."""
  capacity, mesh = setup.capacity(), setup.local_mesh
  shape = capacity.shape
  table = _table(setup, shape)
  knobs = Knobs._make(
    [
      *(np.float32(1), np.int32(setup.top_k), np.float32(1)),
      np.full(decode.ENDS, -1, np.int32),
      np.int32(setup.prefix),
    ]
  )
  dropped = Dropped(
    np.full((shape.slots, shape.rows), -1, np.int32),
    np.zeros(table.slots.length_QE.shape, bool),
  )
  program = Program(
    steps=capacity.steps,
    read=read_for(shape.suffix, shape.suffix, setup.model, mesh),
    candidates=candidates_for(setup.top_k, setup.model.vocab),
    mesh=mesh,
  )
  platform = mesh.devices.flat[0].platform
  with jax.set_mesh(mesh):
    lowered = decode.decoding(platform).lower(
      _weights(setup), table, knobs, dropped, program
    )
  name = f'decoding, {shape.size} rows, {capacity.steps} steps a call'
  yield Lowered(name, lowered, capacity.total_bytes)


def lower_rearranging(setup: Setup) -> Iterator[Lowered]:
  """Yields what moves a layer, and rows, to the first table's next size."""
  capacity, mesh = setup.capacity(), setup.local_mesh
  old, *smaller = sizes(capacity, mesh)
  new = smaller[0] if smaller else old
  table, (slots, rows) = _table(setup, old), idle_state(new)
  move = Move(
    slot_QE=slots.count_QE,
    buffer_QE=slots.count_QE,
    row_B=np.zeros(new.size, np.int32),
    entry_QR=rows.entry_QR,
  )
  with jax.set_mesh(mesh):
    lowered = rearrange.move_cache.lower(table.caches[0], move, mesh)
    yield Lowered('a layer to a smaller table', lowered, 0)
    lowered = rearrange.move_rows.lower(table.rows, move, mesh)
    yield Lowered('rows to a smaller table', lowered, 0)


# In the order of an iteration.
LOWERED: dict[str, Callable[[Setup], Iterator[Lowered]]] = {
  'handover': lower_hand_over,
  'prefill': lower_prefill,
  'decode': lower_decoding,
  'rearrange': lower_rearranging,
  'train': lower_training,
}


def _model(setup: Setup) -> Transformer:
  """Returns the shapes and places of the trainer's weights."""
  shapes = jax.eval_shape(lambda: Transformer(setup.model))
  return jax.tree.map(_place, shapes, sharding.shardings(shapes, setup.mesh))


def _weights(setup: Setup) -> Transformer:
  """Returns the shapes and places of the sampler's weights."""
  mesh = setup.local_mesh
  shapes = jax.eval_shape(lambda m: sampler.hand_over(m, mesh), _model(setup))
  places = sharding.shardings(shapes, mesh, sharding.COPIES)
  return jax.tree.map(_place, shapes, places)


def _table(setup: Setup, shape: TableShape) -> Table:
  mesh = setup.local_mesh
  shapes = jax.eval_shape(lambda: empty_table(setup.model, shape, mesh))
  return jax.tree.map(_place, shapes, table_shardings(shapes, mesh))


def _places(tree: Any, place: NamedSharding) -> Any:
  return jax.tree.map(lambda leaf: _place(leaf, place), tree)


def _place(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
