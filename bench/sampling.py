"""Times the E-step's sampling: python -m bench.sampling --shape=1.5b.

Random weights, imposed lengths (see `bench.workload`). The first run compiles;
the second is reported, from the first prompt in to the last token out, with
prefill, refills and tail. Prints the rate beside the roof by operations, the
rows kept busy, the device's idle time and its memory beside the plan.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from bench import workload
from bench.shapes import SHAPES
from rest.model import ModelConfig, Transformer
from rest.sampler import Sampler, SamplerConfig, Stats
from rest.sampler.decode import decode, load_prefix, load_questions
from rest.sharding import MeshConfig, make_mesh


class Numbers:
  """A tokenizer without text: lengths are imposed, nothing ends early."""

  vocab_size = 0
  bos = None
  eos = ()
  pad = 0

  def encode(self, text: str) -> list[int]:
    """Returns the code points."""
    return [ord(c) for c in text]

  def decode(
    self, tokens: list[int] | tuple[int, ...], follows: bool = False
  ) -> str:
    """Returns the ids as text."""
    del follows
    return ' '.join(map(str, tokens))


def main():
  """Runs the load and prints the report."""
  flags = _flags()
  config = SHAPES[flags.shape]
  mesh = make_mesh(MeshConfig(tensor=flags.tensor))
  load = workload.make(
    flags.problems,
    flags.samples,
    flags.prefix,
    vocab=config.vocab - 1,
    longest=flags.longest,
  )
  settings = SamplerConfig(
    max_tokens=flags.longest,
    max_prompt_tokens=flags.prefix + 192,
    rows=flags.rows,
    rows_per_slot=flags.rows_per_slot,
    min_rows=flags.min_rows,
    steps_per_call=flags.steps,
  )
  start = time.monotonic()
  sampler = Sampler(_random(config), Numbers(), settings, mesh, seed=0)
  jax.block_until_ready(sampler.model)
  first = next(iter(sampler.sample(load.prefix, load.asks)))
  print(f'to the first completion: {time.monotonic() - start:.1f} s', first[:2])
  seconds = _hand_over(sampler, config)
  plan = sampler.plan(len(load.prefix), flags.samples)
  print(f'{jax.__version__}, {jax.device_count()} x {jax.devices()[0]}')
  print(f'{flags.shape}: {config}\n{plan}\nhand-over {seconds:.2f} s')
  for run in range(flags.runs):
    compiled = _compiled()
    sampler.stats = Stats()
    for _ in sampler.sample(load.prefix, load.asks):
      pass
    _report(run, sampler.stats, load, config, _compiled() - compiled)
  _memory(plan)


def _report(run, stats, load, config, compiled):
  rate = load.tokens / stats.seconds
  parameters = sum(
    x.size for x in jax.tree.leaves(jax.eval_shape(lambda: Transformer(config)))
  )
  if not config.tied:
    parameters -= config.vocab * config.width
  flops = 2 * parameters * rate
  print(
    f'run {run}: {load.completions} completions, {load.tokens} tokens, '
    f'{stats.seconds:.2f} s, {rate:,.0f} tokens/s, {flops / 1e12:.1f} TFLOP/s '
    f'in weights, rows busy {stats.busy:.3f}, {stats.calls} calls, '
    f'idle {stats.idle_seconds / stats.seconds:.3f}, compiled {compiled}',
    flush=True,
  )


def _random(config: ModelConfig) -> Transformer:
  dtype = jnp.dtype(config.dtype)

  @jax.jit
  def make(key):
    return jax.tree.map(lambda x: x.astype(dtype), Transformer(config, key))

  return make(jax.random.key(0))


def _hand_over(sampler, config) -> float:
  model = jax.block_until_ready(_random(config))
  start = time.monotonic()
  sampler.set_weights(model)
  jax.block_until_ready(sampler.model)
  return time.monotonic() - start


def _compiled() -> int:
  programs = (decode, load_prefix, load_questions)
  return sum(program._cache_size() for program in programs)


def _memory(plan):
  stats = jax.devices()[0].memory_stats()
  if stats:
    print(
      f'peak memory {stats["peak_bytes_in_use"] / 2**30:.2f} GiB, planned '
      f'{plan.total_bytes / 2**30:.2f} GiB'
    )


def _flags():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--shape', choices=SHAPES, default='tiny')
  parser.add_argument('--problems', type=int, default=128)
  parser.add_argument('--samples', type=int, default=32)
  parser.add_argument('--prefix', type=int, default=640)
  parser.add_argument('--longest', type=int, default=512)
  parser.add_argument('--rows', type=int, default=0)
  parser.add_argument('--rows_per_slot', type=int, default=0)
  parser.add_argument('--min_rows', type=int, default=0)
  parser.add_argument('--steps', type=int, default=0)
  parser.add_argument('--tensor', type=int, default=1)
  parser.add_argument('--runs', type=int, default=2)
  return parser.parse_args()


if __name__ == '__main__':
  main()
