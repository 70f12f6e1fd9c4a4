"""How fast the M-step trains: tokens/s, share of the hardware's peak, memory.

  python -m bench.training --shape=1.5b --check
  python -m bench.training --shape=1.5b --rows=8 --against=torch
  python -m bench.training --shape=7b --rows=3

Full fine-tuning with AdamW, float32 weights and state, bfloat16 products;
packed rows of 2,048 tokens: prompts of 300 and completions of lognormal length
(median 160, sigma 0.6, cut to 16..512), loss on completions only. Timed over
`fine_tune` itself, from one step's metrics to the next's.
"""

import argparse
import dataclasses
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bench.shapes import SHAPES
from rest.config import MStepConfig
from rest.m_step.fine_tune import fine_tune
from rest.m_step.packing import Batch, Example, pack
from rest.m_step.schedule import Schedule
from rest.m_step.update import gradients, put
from rest.model import sharding
from rest.model.sharding import leaf_name
from rest.model.transformer import ModelConfig, Transformer
from rest.plan.estimate import count_parameters, flops_per_token, step_memory
from rest.sampler.capacity import find_device

PEAK = 990e12  # Dense bfloat16 FLOP/s of an H200, by the datasheet.


def make_examples(
  tokens: int, prompt: int, median: int, vocab: int
) -> list[Example]:
  """Returns sequences of random ids with about so many tokens in all."""
  random = np.random.default_rng(0)
  examples, total = [], 0
  while total < tokens:
    length = random.lognormal(np.log(median), 0.6)
    length = int(np.clip(length, 16, 3.2 * median))
    ids = tuple(random.integers(1, vocab, prompt + length).tolist())
    examples.append(Example(ids[:prompt], ids[prompt:]))
    total += examples[-1].length
  return examples


def measure(
  config: ModelConfig, m_step: MStepConfig, lengths: tuple[int, int], mesh: Mesh
) -> None:
  """Trains for `max_steps` steps and prints one line a figure."""
  steps = m_step.max_steps
  step_tokens = m_step.rows * m_step.row_length
  examples = make_examples(
    int(1.1 * steps * step_tokens), *lengths, config.vocab
  )
  stamps = [time.perf_counter()]
  result = fine_tune(
    _random_model(config, mesh),
    examples,
    m_step,
    mesh,
    seed=0,
    on_step=lambda done, metrics: stamps.append(time.perf_counter()),
  )
  seconds = np.diff(stamps)
  # The first step compiles; the second is reported late with the third.
  steady = seconds[2:-1]
  rate = step_tokens / np.median(steady)
  share = rate * flops_per_token(config, m_step.row_length) / PEAK
  share /= jax.device_count()
  feeding = time_feeding(examples, m_step, mesh)[2:-1]
  _print('parameters', f'{count_parameters(config):,}')
  _print('step', f'{step_tokens:,} tokens, {m_step.remat} kept, {steps} steps')
  _print('padding', f'{result.summary["padding"]:.1%}')
  _print('first step', f'{seconds[0]:.1f} s, compilation included')
  _print('median step', f'{np.median(steady) * 1e3:.1f} ms')
  late = np.quantile(steady, 0.99) / np.median(steady)
  _print('p99 / median', f'{late:.3f} (must 1.1)')
  _print(
    'data wait',
    f'{feeding.sum() / steady.sum():.2%} of a step (must 1 %), '
    f'{np.median(feeding) * 1e3:.2f} ms a batch',
  )
  _print('tokens/s', f'{rate:,.0f}')
  _print('a device', f'{share * PEAK / 1e12:.0f} TFLOP/s, {share:.1%} of 990')
  _print_memory(config, m_step, mesh)


def time_feeding(
  examples: list[Example], m_step: MStepConfig, mesh: Mesh
) -> np.ndarray:
  """Returns the seconds for the batch of each step, made and on the devices.

  Fed as the trainer feeds its steps, but on idle devices, and waited for. In
  training they compute meanwhile: they wait for less than this, if at all.
  """
  schedule = Schedule(examples, m_step, seed=0)
  seconds = []
  for step in range(schedule.steps):
    start = time.perf_counter()
    jax.block_until_ready(put(schedule.batch(step), mesh))
    seconds.append(time.perf_counter() - start)
  return np.array(seconds)


