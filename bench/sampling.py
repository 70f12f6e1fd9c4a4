r"""Times the E-step's sampling, and says what a step is made of.

  python -m bench.sampling --shape=1.5b --cache=/tmp/programs
  python -m bench.sampling --shape=7b --problems=64
  python -m bench.sampling --shape=1.5b --data=2
  taskset -c 0 python -m bench.sampling --problems=6 --samples=8 --prefix=64 \
    --longest=128 --rows=48 --against=transformers
  python -m bench.sampling --shape=1.5b --check

Random weights, imposed lengths (see `bench.workload`). The last run is the one
that counts, from the first prompt in to the last token out, with prefill,
refills and tail; the first one compiles. Every figure stands beside what it is
to reach. With `--cache`, a second start finds its programs compiled; with
`--model`, weights are read from that folder (made if it is not there).
"""

import argparse
import dataclasses
import gc
import os
import pathlib
import time
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bench import step, workload
from bench.generate import Transformers
from bench.shapes import SHAPES
from rest.model import sharding, weights
from rest.model.sharding import MeshConfig, make_mesh
from rest.model.transformer import ModelConfig, Transformer
from rest.sampler import Ask, Decoding, Sampler, SamplerConfig, Stats
from rest.sampler.attention import read_for
from rest.sampler.decode import program_for

TOP_K = 40
# Tokens/s to reach on one H200, and to aim for.
RATES = {'1.5b': (80_000, 110_000), '7b': (30_000, 38_000)}
# vLLM 0.22.1 with 1024 sequences on the same load and the same kind of GPU.
VLLM = {'1.5b': 33_342, '7b': 22_370}


class Numbers:
  """A tokenizer without text: lengths are imposed, nothing ends early."""

  vocab_size = 0
  bos: int | None = None
  eos: tuple[int, ...] = ()
  pad = 0

  def encode(self, text: str, follows: bool = False) -> list[int]:
    """Returns the code points."""
    del follows
    return [ord(c) for c in text]

  def decode(self, tokens: Sequence[int], follows: bool = False) -> str:
    """Returns the ids as text."""
    del follows
    return ' '.join(map(str, tokens))


