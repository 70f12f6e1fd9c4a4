"""How fast the M-step trains: tokens/s, share of the hardware's peak, memory.

  python -m bench.training --shape=1.5b --check
  python -m bench.training --shape=1.5b --batch=32 --against=torch
  python -m bench.training --shape=7b --batch=12
  python -m bench.training --shape=1.5b --gsm8k --batch=32 --check

Full fine-tuning with AdamW, float32 weights and state, bfloat16 products;
packed rows of 2,048 tokens: prompts of 300 that share nothing and completions
of lognormal length (median 160, sigma 0.6, cut to 16..512), loss on completions
only. With --gsm8k, what GSM8K keeps, once without sharing in such rows and once
with: a prefix of 700 tokens, questions of about 80, four completions of a
median of 110 of each. Timed over `fine_tune` itself, from one step's metrics to
the next's.
"""

import argparse
import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bench.shapes import SHAPES
from rest.config import MStepConfig
from rest.m_step.fine_tune import fine_tune
from rest.m_step.packing import Batch, Example, Shape, pack, plan
from rest.m_step.schedule import Schedule
from rest.m_step.update import Metrics, gradients, put
from rest.model import sharding
from rest.model.sharding import leaf_name
from rest.model.transformer import ModelConfig, Transformer
from rest.plan.estimate import count_parameters, flops_per_token, step_memory
from rest.sampler.capacity import find_device

PEAK = 990e12  # Dense bfloat16 FLOP/s of an H200, by the datasheet.


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
  """What examples are made of, in tokens.

  Attributes:
    prefix: Shared by all.
    question: On average, give or take a quarter.
    median: Of completions.
    solutions: How many of each question.
  """

  prefix: int
  question: int
  median: int
  solutions: int


GSM8K = Lengths(prefix=700, question=80, median=110, solutions=4)


def make_examples(count: int, lengths: Lengths, vocab: int) -> list[Example]:
  """Returns so many solutions of random ids."""
  random = np.random.default_rng(0)

  def ids(length: int) -> tuple[int, ...]:
    return tuple(random.integers(1, vocab, length).tolist())

  prefix, question, examples = ids(lengths.prefix), (), []
  for i in range(count):
    if i % lengths.solutions == 0:
      question = ids(int(lengths.question * random.uniform(0.75, 1.25)))
    length = random.lognormal(np.log(lengths.median), 0.6)
    length = int(np.clip(length, 16, 3.2 * lengths.median))
    examples.append(Example(question, ids(length), prefix=prefix))
  return examples


