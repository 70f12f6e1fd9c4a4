"""What TPUs' own compiler says of a run's programs; it works on any CPU.

The package libtpu has it. It compiles for a slice that it is told of; nothing
runs.
"""

import importlib.util
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from rest.model import sharding
from rest.model.hardware import Device
from rest.plan.outline import in_parts
from rest.plan.programs import LOWERED, Lowered, Setup
from rest.plan.world import Run

_KINDS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_COLLECTIVE = re.compile(rf' = (.*?) ({_KINDS})(?:-start)?\(')
_ARRAY = re.compile(r'(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')


@dataclass(frozen=True, slots=True)
class Compiled:
  """What the compiler says of a program, on each chip.

  Attributes:
    name: Of the program.
    arguments: Bytes that it takes, and holds while it works.
    results: Bytes of what it gives that does not lie in its arguments' place.
    temporary: Bytes of all else at the peak.
    planned: Bytes by our plan; 0 where it has none.
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


def of_run(run: Run, plan_for: str) -> Iterator[str]:
  """Yields what is printed of each program of a run that is planned.

  Args:
    run: Planned for a slice.
    plan_for: The slice, such as 'v5e-16'.

  Raises:
    ValueError: There is no compiler for such devices, or it refuses a program.
  """
  config, world = run.config, run.world
  mesh = sharding.make_mesh(
    config.mesh, chips(topology(plan_for, world.device, world.mesh.size))
  )
  setup = Setup(
    model=world.model,
    mesh=mesh,
    local_mesh=sharding.local_mesh(mesh),
    device=world.device,
    mstep=config.mstep,
    sampling=config.sampling,
    prefix=world.prefix,
    samples=config.estep.num_samples,
    top_k=config.estep.top_k,
    in_parts=in_parts(run),
  )
  for name in LOWERED:
    for compiled in compile_all(setup, name):
      yield report(compiled, world.device)


def topology(plan_for: str, device: Device, count: int) -> str:
  """Returns what libtpu calls a slice: that of v5e-16 is 'v5e:4x4'.

  Raises:
    ValueError: It has no name for it.
  """
  if device.platform != 'tpu':
    raise ValueError(
      f"--compile has TPUs' compiler only; got --plan_for={plan_for}."
    )
  sizes = [2, 2, 1] if device.kind == 'v5p' else [2, 2]
  while math.prod(sizes) < count:  # The last of the shortest sides.
    at = max(i for i, size in enumerate(sizes) if size == min(sizes))
    sizes[at] *= 2
  if math.prod(sizes) != count:
    raise ValueError(
      f'--compile needs a slice of 4, 8, 16 ... chips; --plan_for={plan_for} '
      f'has {count}.'
    )
  return f'{device.kind}:{"x".join(map(str, sizes))}'


def chips(name: str) -> list[Any]:
  """Returns all chips of a topology, such as 'v5e:4x4'.

  Raises:
    ValueError: Their compiler is not installed.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      "TPUs' compiler, the package libtpu, is not installed: "
      "pip install -e '.[tpu]'."
    )
  from jax.experimental import topologies

  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # There is no chip that two processes could want.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  return topologies.get_topology_desc(
    platform='tpu', topology_name=name
  ).devices


def compile_all(setup: Setup, name: str) -> Iterator[Compiled]:
  """Yields what the compiler says of the programs of a name, in `LOWERED`.

  Raises:
    ValueError: It refuses one.
  """
  for lowered in LOWERED[name](setup):
    try:
      yield _read(lowered)
    except jax.errors.JaxRuntimeError as error:
      raise ValueError(
        f'the compiler refuses {lowered.name!r} for {setup.mesh.size} x '
        f'{setup.device.kind}: {str(error).strip().splitlines()[0]}'
      ) from error


def _read(lowered: Lowered) -> Compiled:
  begin = time.process_time()
  compiled = lowered.program.compile()
  seconds = time.process_time() - begin
  text = compiled.as_text()
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  return Compiled(
    name=lowered.name,
    arguments=memory.argument_size_in_bytes,
    results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    planned=lowered.planned,
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
  plan = f'; planned {gib(c.planned)} ({c.planned / c.total - 1:+.0%})'
  roof = max(c.flops / device.flops, c.moved / device.bandwidth)
  return '\n'.join(
    [
      f'{c.name}: compiled in {c.seconds:.0f} s of a processor',
      f'  memory       arguments {gib(c.arguments)} + results {gib(c.results)} '
      f'+ temporary {gib(c.temporary)} = {gib(c.total)} of '
      f'{gib(device.memory)} GiB{plan if c.planned else ""}',
      f'  a step       {c.flops / 1e12:.3g} TFLOP, {c.moved / 1e9:.3g} GB: '
      f'{roof * 1e3:.3g} ms at the least; '
      f'{c.kernels} calls of kernels',
      *(
        f'  {kind:12} {number} of {gib(size)} GiB in all'
        for kind, (number, size) in c.collectives.items()
      ),
    ]
  )
