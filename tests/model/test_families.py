"""The newer families train, adapt, draw and are planned as in transformers."""

import copy
import dataclasses
import json
import shutil

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from etils import epath
from letters import Letters

from configs import arithmetic
from rest import em, main
from rest.m_step.fine_tune import fine_tune
from rest.m_step.packing import Example, pack, plan
from rest.m_step.update import gradients
from rest.model import transformer as lm
from rest.model import weights
from rest.model.attention import plain_attention
from rest.plan import estimate
from rest.run import opened
from rest.sampler import Ask, Sampler, SamplerConfig
from tests.m_step.small_training import CONFIG, distance, one_device

NAMES = ('olmo2', 'olmo3_yarn', 'smollm3', 'phi3', 'phi4_mini')
RANDOM = np.random.default_rng(0)
# Longer than the original context of `phi4_mini`, so that transformers, too,
# takes the factors of long sequences.
PREFIX = tuple(RANDOM.integers(3, 64, 9).tolist())
EXAMPLES = [
  Example(
    tuple(RANDOM.integers(3, 64, 2 + index).tolist()),
    tuple(RANDOM.integers(3, 64, 8 - index).tolist()),
    weight,
    prefix=PREFIX,
  )
  for index, weight in enumerate((1.0, 0.5, 2.0, 1.0))
]


@pytest.fixture(scope='module', params=NAMES)
def family(request, tmp_path_factory):
  """A reference model, and the directory it is in."""
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  path = tmp_path_factory.mktemp(request.param)
  return families.write(request.param, path), path


def load(path):
  return weights.load(str(path), one_device(), 'float32', families.LONGEST)


def loss_of(reference):
  """Returns the loss of the examples, sequence by sequence, in torch."""
  import torch

  total = 0.0
  for example in EXAMPLES:
    prompt = example.prefix + example.question
    tokens = torch.tensor([prompt + example.completion])
    logits = reference(tokens[:, :-1]).logits[0, len(prompt) - 1 :]
    total = total + example.weight * torch.nn.functional.cross_entropy(
      logits, tokens[0, len(prompt) :], reduction='sum'
    )
  return total / sum(e.weight * len(e.completion) for e in EXAMPLES)


def test_loss_and_gradients_equal_those_of_torch(family, tmp_path):
  import torch

  reference, path = family
  loss = loss_of(reference)
  loss.backward()
  # Gradients have the shapes of weights: a checkpoint of them is read as one.
  theirs = copy.deepcopy(reference)
  with torch.no_grad():
    for ours, parameter in zip(
      theirs.parameters(), reference.parameters(), strict=True
    ):
      ours.copy_(parameter.grad)
  theirs.save_pretrained(tmp_path / 'gradient')
  every = range(len(EXAMPLES))
  batch = pack(EXAMPLES, every, plan(EXAMPLES, [every], 32, 16, 1, True), True)
  found, gradient = jax.jit(gradients, static_argnames='config')(
    load(path), batch, config=CONFIG
  )
  assert float(found) == pytest.approx(loss.item(), rel=1e-5)
  apart = distance(gradient, load(tmp_path / 'gradient'))
  print(f'gradients up to {apart:.1e} of a leaf apart')
  assert apart < 2e-5


