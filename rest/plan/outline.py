"""A run on paper: what it takes of each device, what it compiles, how long.

It works for devices that are not there (`rest.model.hardware`), and refuses
what does not fit them by the field to change.
"""

from rest import report
from rest.model.hardware import runs_kernels
from rest.plan import estimate, prompt
from rest.plan.estimate import StepMemory
from rest.plan.world import Run
from rest.sampler.attention import reads
from rest.sampler.capacity import sizes, widths
from rest.sampler.token_choice import candidates_for

_GIB = 2**30


def check(run: Run) -> None:
  """Raises ValueError, by field, if the devices' memory does not suffice."""
  config, world = run.config, run.world
  step = _step(run)
  if step.total > world.device.memory:
    raise ValueError(
      f'The M-step needs {_gib(step.total)} GiB a device, but '
      f'{_gib(world.device.memory)} GiB are there ({step}): '
      f'{_advice(run, step)}.'
    )
  handed = step.weights + _handed(run)
  if handed > world.device.memory:
    raise ValueError(
      f'To hand weights to the sampler takes {_gib(handed)} GiB a device, but '
      f'{_gib(world.device.memory)} GiB are there: raise mesh.fsdp (now '
      f'{world.mesh.shape["fsdp"]}) or mesh.tensor '
      f'({world.mesh.shape["tensor"]}).'
    )
  validates = config.mstep.eval_every and world.questions['validation']
  if not validates or config.em.validation != 'accuracy':
    return
  both = step.weights + step.optimizer + _sampling(run)
  if config.mstep.lora_rank:
    both += step.weights  # Merged.
  if both > world.device.memory:
    raise ValueError(
      'Validation within the M-step needs '
      f'{_gib(both)} GiB a device, as weights and optimizer stay while the '
      f'sampler works ({_gib(_sampling(run))}), but '
      f'{_gib(world.device.memory)} GiB are there: lower sampling.rows '
      f"(now {world.tables[0].shape.size}), set em.validation='loss' or "
      'mstep.eval_every=0, or raise mesh.fsdp (now '
      f'{world.mesh.shape["fsdp"]}).'
    )


def describe(run: Run) -> str:
  """Returns the plan, a line a part."""
  config, world = run.config, run.world
  most = min(
    config.estep.cap or config.estep.num_samples,
    config.estep.num_samples,
  )
  splits = {name: len(lengths) for name, lengths in world.questions.items()}
  samples = splits['train'] * config.estep.num_samples
  longest = world.prefix + max(
    max(n, default=0) for n in world.questions.values()
  )
  mstep, done = config.mstep, len(report.read(run.workdir))
  return '\n'.join(
    [
      f'workdir   {run.workdir} ({done} evaluations are there)',
      f'devices   {world.mesh.size} x {world.device.kind}, of which '
      f'{world.sampling_mesh.size} sample together: {dict(world.mesh.shape)}',
      f'model     {config.model.path}: '
      f'{estimate.count_parameters(world.model) / 1e6:,.1f} M parameters, '
      f'{world.model.dtype}',
      f'task      {world.task.name}: '
      + ', '.join(f'{count:,} {name}' for name, count in splits.items())
      + f'; {len(world.leaks)} dropped as leaks; longest prompt {longest} '
      'tokens',
      f'E-step    {samples:,} samples an iteration, at most '
      f'{splits["train"] * most:,} kept',
      f'sampler   {world.tables[0]}',
      *(f'          longer ones in {table}' for table in world.tables[1:]),
      f'M-step    {mstep.batch} solutions a step, in rows of at most '
      f'{mstep.row_length} tokens, at most {mstep.rows} a device at a time, '
      f'{mstep.epochs} epochs, {mstep.optimizer}; {_step(run)} of '
      f'{_gib(world.device.memory)} GiB a device' + _left_out(run),
      f'evaluate  {_scored(run):,} completions an iteration'
      + ''.join(
        f'; {suite.label} {len(suite.problems):,}, {len(suite.leaks)} dropped '
        'as leaks'
        for suite in world.suites
      ),
      f'loop      {config.em.iterations} iterations, each from the '
      f'{config.em.start_from} model',
      f'compiles  {_programs(run)}',
      *_hours(run),
      *prompt.describe(run),
    ]
  )


def in_parts(run: Run) -> bool:
  """Whether a batch is likely to need more rows than are worked on at a time.

  That is reckoned with completions as long as `_length` says.
  """
  mstep, world = run.config.mstep, run.world
  shards = world.mesh.shape['data'] * world.mesh.shape['fsdp']
  questions = world.questions['train']
  path = sum(questions) / len(questions) + _length(run)[0]
  prefixes = shards if mstep.share_prefixes else mstep.batch
  positions = prefixes * world.prefix + mstep.batch * path
  return positions > shards * mstep.rows * mstep.row_length


def _left_out(run: Run) -> str:
  """Says which completions no training row has room for, if any may be."""
  config, world = run.config, run.world
  prefix = world.prefix if config.em.train_prompt != 'zero_shot' else 0
  prompt = prefix + max(world.questions['train'])
  most = config.mstep.row_length + 1 - prompt
  if config.sampling.max_tokens <= most:
    return ''
  return (
    f'; behind a prompt of {prompt} tokens, solutions of more than {most} are '
    'left out: mstep.row_length holds no longer ones'
  )


