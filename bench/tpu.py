r"""Compiles a run's programs for TPUs that are not there.

  python -m bench.tpu --topology=v5e:2x2 --shape=1.5b --program=decode
  python -m bench.tpu --topology=v5p:2x2x4 --shape=7b --program=train

They are those of a run: the same jitted functions, lowered for shapes and
places on a described topology, and given to TPUs' own compiler (the package
libtpu), which works on a CPU. Of each it prints memory beside the plan,
operations and bytes a step, the time that the data sheet allows for them,
collectives, and how long it was compiled. Nothing runs.
"""

import argparse
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.shapes import SHAPES
from rest.config import MeshConfig, MStepConfig, SamplerConfig
from rest.m_step import update
from rest.m_step.packing import Batch
from rest.model import hardware, sharding
from rest.model.hardware import Device
from rest.model.transformer import ModelConfig, Transformer
from rest.plan import estimate
from rest.sampler import Ask, decode, prefill, sampler
from rest.sampler.attention import read_for
from rest.sampler.capacity import Capacity, size_table
from rest.sampler.decode import Knobs, Program
from rest.sampler.scheduler import Scheduler
from rest.sampler.table import (
  Dropped,
  Table,
  empty_table,
  shards_of,
  table_shardings,
)
from rest.sampler.token_choice import candidates_for

PREFIX, QUESTION, SAMPLES, TOP_K = 640, 128, 32, 40
PROGRAMS = ('train', 'handover', 'prefill', 'decode')
_KINDS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_COLLECTIVE = re.compile(rf' = (.*?) ({_KINDS})(?:-start)?\(')
_ARRAY = re.compile(r'(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')


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
  """

  model: ModelConfig
  mesh: Mesh
  local_mesh: Mesh
  device: Device
  mstep: MStepConfig
  sampling: SamplerConfig

  def capacity(self) -> Capacity:
    """Returns the sampler's table, as planned."""
    return size_table(
      self.sampling, self.model, self.local_mesh, PREFIX, SAMPLES, self.device
    )


@dataclass(frozen=True, slots=True)
class Compiled:
  """What the compiler says of a program, on each chip.

  Attributes:
    name: Of the program.
    arguments: Bytes that it takes, and holds while it works.
    results: Bytes of what it gives that does not lie in its arguments' place.
    temporary: Bytes of all else at the peak.
    planned: Bytes by our plan.
    flops: Of a step; what is in a loop counts once, here and below.
    moved: Bytes that a step reads and writes.
    collectives: By kind: how many, and bytes of their results.
    kernels: Calls of kernels, such as those of attention.
    seconds: Of processors, that it took to compile.
  """

  name: str
  arguments: int
  results: int
  temporary: int
  planned: int
  flops: float
  moved: float
  collectives: dict[str, tuple[int, int]]
  kernels: int
  seconds: float

  @property
  def total(self) -> int:
    """Bytes of a chip's memory."""
    return self.arguments + self.results + self.temporary


def describe(topology: str) -> tuple[Device, list[Any]]:
  """Returns the kind of chip of 'v5e:4x4', and all chips."""
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # There is no chip that two processes could want.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  found = topologies.get_topology_desc(platform='tpu', topology_name=topology)
  device, _ = hardware.parse(f'{topology.partition(":")[0]}-8')
  return device, found.devices


