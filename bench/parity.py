"""Greedy text of the sampler beside that of `generate`, on a real model.

  python -m bench.parity --model=DIR --task=gsm8k --data=FOLDER
  python -m bench.parity --model=DIR --task=mbpp --data=FOLDER --tokens=32

Both read the same directory, in float32, and go on from the same ids, those of
a problem set's first test prompts. Where they first part, the two best logits
of the reference say how close the choice was: under `TIE` it is rounding. It
exits with 1 if they part anywhere else. Needs torch and transformers, and
holds the model twice while the sampler takes its weights.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rest import tasks
from rest.e_step.draw import prompt_tokens
from rest.model import tokenizer, weights
from rest.model import transformer as lm
from rest.model.attention import plain_attention
from rest.model.sharding import MeshConfig, make_mesh
from rest.sampler import Ask, Sampler, SamplerConfig
from rest.types import Completion, Problem, Task, Tokenizer

TIE = 1e-3  # Of logits: closer ones may change places by rounding.


@dataclass(frozen=True, slots=True)
class Ours:
  """What the sampler made of the prompts.

  Attributes:
    completions: One a prompt.
    logits_V: Of the first prompt's last position.
  """

  completions: list[Completion]
  logits_V: np.ndarray


def main() -> None:
  """Prints the table."""
  flags = _parser().parse_args()
  config = tasks.TaskConfig(flags.task, flags.data, prompt=flags.prompt)
  task = tasks.make(config)
  problems = task.problems('test')[: flags.prompts]
  codec = tokenizer.load(flags.model)
  parts = [prompt_tokens(task, codec, problem) for problem in problems]
  lengths = [len(prefix) + len(question) for prefix, question in parts]
  print(
    f'{flags.model}, float32; {task.name} {task.prompt}, {len(problems)} '
    f'prompts of {min(lengths)} to {max(lengths)} tokens; end tokens '
    f'{codec.eos}, begin token {codec.bos}',
    flush=True,
  )
  ours = _draw(flags.model, codec, parts, flags.tokens)
  theirs = _Reference(flags.model, codec, flags.tokens)
  sys.exit(_compare(task, problems, parts, ours, theirs))


def _draw(
  path: str,
  codec: Tokenizer,
  parts: Sequence[tuple[list[int], list[int]]],
  tokens: int,
) -> Ours:
  """Draws the completions; the weights are gone afterwards."""
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  prefix = parts[0][0]
  config = SamplerConfig(
    max_tokens=tokens,
    max_prompt_tokens=max(len(prefix) + len(q) for _, q in parts),
    rows=len(parts),
  )
  model = weights.load(path, mesh, 'float32', config.longest)
  logits_V = np.asarray(
    _last_logits(model, jnp.asarray([prefix + parts[0][1]]))
  )
  sampler = Sampler(model.config, codec, config, mesh, seed=0)
  sampler.set_weights(model)
  del model
  asks = [Ask(i, tuple(q), (0,)) for i, (_, q) in enumerate(parts)]
  drawn = {
    i: completion
    for i, _, completion in sampler.sample(prefix, asks, temperature=0.0)
  }
  return Ours([drawn[i] for i in range(len(parts))], logits_V)


@jax.jit
def _last_logits(model: lm.Transformer, tokens_BT: jax.Array) -> jax.Array:
  """Returns the logits of the last position, by plain attention."""
  positions_BT = jnp.arange(tokens_BT.shape[1])[None]
  ends_BT = jnp.full_like(tokens_BT, tokens_BT.shape[1])
  attend = plain_attention(model.config, ends_BT, positions_BT)
  x_BTD, _ = lm.backbone(lm.unstack(model), tokens_BT, positions_BT, attend)
  return lm.logits(model, x_BTD[:, -1])[0]


class _Reference:
  """A model and a tokenizer of transformers."""

  def __init__(self, path: str, codec: Tokenizer, tokens: int):
    import torch
    import transformers

    self.codec = transformers.AutoTokenizer.from_pretrained(path)
    self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
      path, dtype=torch.float32
    ).eval()
    self._torch = torch
    self._tokens = tokens
    self._cache: Any = None
    named = self._model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    begins = self.codec('a')['input_ids'][:1] == [codec.bos]
    print(
      f'transformers {transformers.__version__}: end tokens {named}'
      f'{"" if {*named} <= {*codec.eos} else " (not all are ours)"}, a begin '
      f'token {"as ours" if begins == (codec.bos is not None) else "NOT ours"}'
    )

  def keep(self, prefix: Sequence[int]) -> None:
    """Runs the model on what all prompts begin with, once."""
    with self._torch.inference_mode():
      if prefix:
        row = self._torch.tensor([prefix])
        out = self._model(row, use_cache=True, logits_to_keep=1)
        self._cache = out.cache

  def generate(self, prompt: Sequence[int]) -> list[int]:
    """Returns the greedy completion."""
    row = self._torch.tensor([prompt])
    with self._torch.inference_mode():
      out = self._model.generate(
        row,
        do_sample=False,
        max_new_tokens=self._tokens,
        cache=copy.deepcopy(self._cache),
      )
    return out[0, len(prompt) :].tolist()

  def logits(self, tokens: Sequence[int]) -> np.ndarray:
    """Returns the logits of the last position."""
    with self._torch.inference_mode():
      out = self._model(self._torch.tensor([tokens]), logits_to_keep=1)
    return out.logits[0, -1].numpy()


def _compare(
  task: Task,
  problems: Sequence[Problem],
  parts: Sequence[tuple[list[int], list[int]]],
  ours: Ours,
  reference: _Reference,
) -> int:
  """Prints a line a prompt; returns 1 if some difference is no tie."""
  expected_V = reference.logits([*parts[0][0], *parts[0][1]])
  apart = np.abs(ours.logits_V - expected_V).max() / np.abs(expected_V).max()
  print(f'logits behind the first prompt: {apart:.1e} of the largest apart')
  reference.keep(parts[0][0])
  ids = equal = ties = agreeing = total = 0
  for problem, (prefix, question), ours_ in zip(
    problems, parts, ours.completions, strict=True
  ):
    text = task.prefix + task.question(problem)
    same_ids = reference.codec(text)['input_ids'] == [*prefix, *question]
    tokens = reference.generate([*prefix, *question])
    first = _first_difference(ours_.tokens, tokens)
    length = max(len(tokens), len(ours_.tokens))
    ids += same_ids
    total += length
    agreeing += length if first is None else first
    note = '' if same_ids else '; the prompt has other ids in transformers'
    if first is None:
      theirs = reference.codec.decode(tokens, skip_special_tokens=True)
      same = theirs == ours_.text
      equal += same
      note += '' if same else f'; text {ours_.text!r}, theirs {theirs!r}'
    else:
      seen = [*prefix, *question, *tokens[:first]]
      logits_V = reference.logits(seen)
      second, best = np.sort(logits_V)[-2:]
      ties += bool(best - second < TIE)
      here = [*ours_.tokens[first : first + 1]], tokens[first : first + 1]
      note += f'; at {first} {here[0]}, theirs {here[1]}; best two logits '
      note += f'{best:.5f}, {second:.5f}: {best - second:.1e} apart'
    print(f'{problem.id}: {length} tokens{note}', flush=True)
  print(
    f'{equal} of {len(problems)} texts equal, {ties} part at a tie (under '
    f'{TIE}); {agreeing} of {total} tokens before any difference; {ids} '
    'prompts have the ids of transformers'
  )
  return int(equal + ties < len(problems))


def _first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
  if list(a) == list(b):
    return None
  pairs = enumerate(zip(a, b, strict=False))
  return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m bench.parity',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--model', required=True, help='Hugging Face directory')
  parser.add_argument('--task', default='gsm8k', choices=sorted(tasks.TASKS))
  parser.add_argument('--data', default='', help="folder of the task's files")
  parser.add_argument('--prompt', default='', help='few_shot, zero_shot')
  parser.add_argument('--prompts', type=int, default=20, help='how many')
  parser.add_argument('--tokens', type=int, default=64, help='a completion')
  return parser


if __name__ == '__main__':
  main()