def measure(
  config: ModelConfig, m_step: MStepConfig, lengths: Lengths, mesh: Mesh
) -> float:
  """Trains for `max_steps` steps, prints a line a figure; loss tokens/s."""
  steps = m_step.max_steps
  examples = make_examples(steps * m_step.batch, lengths, config.vocab)
  schedule = Schedule(examples, m_step, 0, mesh.size // mesh.shape['tensor'])
  shape = schedule.shape
  stamps, weights = [time.perf_counter()], []

  def on_step(done: int, metrics: Metrics) -> None:
    stamps.append(time.perf_counter())
    weights.append(metrics.weight)

  fine_tune(
    lambda: _random_model(config, mesh),
    examples,
    m_step,
    mesh,
    seed=0,
    on_step=on_step,
  )
  seconds = np.diff(stamps)
  # The first step compiles; the second is reported late with the third.
  steady = seconds[2:-1]
  median = np.median(steady)
  positions = shape.rows * shape.length
  rate = positions / median
  path = examples[0].length if lengths.prefix else m_step.row_length
  share = rate * flops_per_token(config, path) / PEAK / jax.device_count()
  feeding = time_feeding(schedule, mesh)[2:-1]
  _print('parameters', f'{count_parameters(config):,}')
  _print('sharing', f'{m_step.share_prefixes}')
  _print('step', f'{shape.rows} rows of {shape.length}, {m_step.remat} kept')
  _print('solutions a step', f'{len(examples) / steps:.1f}, {steps} steps')
  _print('positions a solution', f'{positions * steps / len(examples):.1f}')
  _print('padding', f'{shape.padding:.1%}')
  _print('first step', f'{seconds[0]:.1f} s, compilation included')
  _print('median step', f'{median * 1e3:.1f} ms')
  _print('p99 / median', f'{np.quantile(steady, 0.99) / median:.3f} (must 1.1)')
  _print(
    'data wait',
    f'{feeding.sum() / steady.sum():.2%} of a step (must 1 %), '
    f'{np.median(feeding) * 1e3:.2f} ms a batch',
  )
  _print('tokens/s', f'{rate:,.0f}')
  _print('loss tokens/s', f'{np.mean(weights) / median:,.0f}')
  _print('a device', f'{share * PEAK / 1e12:.0f} TFLOP/s, {share:.1%} of 990')
  _print_memory(config, m_step, shape, mesh)
  return float(np.mean(weights) / median)


def time_feeding(schedule: Schedule, mesh: Mesh) -> np.ndarray:
  """Returns the seconds for the batch of each step, made and on the devices.

  Fed as the trainer feeds its steps, but on idle devices, and waited for. In
  training they compute meanwhile: they wait for less than this, if at all.
  """
  seconds = []
  for step in range(schedule.steps):
    start = time.perf_counter()
    jax.block_until_ready(put(schedule.batch(step), mesh))
    seconds.append(time.perf_counter() - start)
  return np.array(seconds)


def check_packing(config: ModelConfig) -> None:
  """Prints how far packed rows and single sequences are from the reference.

  Two layers of the model on this device, in its dtype, with the attention that
  training runs there: a few solutions in one row of a prefix and questions,
  more in several, and each in a row of its own. The reference is the packed
  rows in float32, with plain attention. Once more with a window and a soft-cap.
  """
  config = dataclasses.replace(config, layers=2, vocab=2048)
  gemma = dataclasses.replace(config, windows=(256, 0), attention_softcap=50.0)
  for what, model in (('', config), (', window and soft-cap', gemma)):
    exact = dataclasses.replace(model, dtype='float32')
    for count in (8, 28):
      examples = make_examples(count, GSM8K, config.vocab)
      shape = plan(examples, [range(count)], 2048, 4, 1, share=True)
      packed = pack(examples, range(count), shape, True)
      alone = [
        pack([example], [0], Shape(1, 2048, 0), False) for example in examples
      ]
      alone = Batch(*map(np.concatenate, zip(*alone, strict=True)))
      with jax.default_matmul_precision('highest'):
        loss, exactly = _gradients(exact, packed)
      _print('packing', f'{count} solutions, rows of them: {shape.rows}{what}')
      for name, batch in (('packed', packed), ('alone', alone)):
        found, gradient = _gradients(model, batch)
        far, worst = _farthest(gradient, exactly)
        _print(
          f'  {name} from float32',
          f'{far:.1e} at most ({worst}), loss {abs(found / loss - 1):.1e}',
        )


def _farthest(gradient: Transformer, exact: Transformer) -> tuple[float, str]:
  """Returns the largest relative difference of a parameter, and its name."""
  return max(
    (
      # What is not a number is the farthest of all.
      float(
        jnp.nan_to_num(
          jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()),
          nan=jnp.inf,
        )
      ),
      leaf_name(path),
    )
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(gradient),
      jax.tree.leaves(exact),
      strict=True,
    )
  )


def _gradients(config: ModelConfig, batch: Batch) -> tuple[float, Transformer]:
  model = _random_model(config, sharding.make_mesh(sharding.MeshConfig()))
  run = jax.jit(gradients, static_argnames='config')
  loss, gradient = run(model, batch, config=MStepConfig(rows=len(batch[0])))
  return float(loss), gradient


def measure_torch(
  config: ModelConfig, m_step: MStepConfig, lengths: Lengths
) -> None:
  """Times `transformers` with `torch.compile` on the same rows.

  It has the easier load: attention runs over whole rows, as if they held one
  sequence (segments would need another kernel), in the fastest form it has.
  """
  import torch
  import transformers

  steps = m_step.max_steps
  torch.set_float32_matmul_precision('high')
  model = transformers.Qwen2ForCausalLM(  # pyright: ignore  # Typed as if unbound.
    transformers.Qwen2Config(
      vocab_size=config.vocab,
      hidden_size=config.width,
      num_hidden_layers=config.layers,
      num_attention_heads=config.heads,
      num_key_value_heads=config.kv_heads,
      intermediate_size=config.ffn,
      tie_word_embeddings=config.tied,
      max_position_embeddings=m_step.row_length,
      use_cache=False,
    )
  ).cuda()
  compiled = torch.compile(model)
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
  examples = make_examples(steps * m_step.batch, lengths, config.vocab)
  schedule = Schedule(examples, m_step, 0)
  shape = schedule.shape
  seconds = []
  for step in range(steps):
    batch = schedule.batch(step)
    start = time.perf_counter()
    labels = np.where(batch.weights_BT > 0, batch.targets_BT, -100)
    # The model shifts labels itself.
    labels = np.roll(labels, 1, axis=1)
    labels[:, 0] = -100
    with torch.autocast('cuda', torch.bfloat16):
      loss = compiled(
        input_ids=torch.from_numpy(batch.tokens_BT).long().cuda(),
        labels=torch.from_numpy(labels).long().cuda(),
      ).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    seconds.append(time.perf_counter() - start)
  rate = shape.rows * shape.length / np.median(seconds[2:])
  share = rate * flops_per_token(config, shape.length) / PEAK
  _print('torch.compile', f'{torch.__version__}, {shape.rows} rows a step')
  _print('median step', f'{np.median(seconds[2:]) * 1e3:.1f} ms')
  _print('tokens/s', f'{rate:,.0f}')
  _print('model FLOP/s', f'{share * PEAK / 1e12:.0f} T, {share:.1%} of 990 T')
  peak = torch.cuda.max_memory_allocated()
  _print('memory: peak', f'{peak / 2**30:.1f} GiB')