def setup(
  topology: str, model: ModelConfig, tensor: int, rows: int, table: int = 0
) -> Setup:
  """Returns what a run on a topology compiles for.

  Args:
    topology: Such as 'v5e:4x4'.
    model: Its shape.
    tensor: Chips that share a matrix product; all others share the weights.
    rows: Of training, on each chip.
    table: Rows of sampling on each process; 0: planned.
  """
  device, devices = describe(topology)
  mesh = sharding.make_mesh(
    MeshConfig(data=1, fsdp=len(devices) // tensor, tensor=tensor), devices
  )
  return Setup(
    model=model,
    mesh=mesh,
    local_mesh=sharding.local_mesh(mesh),
    device=device,
    # As JAX's kernel has it; with prefixes shared, attention is plain.
    mstep=MStepConfig(rows=rows, row_length=2048, share_prefixes=False),
    sampling=SamplerConfig(rows=table),
  )


def compile_all(setup: Setup, name: str) -> Iterator[Compiled]:
  """Yields what the compiler says of the programs of a name."""
  lower = {
    'train': _train,
    'handover': _hand_over,
    'prefill': _prefill,
    'decode': _decode,
  }[name]
  for title, lowered, planned in lower(setup):
    yield _read(title, lowered, planned)


def _train(setup: Setup) -> Iterator[tuple[str, Any, int]]:
  config, mesh = setup.mstep, setup.mesh
  model = _model(setup)
  state = update.abstract_state(config, model, mesh)
  shape = (config.rows * mesh.size // mesh.shape['tensor'], config.row_length)
  kinds = (np.int32,) * 4 + (np.float32,)
  batch = Batch._make(np.zeros(shape, kind) for kind in kinds)
  rows = NamedSharding(mesh, PartitionSpec(sharding.ACTIVATIONS['B']))
  with jax.set_mesh(mesh):
    program = update.program(config, model, state)
    lowered = program.lower(
      model, state, _places(batch, rows), np.float32(1e-5), None
    )
  plan = estimate.step_memory(setup.model, config, mesh, setup.device)
  yield 'training step', lowered, plan.total


def _hand_over(setup: Setup) -> Iterator[tuple[str, Any, int]]:
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
    yield 'weights to all processes', lowered, planned
    places = sharding.shardings(model, here, sharding.COPIES)
    model = jax.tree.map(_place, model, places)
  with jax.set_mesh(here):
    lowered = sampler.hand_over.lower(model, here)
  yield 'weights to the sampler', lowered, planned


def _prefill(setup: Setup) -> Iterator[tuple[str, Any, int]]:
  capacity, mesh = setup.capacity(), setup.local_mesh
  model, table = _weights(setup), _table(setup, capacity)
  scheduler = Scheduler(
    capacity.shape,
    iter([(0, Ask(0, (1,) * QUESTION, tuple(range(SAMPLES))))]),
    SAMPLES,
    capacity.questions,
    setup.sampling.max_tokens,
    0,
    (),
    shards_of(mesh),
  )
  tokens_XT = np.zeros((shards_of(mesh), capacity.shape.prefix), np.int32)
  planned = capacity.total_bytes
  with jax.set_mesh(mesh):
    lowered = prefill.load_prefix.lower(model, table, tokens_XT, np.int32(1))
    yield 'prefix', lowered, planned
    load = scheduler.load()
    lowered = prefill.load_questions.lower(model, table, load, np.int32(1))
    yield 'questions', lowered, planned


def _decode(setup: Setup) -> Iterator[tuple[str, Any, int]]:
  capacity, mesh = setup.capacity(), setup.local_mesh
  shape = capacity.shape
  table = _table(setup, capacity)
  knobs = Knobs(
    *(np.float32(1), np.int32(TOP_K), np.float32(1)),
    ends_Z=np.full(decode.ENDS, -1, np.int32),
    prefix=np.int32(PREFIX),
  )
  dropped = Dropped(
    np.full((shape.slots, shape.rows), -1, np.int32),
    np.zeros(table.slots.length_QE.shape, bool),
  )
  program = Program(
    steps=capacity.steps,
    read=read_for(shape.suffix, shape.suffix, setup.model, mesh),
    candidates=candidates_for(TOP_K, setup.model.vocab),
    mesh=mesh,
  )
  with jax.set_mesh(mesh):
    lowered = decode.decoding('tpu').lower(
      _weights(setup), table, knobs, dropped, program
    )
  name = f'decoding, {shape.size} rows, {capacity.steps} steps a call'
  yield name, lowered, capacity.total_bytes


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


def _table(setup: Setup, capacity: Capacity) -> Table:
  mesh = setup.local_mesh
  shapes = jax.eval_shape(
    lambda: empty_table(setup.model, capacity.shape, mesh)
  )
  return jax.tree.map(_place, shapes, table_shardings(shapes, mesh))


def _places(tree: Any, place: NamedSharding) -> Any:
  return jax.tree.map(lambda leaf: _place(leaf, place), tree)


def _place(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _read(title: str, lowered: Any, planned: int) -> Compiled:
  begin = time.process_time()
  compiled = lowered.compile()
  seconds = time.process_time() - begin
  text = compiled.as_text()
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  return Compiled(
    name=title,
    arguments=memory.argument_size_in_bytes,
    results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    planned=planned,
    flops=cost.get('flops', 0.0),  # What only moves has none.
    moved=cost['bytes accessed'],
    collectives=_collectives(text),
    kernels=text.count('custom_call_target="tpu_custom_call"'),
    seconds=seconds,
  )


def _collectives(text: str) -> dict[str, tuple[int, int]]:
  """Returns how many of each kind there are, and bytes of their results."""
  count: Counter[str] = Counter()
  size: Counter[str] = Counter()
  for shapes, kind in _COLLECTIVE.findall(text):
    count[kind] += 1
    size[kind] += max(
      math.prod(int(n) for n in axes.split(',') if n) * int(bits or 8) // 8
      for _, bits, axes in _ARRAY.findall(shapes)
    )
  return {kind: (count[kind], size[kind]) for kind in count}


def report(compiled: Compiled, device: Device) -> str:
  """Returns what is printed of a program."""

  def gib(size: float) -> str:
    return f'{size / 2**30:.2f}'

  c = compiled
  roof = max(c.flops / device.flops, c.moved / device.bandwidth)
  return '\n'.join(
    [
      f'{c.name}: compiled in {c.seconds:.0f} s of a processor',
      f'  memory       arguments {gib(c.arguments)} + results {gib(c.results)} '
      f'+ temporary {gib(c.temporary)} = {gib(c.total)} of '
      f'{gib(device.memory)} GiB; planned {gib(c.planned)} '
      f'({c.planned / c.total - 1:+.0%})',
      f'  a step       {c.flops / 1e12:.3g} TFLOP, {c.moved / 1e9:.3g} GB: '
      f'{roof * 1e3:.3g} ms at the least; '
      f'{c.kernels} calls of kernels',
      *(
        f'  {kind:12} {number} of {gib(size)} GiB in all'
        for kind, (number, size) in c.collectives.items()
      ),
    ]
  )


def main() -> None:
  """Compiles what the flags say."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--topology', default='v5e:2x2')
  parser.add_argument('--shape', choices=SHAPES, default='1.5b')
  parser.add_argument('--program', choices=PROGRAMS, default='decode')
  parser.add_argument('--layers', type=int, default=0, help='0: all.')
  parser.add_argument('--tensor', type=int, default=1, help='Chips.')
  parser.add_argument('--rows', type=int, default=1, help='Trained, a chip.')
  parser.add_argument('--table', type=int, default=0, help='0: planned.')
  flags = parser.parse_args()
  model = SHAPES[flags.shape]
  if flags.layers:
    model = replace(model, layers=flags.layers)
  there = setup(flags.topology, model, flags.tensor, flags.rows, flags.table)
  print(f'jax {jax.__version__}, {there.mesh.size} x {there.device.kind}')
  for compiled in compile_all(there, flags.program):
    print(report(compiled, there.device), flush=True)


if __name__ == '__main__':
  main()
