"""A run on paper: what it takes of each device, what it compiles, how long.

It works for devices that are not there (`rest.model.hardware`), and refuses
what does not fit them by the field to change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath
from jax.sharding import AbstractMesh, Mesh

from rest import report
from rest.config import (
  EMConfig,
  EStepConfig,
  EvaluateConfig,
  MStepConfig,
  SamplerConfig,
)
from rest.model.hardware import Device, runs_kernels
from rest.model.transformer import ModelConfig
from rest.plan import estimate
from rest.plan.estimate import StepMemory
from rest.sampler.attention import reads
from rest.sampler.choice import candidates_for
from rest.sampler.plan import Plan, sizes, widths
from rest.tasks.suites import Suite
from rest.types import Task, Tokenizer

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Outline:
  """What a plan is made from.

  Attributes:
    base: Directory of the base model.
    leaks: Training problems dropped.
    task: Its problem set.
    tokenizer: Of the model.
    model: Its shape.
    mesh: Of all devices, which need not exist.
    local_mesh: The part of one process.
    device: What kind they are.
    prefix: Tokens of the shared prefix.
    questions: Tokens of each question, by split.
    table: The sampler's.
    em: The outer loop.
    estep: What is drawn.
    sampling: How.
    mstep: How it is trained on.
    eval: What is measured.
    suites: And on what beside the task's own problems.
  """

  base: str
  leaks: int
  task: Task
  tokenizer: Tokenizer
  model: ModelConfig
  mesh: Mesh | AbstractMesh
  local_mesh: Mesh | AbstractMesh
  device: Device
  prefix: int
  questions: Mapping[str, Sequence[int]]
  table: Plan
  em: EMConfig
  estep: EStepConfig
  sampling: SamplerConfig
  mstep: MStepConfig
  eval: EvaluateConfig
  suites: Sequence[Suite]


def check(run: Outline) -> None:
  """Raises ValueError, by field, if the devices' memory does not suffice."""
  step = _step(run)
  if step.total > run.device.memory:
    raise ValueError(
      f'The M-step needs {_gib(step.total)} GiB a device, but '
      f'{_gib(run.device.memory)} GiB are there ({step}): {_advice(run, step)}.'
    )
  if not run.questions['validation'] or run.em.validation != 'accuracy':
    return
  both = step.weights + step.optimizer + _sampling(run)
  if run.mstep.lora_rank:
    both += step.weights  # Merged.
  if both > run.device.memory:
    raise ValueError(
      'Validation within the M-step needs '
      f'{_gib(both)} GiB a device, as weights and optimizer stay while the '
      f'sampler works ({_gib(_sampling(run))}), but '
      f'{_gib(run.device.memory)} GiB are there: lower sampling.rows '
      f"(now {run.table.shape.size}), set em.validation='loss', or raise "
      f'mesh.fsdp (now {run.mesh.shape["fsdp"]}).'
    )


def describe(run: Outline, workdir: epath.PathLike) -> str:
  """Returns the plan, a line a part."""
  most = min(run.estep.cap or run.estep.num_samples, run.estep.num_samples)
  splits = {name: len(lengths) for name, lengths in run.questions.items()}
  samples = splits['train'] * run.estep.num_samples
  longest = run.prefix + max(max(n, default=0) for n in run.questions.values())
  mstep, done = run.mstep, len(report.read(workdir))
  return '\n'.join(
    [
      f'workdir   {workdir} ({done} evaluations are there)',
      f'devices   {run.mesh.size} x {run.device.kind} in {_processes(run)} '
      f'processes: {dict(run.mesh.shape)}',
      f'model     {run.base}: '
      f'{estimate.count_parameters(run.model) / 1e6:,.1f} M parameters, '
      f'{run.model.dtype}',
      f'task      {run.task.name}: '
      + ', '.join(f'{count:,} {name}' for name, count in splits.items())
      + f'; {run.leaks} dropped as leaks; longest prompt {longest} tokens',
      f'E-step    {samples:,} samples an iteration, at most '
      f'{splits["train"] * most:,} kept',
      f'sampler   {run.table}',
      f'M-step    {mstep.rows} rows of {mstep.row_length} tokens a step, '
      f'{mstep.epochs} epochs, {mstep.optimizer}; {_step(run)} of '
      f'{_gib(run.device.memory)} GiB a device',
      f'evaluate  {_scored(run):,} completions an iteration'
      + ''.join(
        f'; {suite.label} {len(suite.problems):,}, {len(suite.leaks)} dropped '
        'as leaks'
        for suite in run.suites
      ),
      f'loop      {run.em.iterations} iterations, each from the '
      f'{run.em.start_from} model',
      f'compiles  {_programs(run)}',
      *_hours(run),
    ]
  )


