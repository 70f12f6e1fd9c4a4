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

from rest.config import Decoding, MStepConfig, SamplerConfig
from rest.m_step import update
from rest.m_step.packing import Batch
from rest.model import lora, sharding
from rest.model.hardware import Device
from rest.model.transformer import ModelConfig, Transformer
from rest.plan import estimate
from rest.sampler.capacity import Capacity, size_tables, sizes
from rest.sampler.decode import program_for
from rest.sampler.hand_over import hand_over, handed_over
from rest.sampler.programs import Programs
from rest.sampler.table import placed, shards_of


@dataclass(frozen=True, slots=True)
class Setup:
  """What is compiled for.

  Attributes:
    model: Its shape.
    mesh: Of all chips.
    sampling_mesh: Of those that sample together with the first.
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
  sampling_mesh: Mesh
  device: Device
  mstep: MStepConfig
  sampling: SamplerConfig
  prefix: int
  samples: int
  top_k: int
  in_parts: bool = False

  def capacity(self) -> Capacity:
    """Returns the sampler's first table, as planned."""
    return size_tables(
      self.sampling,
      self.model,
      self.sampling_mesh,
      self.prefix,
      self.samples,
      self.device,
    )[0]


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
    trained = jax.tree.map(placed, shapes, sharding.shardings(shapes, mesh))
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
  mesh = setup.mesh
  planned = estimate.hand_over_memory(
    setup.capacity().weight_bytes, setup.device
  )
  planned += estimate.step_memory(
    setup.model, setup.mstep, mesh, setup.device
  ).weights
  with jax.set_mesh(mesh):
    lowered = hand_over(setup.model, mesh).lower(_model(setup))
  yield Lowered('weights to the sampler', lowered, planned)


def lower_prefill(setup: Setup) -> Iterator[Lowered]:
  """Yields what reads the prefix, and a load of the longest questions."""
  programs = _sampling(setup)
  capacity = programs.capacity
  planned = capacity.total_bytes
  if setup.prefix:
    yield Lowered('prefix', programs.lower_prefix(), planned)
  widest = programs.lower_questions(capacity.shape.question)
  yield Lowered('questions', widest, planned)


def lower_decoding(setup: Setup) -> Iterator[Lowered]:
  """Yields a call of the first table."""
  programs = _sampling(setup)
  capacity = programs.capacity
  shape, steps = capacity.shape, capacity.steps
  program = program_for(
    programs.decoding, setup.model, steps, shape.suffix, setup.sampling_mesh
  )
  name = f'decoding, {shape.size} rows, {steps} steps a call'
  lowered = programs.lower_decoding(shape, program)
  yield Lowered(name, lowered, capacity.total_bytes)


def lower_rearranging(setup: Setup) -> Iterator[Lowered]:
  """Yields what moves a layer, and rows, to the first table's next size."""
  programs = _sampling(setup)
  old, *smaller = sizes(programs.capacity, setup.sampling_mesh)
  new = smaller[0] if smaller else old
  layer, rows = programs.lower_layer(old, new), programs.lower_rows(old, new)
  yield Lowered('a layer to a smaller table', layer, 0)
  yield Lowered('rows to a smaller table', rows, 0)


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
  return jax.tree.map(placed, shapes, sharding.shardings(shapes, setup.mesh))


def _sampling(setup: Setup) -> Programs:
  """Returns the sampler's programs, for weights that need not be there."""
  mesh = setup.sampling_mesh
  weights = handed_over(setup.model, mesh)
  decoding = Decoding(top_k=setup.top_k)
  return Programs(weights, setup.capacity(), mesh, decoding, setup.prefix)


def _places(tree: Any, place: NamedSharding) -> Any:
  return jax.tree.map(lambda leaf: placed(leaf, place), tree)