class Bench:
  """A sampler, its load, and what is measured of them."""

  def __init__(self, flags: argparse.Namespace):
    self.flags = flags
    self.config = dataclasses.replace(
      SHAPES[flags.shape], context=flags.prefix + 192 + flags.longest
    )
    count = flags.data * flags.tensor
    self.mesh = make_mesh(
      MeshConfig(data=flags.data, tensor=flags.tensor), jax.devices()[:count]
    )
    self.load = workload.make(
      flags.problems * flags.data,
      flags.samples,
      flags.prefix,
      vocab=self.config.vocab - 1,
      longest=flags.longest,
      median=flags.median,
      sigma=flags.sigma,
    )
    settings = SamplerConfig(
      max_tokens=flags.longest,
      max_prompt_tokens=flags.prefix + 192,
      rows=flags.rows,
      rows_per_slot=flags.rows_per_slot,
      min_rows=flags.min_rows,
      steps_per_call=flags.steps,
    )
    self.sampler = Sampler(
      self.config,
      Numbers(),
      settings,
      self.mesh,
      seed=0,
      decoding=Decoding(top_k=TOP_K),
    )
    self.tables = self.sampler.tables(len(self.load.prefix), flags.samples)
    self.capacity = self.tables[0]
    self.sampler.set_weights(self.model())
    _print('weights ready', f'{age():.1f} s after the process began')
    self.peak = _peak(self.mesh)  # Of making weights; often less than later.

  def model(self) -> Transformer:
    """Returns the trainer's: stacked, in float32."""
    folder = self.flags.model
    if folder and pathlib.Path(folder).exists():
      return weights.load(folder, self.mesh, self.config.dtype)
    model = _random(self.config, self.mesh)
    if folder:
      weights.save(model, folder, None, dtype='bfloat16')
    return model

  def start(self) -> None:
    """Draws one token, from the start of the process."""
    ask = Ask(0, self.load.asks[0].tokens, (0,), (1,))
    next(self._sample([ask]))
    hits = f'{EVENTS["cache_hits"]} of {EVENTS["programs"]} programs from cache'
    _print('process start to first token', f'{age():.1f} s', '<= 25 s', hits)

  def run(self) -> None:
    """Draws the load, and reports."""
    programs = EVENTS['programs']
    self.sampler.stats = Stats()
    host = time.thread_time()
    for _ in self._sample(self.load.asks):
      pass
    host = time.thread_time() - host
    stats, shape = self.sampler.stats, self.capacity.shape
    rate = self.load.tokens / stats.seconds
    must, aim = RATES.get(self.flags.shape, (0, 0))
    copies = self.flags.data
    _print(
      'tokens/s',
      f'{rate:,.0f}',
      f'>= {must * copies:,}, aim {aim * copies:,}' if must else '',
      f'{self.load.completions} completions, {self.load.tokens:,} tokens, '
      f'{stats.seconds:.2f} s',
    )
    if must:
      _print(
        '  of vLLM 0.22.1', f'{rate / copies / VLLM[self.flags.shape]:.2f}'
      )
    if len(self.tables) == 1:
      whole = stats.calls * self.capacity.steps * shape.size
      goal = '>= 0.88' if len(self.load.asks) >= 512 * copies else '>= 0.72'
      _print('rows busy', f'{stats.busy_row_steps / whole:.3f}', goal)
    _print('  of those the table has kept', f'{stats.busy:.3f}')
    idle = stats.idle_seconds / stats.seconds
    _print('device idle between calls', f'{idle:.1%}', '<= 3 %')
    _print('host at work', f'{host / stats.seconds:.1%}', '', 'one thread')
    compiled = EVENTS['programs'] - programs
    _print('programs compiled', str(compiled), '0 in a second run')

  def memory(self) -> None:
    """Reports the peak so far beside what was planned."""
    peak = _peak(self.mesh)
    planned = max(table.total_bytes for table in self.tables)
    _print(
      'peak memory',
      f'{peak / 2**30:.2f} GiB' if peak else 'not counted here',
      'within 5 % of plan',
      f'planned {planned / 2**30:.2f} GiB, of it {peak / planned:.1%}; '
      f'{self.peak / 2**30:.2f} GiB before the first prompt',
    )

  def step(self) -> None:
    """Reports the parts of a step in the middle of the load, and the roofs."""
    sampler, load, capacity = self.sampler, self.load, self.capacity
    questions = sum(len(ask.tokens) for ask in load.asks) // len(load.asks)
    drawn = int(_mean_suffix(load))
    lengths = (len(load.prefix), questions, drawn)
    model = sampler.model
    sampler.release()  # Its table; the weights stay here.
    steps, suffix = capacity.steps, capacity.shape.suffix
    read = read_for(drawn + steps, suffix, self.config, self.mesh)
    decoding = Decoding(top_k=TOP_K)
    program = program_for(decoding, self.config, steps, read, self.mesh)
    seconds = step.parts(model, capacity, program, lengths, TOP_K)
    whole = seconds['step']
    shape = capacity.shape
    print(
      f'\na step of {shape.size} rows, {drawn} tokens drawn '
      f'({shape.size / whole:,.0f} tokens/s while all rows are at work)'
    )
    for name, value in seconds.items():
      _print(f'  {name}', f'{value * 1e3:.3f} ms', '', f'{value / whole:.1%}')
    self._roofs(lengths)

  def _roofs(self, lengths: tuple[int, int, int]) -> None:
    config, shape = self.config, self.capacity.shape
    is_cpu = jax.devices()[0].platform == 'cpu'
    flops = step.products_rate(config.dtype, 1024 if is_cpu else 8192)
    copied = step.copy_rate((1 << 26) if is_cpu else (1 << 31))
    used = _parameters(config)
    if not config.tied:
      used -= config.vocab * config.width  # Embeddings are looked up.
    size = jnp.dtype(config.dtype).itemsize
    token = 2 * config.layers * config.kv_heads * config.head_width * size
    prefix, question, drawn = lengths
    copies = self.flags.data
    slots, rows = shape.slots // copies, shape.size // copies
    read = used * size + token * (prefix + slots * question + rows * drawn)
    devices = self.mesh.size
    _print(
      'roof by operations', f'{devices * flops / (2 * used):,.0f} tokens/s'
    )
    _print('  products here', f'{flops / 1e12:.3g} TFLOP/s')
    by_bytes = devices * copied / read * rows
    _print(
      'roof by bytes', f'{by_bytes:,.0f} tokens/s', '', f'{read:.3g} a step'
    )
    _print('  copies here', f'{copied / 1e12:.3g} TB/s')

  def hand_over(self) -> None:
    """Reports how long new weights take from the trainer to the sampler."""
    model = jax.block_until_ready(_random(self.config, self.mesh))
    seconds = 0.0
    for _ in range(2):  # The first one compiles.
      begin = time.monotonic()
      self.sampler.set_weights(model)
      jax.block_until_ready(self.sampler.model)
      seconds = time.monotonic() - begin
      self.sampler.release()
    _print('hand-over of weights', f'{seconds:.2f} s', '< 1 s')

  def against(self) -> None:
    """Reports how many times as fast as `transformers` this is, by turns.

    On CPUs in processor seconds, as they are rarely left alone: under
    `taskset -c 0`, with one thread each, these are what both would take.
    """
    is_cpu = self.mesh.devices.flat[0].platform == 'cpu'
    clock = time.process_time if is_cpu else time.monotonic
    threads = len(os.sched_getaffinity(0))
    other = Transformers(
      _random(self.config, self.mesh), self.capacity.shape.size, threads
    )
    for _ in range(self.flags.runs):
      begin = clock()
      other.draw(self.load)
      middle = clock()
      for _ in self._sample(self.load.asks):
        pass
      theirs, ours = middle - begin, clock() - middle
      _print(
        f'{other.version} generate',
        f'{self.load.tokens / theirs:,.0f} tokens/s',
        '',
        f'ours {self.load.tokens / ours:,.0f}, {theirs / ours:.2f} times as '
        f'fast; {threads} threads',
      )

  def _sample(self, asks):
    return self.sampler.sample(
      self.load.prefix, asks, samples=self.flags.samples
    )