def _step(run: Run) -> StepMemory:
  config, world = run.config, run.world
  return estimate.step_memory(
    world.model, config.mstep, world.mesh, world.device, in_parts(run)
  )


def _sampling(run: Run) -> int:
  """Returns what the sampler adds to what the trainer holds."""
  tables = [table.total_bytes for table in run.world.tables]
  return max(_handed(run), *tables)


def _handed(run: Run) -> int:
  """Returns what weights add to the trainer's while they are handed over."""
  world = run.world
  return estimate.hand_over_memory(world.tables[0].weight_bytes, world.device)


def _advice(run: Run, step: StepMemory) -> str:
  """Returns which fields to change, those that help most first."""
  config, world = run.config, run.world
  mesh, mstep = world.mesh.shape, config.mstep
  lasting = step.weights + step.optimizer + step.gradients + step.copies
  if lasting > world.device.memory // 2:
    return (
      f'raise mesh.fsdp (now {mesh["fsdp"]}) or mesh.tensor '
      f"({mesh['tensor']}), or set mstep.optimizer='adafactor' or "
      'mstep.lora_rank'
    )
  return (
    f'lower mstep.rows (now {mstep.rows}) or mstep.row_length '
    f"({mstep.row_length}), or set mstep.remat='full' (now {mstep.remat!r})"
  )


def _scored(run: Run) -> int:
  """Returns completions drawn for scores after an iteration."""
  config, world = run.config, run.world
  test = len(world.questions['test'])
  sampled = min(config.eval.num_problems or test, test)
  greedy = test + len(world.questions['validation'])
  greedy += sum(len(suite.problems) for suite in world.suites)
  return greedy + config.eval.num_samples * sampled


def _programs(run: Run) -> str:
  """Returns how many programs will be compiled, of which kind."""
  config, world = run.config, run.world
  vocab = world.model.vocab
  top_ks = [
    config.estep.top_k,
    config.estep.top_k or 1,
  ]  # Sampled; greedy.
  top_ks += [config.eval.top_k] if config.eval.num_samples else []
  choices = {candidates_for(top_k, vocab) for top_k in top_ks}
  kernels = runs_kernels(
    world.device.platform, world.model.dtype, world.model.head_width
  )
  shrunk = [len([*sizes(table, world.sampling_mesh)]) for table in world.tables]
  lengths = [len(reads(table.shape.suffix, kernels)) for table in world.tables]
  prefill = sum(1 + len(widths(table.shape.question)) for table in world.tables)
  decoding = sum(s * n for s, n in zip(shrunk, lengths, strict=True))
  return (
    f'training 2, hand-over 1, prefill at most {prefill}, decoding at most '
    f'{decoding * len(choices)} (sizes of tables '
    f'{sum(shrunk)}, lengths read {max(lengths)}, ways to choose a token '
    f'{len(choices)})'
  )


def rates_of(run: Run) -> estimate.Rates | None:
  """Returns what to expect of a run's devices, where they are known."""
  world = run.world
  questions = world.questions['train']
  question = sum(questions) / len(questions)
  return estimate.rates(
    world.model,
    round(world.prefix + question + _length(run)[0]),
    run.config.mstep.share_prefixes,
    world.device,
  )


def _hours(run: Run) -> list[str]:
  """Returns lines about the time that each phase takes."""
  config, world = run.config, run.world
  length, source = _length(run)
  train, most = len(world.questions['train']), config.estep.num_samples
  kept = min(config.estep.cap or most, most)
  question, mstep = sum(world.questions['train']) / train, config.mstep
  rates = rates_of(run)
  if rates is None:
    return [f'hours     no rates are known for {world.device.kind}']
  if mstep.share_prefixes:  # A step has the prefix and each question once.
    prefixes = train * kept / mstep.batch * world.prefix
    prompts = prefixes + train * question
  else:
    prompts = train * kept * (world.prefix + question)
  trained = mstep.epochs * (prompts + train * kept * length)
  hours = {
    'E-step': train * most * length / rates.drawn / 3600,
    'M-step, at most': trained / rates.trained / 3600,
    'evaluation': _scored(run) * length / rates.drawn / 3600,
  }
  total = config.em.iterations * sum(hours.values()) + hours['evaluation']
  phases = ', '.join(f'{name} {value:,.2f}' for name, value in hours.items())
  return [
    f'hours     an iteration, in device-hours: {phases}',
    f'          {config.em.iterations} iterations: {total:,.2f} device-hours, '
    f'{total / world.mesh.size:,.2f} by the clock',
    f'          at {rates.drawn:,.0f} tokens/s drawn and {rates.trained:,.0f} '
    'trained on a device: those of one H200 (bench/NOTES.md), scaled by data '
    f'sheets; {length:,.0f} tokens a completion ({source})',
  ]


def _length(run: Run) -> tuple[float, str]:
  """Returns the tokens of a completion to reckon with, and where from."""
  config, world = run.config, run.world
  limit = config.sampling.max_tokens
  solved = [p for p in world.task.problems('train') if p.solution is not None]
  lengths = [
    len(world.tokenizer.encode(world.task.target(problem), follows=True)) + 1
    for problem in solved[:200]
  ]
  if not lengths:
    return limit, 'the most allowed'
  return min(limit, sum(lengths) / len(lengths)), 'as human solutions'


def _gib(size: float) -> str:
  return f'{size / _GIB:.2f}'