def _step(run: Outline) -> StepMemory:
  return estimate.step_memory(run.model, run.mstep, run.mesh, run.device)


def _sampling(run: Outline) -> int:
  """Returns what the sampler adds to what the trainer holds.

  Where there are several processes, weights come over as a float32 copy.
  """
  weights = run.table.weight_bytes
  if _processes(run) > 1:
    weights += (
      4 * estimate.count_parameters(run.model) // (run.mesh.shape['tensor'])
    )
  return max(run.table.total_bytes, weights)


def _advice(run: Outline, step: StepMemory) -> str:
  """Returns which fields to change, those that help most first."""
  mesh, mstep = run.mesh.shape, run.mstep
  lasting = step.weights + step.optimizer + step.gradients + step.copies
  if lasting > run.device.memory // 2:
    return (
      f'raise mesh.fsdp (now {mesh["fsdp"]}) or mesh.tensor '
      f"({mesh['tensor']}), or set mstep.optimizer='adafactor' or "
      'mstep.lora_rank'
    )
  return (
    f'raise mstep.accumulate (now {mstep.accumulate}), lower mstep.rows '
    f'({mstep.rows}) or mstep.row_length ({mstep.row_length}), or set '
    f"mstep.remat='full' (now {mstep.remat!r})"
  )


def _processes(run: Outline) -> int:
  return run.mesh.size // run.local_mesh.size


def _scored(run: Outline) -> int:
  """Returns completions drawn for scores after an iteration."""
  test = len(run.questions['test'])
  sampled = min(run.eval.num_problems or test, test)
  greedy = test + len(run.questions['validation'])
  greedy += sum(len(suite.problems) for suite in run.suites)
  return greedy + run.eval.num_samples * sampled


def _programs(run: Outline) -> str:
  """Returns how many programs will be compiled, of which kind."""
  shape, vocab = run.table.shape, run.model.vocab
  top_ks = [run.sampling.top_k, run.sampling.top_k or 1]  # Sampled; greedy.
  top_ks += [run.eval.top_k] if run.eval.num_samples else []
  choices = {candidates_for(top_k, vocab) for top_k in top_ks}
  kernels = runs_kernels(
    run.device.platform, run.model.dtype, run.model.head_width
  )
  lengths = len(reads(shape.suffix, kernels))
  tables = len(list(sizes(run.table, run.local_mesh)))
  prefill = 1 + len(widths(shape.question))
  decoding = tables * lengths * len(choices)
  return (
    f'training 2, hand-over {min(_processes(run), 2)}, prefill at most '
    f'{prefill}, decoding at most {decoding} (sizes of the table {tables}, '
    f'lengths read {lengths}, ways to choose a token {len(choices)})'
  )


def _hours(run: Outline) -> list[str]:
  """Returns lines about the time that each phase takes."""
  rates = estimate.rates(run.model, run.mstep.row_length, run.device)
  if rates is None:
    return [f'hours     no rates are known for {run.device.kind}']
  length, source = _length(run)
  train, most = len(run.questions['train']), run.estep.num_samples
  kept = min(run.estep.cap or most, most)
  prompt = run.prefix + sum(run.questions['train']) / train
  trained = train * kept * run.mstep.epochs * (prompt + length)
  hours = {
    'E-step': train * most * length / rates.drawn / 3600,
    'M-step, at most': trained / rates.trained / 3600,
    'evaluation': _scored(run) * length / rates.drawn / 3600,
  }
  total = run.em.iterations * sum(hours.values()) + hours['evaluation']
  phases = ', '.join(f'{name} {value:,.1f}' for name, value in hours.items())
  return [
    f'hours     an iteration, in device-hours: {phases}',
    f'          {run.em.iterations} iterations: {total:,.1f} device-hours, '
    f'{total / run.mesh.size:,.1f} hours on {run.mesh.size} devices',
    f'          at {rates.drawn:,.0f} tokens/s drawn and {rates.trained:,.0f} '
    'trained on a device: those of one H200 (bench/NOTES.md), scaled by data '
    f'sheets; {length:,.0f} tokens a completion ({source})',
  ]


def _length(run: Outline) -> tuple[float, str]:
  """Returns the tokens of a completion to reckon with, and where from."""
  limit = run.sampling.max_tokens
  solved = [p for p in run.task.problems('train') if p.solution is not None]
  lengths = [
    len(run.tokenizer.encode(run.task.target(problem), follows=True)) + 1
    for problem in solved[:200]
  ]
  if not lengths:
    return limit, 'the most allowed'
  return min(limit, sum(lengths) / len(lengths)), 'as human solutions'


def _gib(size: float) -> str:
  return f'{size / _GIB:.2f}'