def main() -> None:
  """Measures what the flags say."""
  jax.monitoring.register_event_duration_secs_listener(_count_programs)
  jax.monitoring.register_event_listener(_count_hits)
  flags = _flags()
  if flags.cache:
    jax.config.update('jax_compilation_cache_dir', flags.cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  _print('jax', jax.__version__)
  _print('device', f'{jax.device_count()} x {jax.devices()[0].device_kind}')
  if flags.check:
    if jax.devices()[0].platform != 'gpu':
      raise ValueError('--check needs a GPU; tests interpret the kernels.')
    for name, far in step.check(SHAPES[flags.shape]).items():
      _print(name, f'{far:.1e}', '<= 1e-2', 'relative, over random lengths')
    return
  bench = Bench(flags)
  print(f'{flags.shape}: {bench.config}', *bench.tables, sep='\n')
  bench.start()
  for run in range(flags.runs):
    print(f'\nrun {run + 1}')
    bench.run()
  bench.memory()
  if flags.against:
    bench.against()
    return
  if flags.parts:
    bench.step()
  else:
    bench.sampler.release()
  gc.collect()
  bench.hand_over()


EVENTS: Counter[str] = Counter()


def _count_programs(event: str, duration_secs: float, **_: object) -> None:
  del duration_secs  # Of a compilation, or of reading its result.
  EVENTS['programs'] += event == '/jax/core/compile/backend_compile_duration'


def _count_hits(event: str, **_: object) -> None:
  EVENTS['cache_hits'] += event == '/jax/compilation_cache/cache_hits'


def _print(name: str, value: str, goal: str = '', note: str = '') -> None:
  print(f'{name:30}{value:>22}  {goal:28}{note}'.rstrip(), flush=True)


def age() -> float:
  """Returns the seconds since this process began (Linux)."""
  fields = pathlib.Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()
  uptime = float(pathlib.Path('/proc/uptime').read_text().split()[0])
  return uptime - int(fields[19]) / os.sysconf('SC_CLK_TCK')


def _peak(mesh: jax.sharding.Mesh) -> int:
  """Returns the most bytes in use so far on a device; 0 where none counts."""
  stats = mesh.devices.flat[0].memory_stats()
  return stats['peak_bytes_in_use'] if stats else 0


def _mean_suffix(load: workload.Workload) -> float:
  """Returns the mean over all tokens of how many were drawn before them."""
  limits = [limit for ask in load.asks for limit in ask.limits]
  return sum(n * (n - 1) / 2 for n in limits) / sum(limits)


def _parameters(config: ModelConfig) -> int:
  shapes = jax.eval_shape(lambda: Transformer(config))
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _random(config: ModelConfig, mesh: jax.sharding.Mesh) -> Transformer:
  def make() -> Transformer:
    return Transformer(config, jax.random.key(0))

  places = sharding.shardings(jax.eval_shape(make), mesh)
  return jax.jit(make, out_shardings=places)()


def _flags() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--shape', choices=SHAPES, default='tiny')
  parser.add_argument(
    '--problems', type=int, default=128, help='For each of --data.'
  )
  parser.add_argument('--samples', type=int, default=32, help='Of a problem.')
  parser.add_argument('--prefix', type=int, default=640, help='Tokens.')
  parser.add_argument('--longest', type=int, default=512, help='Tokens.')
  parser.add_argument('--median', type=int, default=160, help='Tokens.')
  parser.add_argument('--sigma', type=float, default=0.6, help='Of lengths.')
  parser.add_argument('--rows', type=int, default=0, help='0: planned.')
  parser.add_argument('--rows_per_slot', type=int, default=0)
  parser.add_argument('--min_rows', type=int, default=0)
  parser.add_argument('--steps', type=int, default=0, help='Of a call.')
  parser.add_argument('--data', type=int, default=1, help='Devices.')
  parser.add_argument('--tensor', type=int, default=1, help='Devices.')
  parser.add_argument('--runs', type=int, default=2)
  parser.add_argument('--model', default='', help='Folder of weights.')
  parser.add_argument('--cache', default='', help='Folder of programs.')
  parser.add_argument(
    '--parts',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='What a step is made of, and the roofs.',
  )
  parser.add_argument('--against', choices=('', 'transformers'), default='')
  parser.add_argument(
    '--check', action='store_true', help='Kernels against plain attention.'
  )
  return parser.parse_args()


if __name__ == '__main__':
  main()