def check_packing(config: ModelConfig) -> None:
  """Prints how far packed rows and single sequences are from the reference.

  Two layers of the model on this device, in its dtype, with the attention that
  training runs there: a few sequences in one row, more in three rows, and each
  in a row of its own. The reference is the packed rows in float32, with plain
  attention.
  """
  config = dataclasses.replace(config, layers=2, vocab=2048)
  exact = dataclasses.replace(config, dtype='float32')
  for rows in (1, 3):
    # Enough tokens for a last row that is not empty; the rest of it is padding.
    tokens = int((rows - 0.3) * 2048)
    examples = make_examples(tokens, 300, 160, config.vocab)
    packed = pack(examples, 2048, rows)[0]
    alone = [pack([example], 2048, 1)[0] for example in examples]
    alone = Batch(*map(np.concatenate, zip(*alone, strict=True)))
    with jax.default_matmul_precision('highest'):
      reference = _gradients(exact, packed)
    _print('packing', f'{len(examples)} sequences, rows of them: {rows}')
    for name, batch in (('packed', packed), ('alone', alone)):
      far, worst = _farthest(_gradients(config, batch), reference)
      _print(f'  {name} from float32', f'{far:.1e} at most ({worst})')


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


def _gradients(config: ModelConfig, batch: Batch) -> Transformer:
  model = _random_model(config, sharding.make_mesh(sharding.MeshConfig()))
  run = jax.jit(gradients, static_argnames='config')
  return run(model, batch, config=MStepConfig(rows=1))[1]


def measure_torch(
  config: ModelConfig, m_step: MStepConfig, lengths: tuple[int, int]
) -> None:
  """Times `transformers` with `torch.compile` on the same rows.

  It has the easier load: attention runs over whole rows, as if they held one
  sequence (segments would need another kernel), in the fastest form it has.
  """
  import torch
  import transformers

  rows, steps = m_step.rows, m_step.max_steps
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
  tokens = int(1.1 * steps * rows * m_step.row_length)
  examples = make_examples(tokens, *lengths, config.vocab)
  seconds = []
  for batch in itertools.islice(pack(examples, m_step.row_length, rows), steps):
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
  rate = rows * m_step.row_length / np.median(seconds[2:])
  share = rate * flops_per_token(config, m_step.row_length) / PEAK
  _print('torch.compile', f'{torch.__version__}, {rows} rows a step')
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
  parser.add_argument('--rows', type=int, default=16)
  parser.add_argument('--row_length', type=int, default=2048)
  parser.add_argument('--remat', default='matmuls')
  parser.add_argument('--steps', type=int, default=12)
  parser.add_argument('--prompt', type=int, default=300, help='Tokens.')
  parser.add_argument(
    '--median', type=int, default=160, help='Tokens of completions.'
  )
  parser.add_argument('--fsdp', type=int, default=1, help='Devices.')
  parser.add_argument(
    '--check', action='store_true', help='Packing, and the rate of products.'
  )
  parser.add_argument('--against', choices=('', 'torch'), default='')
  args = parser.parse_args()
  config = SHAPES[args.shape]
  m_step = MStepConfig(
    rows=args.rows,
    row_length=args.row_length,
    remat=args.remat,
    max_steps=args.steps,
    epochs=1,
    stop='fixed_steps',
  )
  lengths = args.prompt, args.median
  _print('shape', args.shape)
  if args.against == 'torch':
    measure_torch(config, m_step, lengths)
    return
  mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=args.fsdp))
  _print('device', f'{jax.device_count()} x {jax.devices()[0].device_kind}')
  if args.check:
    measure_matmul()
    check_packing(config)
  measure(config, m_step, lengths, mesh)


def _print_memory(config: ModelConfig, m_step: MStepConfig, mesh: Mesh) -> None:
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
