"""What the devices' compiler says of a run's programs, on any CPU.

Nothing runs: it compiles for devices that it is told of.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import jax

from rest.model import sharding
from rest.model.hardware import Device
from rest.plan import elsewhere
from rest.plan.outline import in_parts
from rest.plan.programs import LOWERED, Lowered, Setup
from rest.plan.world import Run

_KINDS = 'all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute'
_COLLECTIVE = re.compile(rf' = (.*?) ({_KINDS})(?:-start)?\(')
_KERNEL = re.compile('custom_call_target="(tpu_custom|triton_kernel)_call')
_ARRAY = re.compile(r'(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')


@dataclass(frozen=True, slots=True)
class Compiled:
  """What the compiler says of a program, on each device.

  Attributes:
    name: Of the program.
    arguments: Bytes that it takes, and holds while it works.
    results: Bytes of what it gives that does not lie in its arguments' place.
    temporary: Bytes of all else at the peak.
    planned: Bytes by our plan; 0 where it has none.
    flops: Of a step; what is in a loop counts once, here and below. 0 where the
      compiler does not say, as that of GPUs.
    moved: Bytes that a step reads and writes; likewise.
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
    """Bytes of a device's memory."""
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
  name = elsewhere.topology(plan_for, world.device, world.mesh.size)
  mesh = sharding.make_mesh(config.mesh, elsewhere.devices(name, world.device))
  setup = Setup(
    model=world.model,
    mesh=mesh,
    sampling_mesh=sharding.sampling_mesh(mesh, world.device),
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
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  return Compiled(
    name=lowered.name,
    arguments=memory.argument_size_in_bytes,
    results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporary=memory.temp_size_in_bytes,
    planned=lowered.planned,
    flops=cost.get('flops', 0.0),  # What only moves has none.
    moved=cost.get('bytes accessed', 0.0),
    collectives=_collectives(text),
    kernels=len(_KERNEL.findall(text)),
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
  step = (
    f'{c.flops / 1e12:.3g} TFLOP, {c.moved / 1e9:.3g} GB: {roof * 1e3:.3g} ms '
    'at the least; '
  )
  return '\n'.join(
    [
      f'{c.name}: compiled in {c.seconds:.0f} s of a processor',
      f'  memory       arguments {gib(c.arguments)} + results {gib(c.results)} '
      f'+ temporary {gib(c.temporary)} = {gib(c.total)} of '
      f'{gib(device.memory)} GiB{plan if c.planned else ""}',
      f'  a step       {step if c.moved else ""}{c.kernels} calls of kernels',
      *(
        f'  {kind:12} {number} of {gib(size)} GiB in all'
        for kind, (number, size) in c.collectives.items()
      ),
    ]
  )