def measure_matmul() -> None:
  """Prints what a large bfloat16 product reaches here, on random numbers."""
  a, b = (
    jax.random.normal(jax.random.key(i), (8192, 8192), jnp.bfloat16)
    for i in range(2)
  )
  run = jax.jit(jnp.matmul)
  run(a, b).block_until_ready()
  start = time.perf_counter()
  for _ in range(20):
    c = run(a, b)
  c.block_until_ready()
  rate = 20 * 2 * 8192**3 / (time.perf_counter() - start)
  _print('matrix product 8192^3', f'{rate / 1e12:.0f} TFLOP/s')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--shape', choices=SHAPES, default='1.5b')
  parser.add_argument('--batch', type=int, default=64, help='Solutions a step.')
  parser.add_argument('--remat', default='matmuls')
  parser.add_argument('--steps', type=int, default=12)
  parser.add_argument('--prompt', type=int, default=300, help='Tokens.')
  parser.add_argument(
    '--median', type=int, default=160, help='Tokens of completions.'
  )
  parser.add_argument('--fsdp', type=int, default=1, help='Devices.')
  parser.add_argument('--tensor', type=int, default=1, help='Devices.')
  parser.add_argument(
    '--gsm8k', action='store_true', help='Without and with sharing.'
  )
  parser.add_argument(
    '--check', action='store_true', help='Packing, and the rate of products.'
  )
  parser.add_argument('--against', choices=('', 'torch'), default='')
  args = parser.parse_args()
  config = SHAPES[args.shape]
  apart = MStepConfig(
    batch=args.batch,
    rows=args.batch,
    row_length=2048,
    share_prefixes=False,
    remat=args.remat,
    max_steps=args.steps,
    epochs=1,
    stop='fixed_steps',
  )
  lengths = Lengths(0, args.prompt, args.median, 1)
  _print('shape', args.shape)
  if args.against == 'torch':
    measure_torch(config, apart, lengths)
    return
  mesh = sharding.make_mesh(
    sharding.MeshConfig(fsdp=args.fsdp, tensor=args.tensor)
  )
  _print('device', f'{jax.device_count()} x {jax.devices()[0].device_kind}')
  if args.check:
    measure_matmul()
    check_packing(config)
  if not args.gsm8k:
    measure(config, apart, lengths, mesh)
    return
  shared = dataclasses.replace(apart, row_length=8192, share_prefixes=True)
  before, after = (
    measure(config, m_step, GSM8K, mesh) for m_step in (apart, shared)
  )
  _print(
    'sharing', f'{after / before:.2f} x the loss tokens/s (must 3.5, aim 5)'
  )


def _print_memory(
  config: ModelConfig, m_step: MStepConfig, shape: Shape, mesh: Mesh
) -> None:
  shards = mesh.size // mesh.shape['tensor']
  rows = shape.rows // shards
  m_step = dataclasses.replace(m_step, rows=rows, row_length=shape.length)
  planned = step_memory(config, m_step, mesh, find_device())
  for field in dataclasses.fields(planned):
    size = getattr(planned, field.name)
    _print(f'planned: {field.name}', f'{size / 2**30:.1f} GiB')
  _print('planned: all', f'{planned.total / 2**30:.1f} GiB')
  stats = jax.devices()[0].memory_stats()
  if stats:  # CPUs keep no such count.
    peak = stats['peak_bytes_in_use']
    share = planned.total / peak
    _print('memory: peak', f'{peak / 2**30:.1f} GiB; planned {share:.1%}')


def _print(name: str, value: str) -> None:
  print(f'{name:28}{value}', flush=True)


def _random_model(config: ModelConfig, mesh: Mesh) -> Transformer:
  def make() -> Transformer:
    return Transformer(config, jax.random.key(0))

  places = sharding.shardings(jax.eval_shape(make), mesh)
  return jax.jit(make, out_shardings=places)()


if __name__ == '__main__':
  main()