def test_transformers_reads_what_adapters_learnt(family, tmp_path):
  import torch
  import transformers

  reference, path = family
  config = dataclasses.replace(
    CONFIG, lora_rank=4, learning_rate=1e-2, max_steps=2, stop='fixed_steps'
  )
  result = fine_tune(lambda: load(path), EXAMPLES, config, one_device(), seed=0)
  weights.save(result.model, str(tmp_path / 'ours'), None)
  again = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'ours', attn_implementation='eager'
  ).eval()
  with torch.no_grad():
    assert float(loss_of(again)) < float(loss_of(reference)) - 0.01
    tokens = torch.tensor([PREFIX + EXAMPLES[0].question])
    expected = again(tokens).logits
  tokens_BT = jnp.asarray(tokens.numpy())
  positions_BT = jnp.arange(tokens_BT.shape[1])[None]
  ends_BT = jnp.full_like(tokens_BT, tokens_BT.shape[1])
  attend = plain_attention(result.model.config, ends_BT, positions_BT)
  x_BTD, _ = lm.backbone(
    lm.unstack(result.model), tokens_BT, positions_BT, attend
  )
  found = lm.logits(result.model, x_BTD)
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_greedy_tokens_are_those_of_generate(family):
  import torch

  reference, path = family
  settings = SamplerConfig(
    max_tokens=20, max_prompt_tokens=20, rows=4, rows_per_slot=1
  )
  assert settings.longest == families.LONGEST
  model = load(path)
  sampler = Sampler(model.config, Letters(), settings, one_device(), seed=0)
  sampler.set_weights(model)
  asks = [Ask(i, e.question, (0,)) for i, e in enumerate(EXAMPLES)]
  drawn = {
    i: completion.tokens
    for i, _, completion in sampler.sample(PREFIX, asks, temperature=0.0)
  }
  for index, example in enumerate(EXAMPLES):
    prompt = torch.tensor([PREFIX + example.question])
    tokens = reference.generate(
      prompt,
      attention_mask=torch.ones_like(prompt),
      do_sample=False,
      max_new_tokens=20,
      eos_token_id=list(Letters.eos),
      pad_token_id=0,
    )
    assert tokens[0, prompt.shape[1] :].tolist() == list(drawn[index])
  assert max(map(len, drawn.values())) > 4


def test_a_plan_counts_every_parameter(family):
  reference, path = family
  config = weights.read_config(str(path), 'float32')
  count = sum(parameter.numel() for parameter in reference.parameters())
  assert estimate.count_parameters(config) == count


def test_nothing_is_longer_than_the_factors_of_its_model(tmp_path):
  pytest.importorskip('transformers')
  families.write('phi4_mini_short', tmp_path)
  model = weights.load(str(tmp_path), one_device(), 'float32', longest=48)
  settings = SamplerConfig(max_tokens=24, max_prompt_tokens=24)
  Sampler(model.config, Letters(), settings, one_device(), seed=0)
  longer = dataclasses.replace(settings, max_tokens=25)
  message = r'may have 49 tokens.* up to 48: .*sampling\.max_tokens'
  with pytest.raises(ValueError, match=f'A sample {message}'):
    Sampler(model.config, Letters(), longer, one_device(), seed=0)
  solution = Example((3,) * 10, (4,) * 40)  # Whose last token has no position.
  config = dataclasses.replace(CONFIG, row_length=64)
  with pytest.raises(ValueError, match=f'A solution to train on {message}'):
    fine_tune(lambda: model, [solution], config, one_device(), seed=0)


@pytest.mark.parametrize('original', [64, 400])
def test_a_run_turns_alike_wherever_it_loads_its_model(original, tmp_path):
  """For its plan, its sampler, its trainer, and who opens it afterwards."""
  base = tmp_path / 'base'
  shutil.copytree(small_run.BASE, base)
  raw = json.loads((base / 'config.json').read_text())
  raw['rope_scaling'] = {
    'rope_type': 'longrope',
    'short_factor': [1.0] * 16,
    'long_factor': [2.0] * 16,
    'original_max_position_embeddings': original,
  }
  (base / 'config.json').write_text(json.dumps(raw))
  config = arithmetic.get_config()
  config.model.path = str(base)
  config.task.num_train = config.task.num_test = 8
  config.sampling.max_tokens, config.sampling.max_prompt_tokens = 64, 128
  run = main.prepare(config, epath.Path(tmp_path / 'run'))
  expected = run.world.model
  assert expected.rope_scaling.is_long == (original < 64 + 128)
  with main.hold(run):
    pass
  with main._tools(run, lambda: False, False) as tools:
    assert tools.sampler.model.config == expected
    assert em.make_policy(run, tools).load(0).config == expected
  again = opened.open_run(tmp_path / 'run')
  assert again.load(0, one_device()).config == expected
