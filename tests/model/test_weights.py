"""Checkpoints come in whole, go out whole, and bad ones are named."""

import copy
import dataclasses
import json
import os
import shutil
import socket
import struct
import subprocess
import sys

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest.model import rope, weights
from rest.model import transformer as lm
from rest.model.sharding import MeshConfig, make_mesh, shardings
from rest.model.weights import config as config_json
from rest.model.weights.families import FIELDS

TINY = lm.ModelConfig(
  vocab=64,
  width=32,
  layers=3,
  heads=4,
  kv_heads=2,
  head_width=8,
  ffn=48,
  tied=False,
  qkv_bias=True,
)

_OLMO3 = dataclasses.replace(
  TINY,
  qkv_bias=False,
  late_norms=True,
  wide_qk_norm=True,
  windows=(16, 16, 0),
  rope_theta=5e5,
  local_rope_theta=5e5,
)
CONFIGS = {
  'llama': dataclasses.replace(
    TINY,
    qkv_bias=False,
    rope_theta=500_000.0,
    rope_scaling=rope.Llama3(8.0, 1.0, 4.0, 32),
  ),
  'mistral': dataclasses.replace(TINY, qkv_bias=False, windows=(16,) * 3),
  'qwen2': TINY,
  'qwen2_windows': dataclasses.replace(TINY, windows=(0, 16, 16)),
  'qwen3': dataclasses.replace(TINY, qkv_bias=False, qk_norm=True),
  'gemma2': dataclasses.replace(
    TINY,
    tied=True,
    qkv_bias=False,
    windows=(16, 0, 16),
    post_norms=True,
    unit_offset=True,
    scaled_embedding=True,
    activation='gelu_tanh',
    query_scale=144**-0.5,
    attention_softcap=50.0,
    logits_softcap=30.0,
  ),
  'gemma3': dataclasses.replace(
    TINY,
    tied=True,
    qkv_bias=False,
    qk_norm=True,
    windows=(16, 16, 0),
    post_norms=True,
    unit_offset=True,
    scaled_embedding=True,
    activation='gelu_tanh',
    rope_theta=1e6,
    local_rope_theta=1e4,
    rope_scaling=rope.Linear(8.0),
  ),
  'olmo2': dataclasses.replace(
    TINY, qkv_bias=False, late_norms=True, wide_qk_norm=True
  ),
  'olmo3': _OLMO3,
  'smollm3': dataclasses.replace(
    TINY, qkv_bias=False, turned=(True, False, True)
  ),
  'phi4': dataclasses.replace(
    TINY, qkv_bias=False, fused=True, rotary_width=6, windows=(16,) * 3
  ),
  'qwen2_yarn': dataclasses.replace(TINY, rope_scaling=rope.Yarn(4.0, 32)),
  'qwen3_yarn': dataclasses.replace(
    TINY,
    qkv_bias=False,
    qk_norm=True,
    rope_scaling=rope.Yarn(4.0, 32, 8.0, 2.0, 1.1, 0.7, 1.5, False),
  ),
  'olmo3_yarn': dataclasses.replace(
    _OLMO3, rope_scaling=rope.Yarn(8.0, 32, attention_factor=1.2)
  ),
  'llama_longrope': dataclasses.replace(
    TINY,
    qkv_bias=False,
    rope_scaling=rope.LongRope((1.0,) * 4, (2.0, 3, 4, 5), 32, 4.0, 1.1),
  ),
  'phi4_mini': dataclasses.replace(
    TINY,
    qkv_bias=False,
    fused=True,
    rotary_width=6,
    windows=(16,) * 3,
    rope_scaling=rope.LongRope((1.0, 1.5, 2.0), (2.0, 3.0, 9.0), 32, 64.0),
  ),
}

TOKENIZER = json.dumps(
  {'model': {'type': 'WordLevel', 'vocab': {'a': 0, 'b': 1}, 'unk_token': 'a'}}
)


def one_device():
  return make_mesh(MeshConfig(), jax.devices()[:1])


def random_model(config=TINY, seed=0):
  draw = np.random.default_rng(seed).normal
  shapes = jax.eval_shape(lambda: lm.Transformer(config))
  return jax.tree.map(lambda x: jnp.asarray(draw(size=x.shape), 'f4'), shapes)


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def checkpoint(tmp_path):
  """A whole checkpoint directory, to be damaged."""
  weights.save(random_model(), str(tmp_path / 'model'), None)
  return tmp_path / 'model'


def edit_config(path, **changes):
  file = path / 'config.json'
  raw = json.loads(file.read_text()) | changes
  raw = {key: value for key, value in raw.items() if value != 'absent'}
  file.write_text(json.dumps(raw))


def rewrite_tensors(path, change):
  """Passes {name: array} of a checkpoint through `change`, as float32."""
  library = pytest.importorskip('safetensors.numpy')
  tensors = library.load_file(path / 'model.safetensors')
  library.save_file(change(tensors), path / 'model.safetensors')


def load(path):
  return weights.load(str(path), one_device(), 'float32')


@pytest.mark.parametrize('name', CONFIGS)
def test_what_is_written_is_read_again(name, tmp_path):
  model = random_model(CONFIGS[name])
  weights.save(model, str(tmp_path / 'model'), None)
  again = load(tmp_path / 'model')
  assert again.config == model.config
  assert_same(again, model)


@pytest.mark.parametrize('name', families.FAMILIES)
def test_transformers_reads_what_is_written(name, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  reference = families.write(name, tmp_path / 'theirs')
  model = load(tmp_path / 'theirs')
  weights.save(model, str(tmp_path / 'ours'), None)
  again, info = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'ours', output_loading_info=True, attn_implementation='eager'
  )
  assert not info['missing_keys'] and not info['unexpected_keys']
  expected, found = reference.state_dict(), again.state_dict()
  assert found.keys() == expected.keys()
  assert all(torch.equal(found[key], expected[key]) for key in expected)
  tokens = torch.arange(40)[None]
  with torch.no_grad():
    torch.testing.assert_close(again(tokens).logits, reference(tokens).logits)


def test_transformers_reads_bfloat16(tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  reference = families.write('qwen2', tmp_path / 'theirs').bfloat16()
  model = load(tmp_path / 'theirs')
  weights.save(model, str(tmp_path / 'ours'), None, 'bfloat16')
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  assert again.dtype == torch.bfloat16
  expected, found = reference.state_dict(), again.state_dict()
  assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
  'mesh', [MeshConfig(8, 1, 1), MeshConfig(1, 4, 2), MeshConfig(2, 2, 2)]
)
def test_every_mesh_reads_and_writes_the_same(mesh, checkpoint, tmp_path):
  mesh = make_mesh(mesh)
  model = weights.load(str(checkpoint), mesh, 'float32')
  assert_same(model, load(checkpoint))
  places = jax.tree.map(lambda x: x.sharding, model)
  assert jax.tree.leaves(places) == jax.tree.leaves(shardings(model, mesh))
  weights.save(model, str(tmp_path / 'again'), None)
  name = 'model.safetensors'
  again = (tmp_path / 'again' / name).read_bytes()
  assert again == (checkpoint / name).read_bytes()


HOST = """
import sys
import jax
from rest.model import weights
from rest.model.sharding import MeshConfig, make_mesh
address, process, source, path = sys.argv[1:]
jax.config.update('jax_num_cpu_devices', 2)
jax.distributed.initialize(address, 2, int(process))
mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
model = weights.load(source, mesh, 'float32')
weights.save(model, path, None)
"""


def test_two_processes_read_and_write_the_same(checkpoint, tmp_path):
  with socket.create_server(('localhost', 0)) as server:
    address = f'localhost:{server.getsockname()[1]}'
  command = [sys.executable, '-c', HOST, address]
  hosts = [
    subprocess.Popen([*command, str(i), str(checkpoint), str(tmp_path / 'two')])
    for i in range(2)
  ]
  try:
    assert [host.wait(timeout=100) for host in hosts] == [0, 0]
  finally:
    for host in hosts:
      host.kill()
  name = 'model.safetensors'
  found = (tmp_path / 'two' / name).read_bytes()
  assert found == (checkpoint / name).read_bytes()


def test_shards_hold_the_whole_model(tmp_path):
  model = random_model()
  path = tmp_path / 'model'
  weights.save(model, str(path), None, shard_bytes=20_000)
  files = sorted(path.glob('*.safetensors'))
  assert len(files) > 3
  assert all(file.stat().st_size < 25_000 for file in files)
  assert_same(load(path), model)


def test_bfloat16_goes_in_and_out_unchanged(tmp_path):
  model = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_model())
  path = str(tmp_path / 'model')
  weights.save(model, path, None, 'bfloat16')
  again = weights.load(path, one_device(), 'bfloat16')
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(again))
  assert_same(again, jax.tree.map(lambda x: x.astype(jnp.float32), model))
  weights.save(again, str(tmp_path / 'again'), None, 'bfloat16')
  name = 'model.safetensors'
  written = (tmp_path / 'again' / name).read_bytes()
  assert written == (tmp_path / 'model' / name).read_bytes()


def test_files_are_those_of_the_safetensors_library(tmp_path):
  safe_open = pytest.importorskip('safetensors').safe_open
  model = random_model()
  weights.save(model, str(tmp_path / 'model'), None)
  file = tmp_path / 'model' / 'model.safetensors'
  with safe_open(file, 'numpy') as tensors:
    embed = tensors.get_tensor('model.embed_tokens.weight')
    assert tensors.metadata() == {'format': 'pt'}
  np.testing.assert_array_equal(embed, model.embed_VD[...])


# What published checkpoints say, or newer versions of `transformers` write.
SPELLINGS = {
  'llama': {
    'rope_theta': 'absent',
    'rope_scaling': 'absent',
    'rope_parameters': families.LLAMA3_SCALING | {'rope_theta': 500_000.0},
  },
  'mistral': {'hidden_act': 'absent', 'tie_word_embeddings': 'absent'},
  'qwen2': {
    'layer_types': 'absent',
    'use_sliding_window': False,
    'sliding_window': 32_768,
    'head_dim': 'absent',
  },
  'qwen2_windows': {'layer_types': 'absent', 'max_window_layers': 1},
  # As Qwen2.5's authors say to ask for it.
  'qwen2_yarn': {
    'rope_scaling': {
      'type': 'yarn',
      'factor': 4.0,
      'original_max_position_embeddings': 32,
    },
  },
  # Field by field as OLMo 3 has them, which stands in layers without a window.
  'olmo3_yarn': {
    'rope_theta': 'absent',
    'rope_scaling': 'absent',
    'rope_local_base_freq': 'absent',
    'rope_parameters': {
      'full_attention': {
        'rope_type': 'yarn',
        'rope_theta': 5e5,
        'factor': 8.0,
        'original_max_position_embeddings': 32,
        'attention_factor': 1.2,
        'beta_fast': 32,
        'beta_slow': 1,
      },
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 5e5},
    },
  },
  'phi4_mini': {
    'rope_theta': 'absent',
    'rope_scaling': 'absent',
    'partial_rotary_factor': 'absent',
    'rope_parameters': {
      'rope_type': 'yarn',  # What the first files of Phi-3 call longrope.
      'rope_theta': 10_000.0,
      'partial_rotary_factor': 0.75,
      'short_factor': [1.0, 1.5, 2.0],
      'long_factor': [2.0, 3.0, 9.0],
      'attention_factor': None,
    },
  },
  'gemma2': {'layer_types': 'absent', 'tie_word_embeddings': 'absent'},
  'gemma3': {
    'layer_types': 'absent',
    'sliding_window_pattern': 3,
    'rope_theta': 'absent',
    'rope_scaling': 'absent',
    'rope_local_base_freq': 'absent',
    'rope_parameters': {
      'full_attention': {
        'rope_type': 'linear',
        'factor': 8.0,
        'rope_theta': 1e6,
      },
      'sliding_attention': {'rope_type': 'default', 'rope_theta': 1e4},
    },
  },
}


@pytest.mark.parametrize('name', SPELLINGS)
def test_other_spellings_of_a_config_mean_the_same(name, tmp_path):
  weights.save(random_model(CONFIGS[name]), str(tmp_path / 'model'), None)
  edit_config(tmp_path / 'model', **SPELLINGS[name])
  found = weights.read_config(str(tmp_path / 'model'), 'float32')
  assert found == CONFIGS[name]


def test_longrope_goes_out_as_it_came_in():
  """Old versions of transformers want these three fields and no other."""
  raw = families.SIZES | families.PHI4_MINI
  raw |= {'architectures': ['Phi3ForCausalLM']}
  config = config_json.parse(raw, 'float32', 'config.json')
  out = config_json.describe(config, 'float32')
  assert {key: out[key] for key in families.PHI4_MINI} == families.PHI4_MINI | {
    'pad_token_id': None
  }


def test_the_original_context_of_phi_is_that_of_transformers():
  """What stands beside the lists counts for nothing, not even alone."""
  transformers = pytest.importorskip('transformers')
  raw = families.SIZES | families.PHI4_MINI
  del raw['original_max_position_embeddings']
  inside = families.LONGROPE | {'original_max_position_embeddings': 8}
  raw |= {'rope_scaling': inside, 'architectures': ['Phi3ForCausalLM']}
  found = config_json.parse(raw, 'float32', 'config.json').rope_scaling
  theirs = transformers.Phi3Config(**copy.deepcopy(raw)).rope_parameters
  name = 'original_max_position_embeddings'
  assert getattr(found, name) == theirs[name] == 4096


def test_longrope_has_the_factors_of_the_longest_sequence(tmp_path):
  weights.save(random_model(CONFIGS['phi4_mini']), str(tmp_path / 'm'), None)
  for longest, is_long in ((0, True), (1, False), (32, False), (33, True)):
    config = weights.read_config(str(tmp_path / 'm'), 'float32', longest)
    assert config.rope_scaling.is_long == is_long
    model = weights.load(str(tmp_path / 'm'), one_device(), 'float32', longest)
    assert model.config == config
    weights.save(model, str(tmp_path / 'again'), None)
    again = (tmp_path / 'again' / 'config.json').read_bytes()
    assert again == (tmp_path / 'm' / 'config.json').read_bytes()


def test_text_of_an_image_and_text_model_is_read(tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  families.write('gemma3', tmp_path / 'text')
  text = json.loads((tmp_path / 'text' / 'config.json').read_text())
  vision = {
    'hidden_size': 16,
    'intermediate_size': 16,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'image_size': 28,
    'patch_size': 14,
  }
  config = transformers.Gemma3Config(
    text_config=text, vision_config=vision, mm_tokens_per_image=4
  )
  config._attn_implementation = 'eager'
  both = transformers.Gemma3ForConditionalGeneration(config).eval()
  both.save_pretrained(tmp_path / 'both')
  model = load(tmp_path / 'both')
  weights.save(model, str(tmp_path / 'ours'), None)
  ours = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'ours', attn_implementation='eager'
  )
  assert type(ours).__name__ == 'Gemma3ForCausalLM'
  tokens = torch.arange(20)[None]
  with torch.no_grad():
    torch.testing.assert_close(ours(tokens).logits, both(tokens).logits)


def test_old_files_with_buffers_and_a_second_embedding_are_read(tmp_path):
  config = dataclasses.replace(TINY, tied=True)
  model = random_model(config)
  weights.save(model, str(tmp_path / 'model'), None)

  def add(tensors):
    name = 'model.layers.0.self_attn.rotary_emb.inv_freq'
    embed = tensors['model.embed_tokens.weight']
    return tensors | {name: np.ones(4), 'lm_head.weight': embed}

  rewrite_tensors(tmp_path / 'model', add)
  assert_same(load(tmp_path / 'model'), model)


def write_untied(path):
  """Writes a checkpoint with a head of its own that its config.json ties."""
  reference = families.write('qwen3', path)  # With two matrices.
  edit_config(path, tie_word_embeddings=True)
  return reference


def test_a_head_that_differs_from_a_tied_embedding_is_kept(tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  reference = write_untied(tmp_path / 'm')
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'm')
  expected = reference.lm_head.weight
  assert torch.equal(theirs.lm_head.weight, expected)
  assert not torch.equal(theirs.model.embed_tokens.weight, expected)
  model = load(tmp_path / 'm')
  assert not model.config.tied
  np.testing.assert_array_equal(model.head_VD[...], expected.detach())
  assert weights.read_config(str(tmp_path / 'm'), 'float32') == model.config
  weights.save(model, str(tmp_path / 'again'), None)
  assert_same(load(tmp_path / 'again'), model)


def test_a_tied_matrix_may_have_either_name(tmp_path):
  model = random_model(dataclasses.replace(TINY, tied=True))
  weights.save(model, str(tmp_path / 'model'), None)

  def rename(tensors):
    embed = tensors.pop('model.embed_tokens.weight')
    return tensors | {'lm_head.weight': embed}

  rewrite_tensors(tmp_path / 'model', rename)
  assert_same(load(tmp_path / 'model'), model)


def test_a_plan_reads_a_config_without_weights(checkpoint):
  edit_config(checkpoint, tie_word_embeddings=True)
  (checkpoint / 'model.safetensors').unlink()
  assert weights.read_config(str(checkpoint), 'float32').tied


def test_shards_are_read_as_transformers_reads_them(tmp_path):
  """A tensor in two of them, and in the index with the wrong one."""
  transformers = pytest.importorskip('transformers')
  library = pytest.importorskip('safetensors.numpy')
  path = tmp_path / 'm'
  weights.save(random_model(), str(path), None, shard_bytes=20_000)
  files = sorted(path.glob('*.safetensors'))
  first, last = library.load_file(files[0]), library.load_file(files[-1])
  other = {NORM: np.arange(32, dtype='f4')}
  library.save_file(first | other, files[0], {'format': 'pt'})
  other = {NORM: np.arange(32, dtype='f4') + 1}
  library.save_file(last | other, files[-1], {'format': 'pt'})
  listing = path / 'model.safetensors.index.json'
  index = json.loads(listing.read_text())
  index['weight_map'][NORM] = files[0].name
  listing.write_text(json.dumps(index))
  theirs = transformers.AutoModelForCausalLM.from_pretrained(path)
  expected = theirs.model.norm.weight.detach()
  np.testing.assert_array_equal(load(path).final_norm_D[...], expected)
  # And one file counts before its shards.
  whole = random_model(seed=1)
  weights.save(whole, str(tmp_path / 'one'), None)
  shutil.copy(tmp_path / 'one/model.safetensors', path)
  assert_same(load(path), whole)


def test_whole_numbers_in_a_part_that_is_not_read_are_no_matter(checkpoint):
  model = load(checkpoint)
  name = 'vision_tower.vision_model.embeddings.position_ids'
  rewrite_tensors(checkpoint, lambda t: t | {name: np.arange(4)})
  assert_same(load(checkpoint), model)


def test_a_bias_that_a_family_has_not_is_none_if_it_is_zero(tmp_path):
  model = random_model(CONFIGS['qwen3'])
  weights.save(model, str(tmp_path / 'm'), None)
  name = 'model.layers.1.mlp.up_proj.bias'
  rewrite_tensors(tmp_path / 'm', lambda t: t | {name: np.zeros(48, 'f4')})
  assert_same(load(tmp_path / 'm'), model)
  rewrite_tensors(
    tmp_path / 'm', lambda t: t | {name: np.eye(48, dtype='f4')[0]}
  )
  with pytest.raises(ValueError, match=name):
    load(tmp_path / 'm')


def test_two_names_of_one_tensor_must_agree(checkpoint):
  model = load(checkpoint)
  name = f'language_model.{NORM}'
  rewrite_tensors(checkpoint, lambda t: t | {name: t[NORM]})
  assert_same(load(checkpoint), model)
  rewrite_tensors(checkpoint, lambda t: t | {name: t[NORM] + 1})
  with pytest.raises(ValueError, match=f'{NORM} differ'):
    load(checkpoint)


def scaled(kind, **fields):
  """Returns a change of config.json."""
  return {'rope_scaling': {'type': kind, 'factor': 4.0} | fields}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'architectures': ['MambaForCausalLM']}, 'MambaForCausalLM.*supported'),
    ({'architectures': 'absent'}, 'architectures'),
    ({'hidden_size': '32'}, "hidden_size must be a positive whole .*'32'"),
    ({'num_hidden_layers': 0}, 'num_hidden_layers must be .*got 0'),
    ({'rope_scaling': {'type': 'linear'}}, "no field 'factor'"),
    ({'num_key_value_heads': 3}, r'heads \(3\) must divide .* \(4\)'),
    ({'hidden_act': 'relu'}, "'relu'"),
    ({'mlp_bias': True}, 'mlp_bias=True'),
    ({'quantization_config': {'bits': 4}}, 'quantization_config'),
    ({'partial_rotary_factor': 0.5}, 'partial_rotary_factor'),
    ({'partial_rotary_factor': 1.5}, r'partial_rotary_factor \(1\.5\)'),
    ({'rope_theta': 1.0}, r'rope_theta \(1\.0\) must be above 1'),
    ({'rope_scaling': 'yarn'}, "rope_scaling must be an object; got 'yarn'"),
    (scaled('dynamic'), "'dynamic' is not supported; linear, .* longrope are"),
    (scaled('yarn', factor=None), "no field 'factor'"),
    (scaled('yarn', factor='4'), "factor must be a positive number; got '4'"),
    (scaled('yarn', beta_fast=-1), 'beta_fast must be .* got -1'),
    (scaled('yarn', attention_factor=0), 'attention_factor must be a pos'),
    (scaled('yarn', truncate=1), 'truncate must be true or false; got 1'),
    (scaled('yarn', rope_theta=True), 'rope_theta must be .* got True'),
    (
      scaled('yarn', original_max_position_embeddings=0.5),
      r'original_max_position_embeddings must be .* whole .* 0\.5',
    ),
    (
      scaled('llama3', low_freq_factor=4, high_freq_factor=4),
      r'low_freq_factor \(4\) must be below high_freq_factor',
    ),
    (scaled('longrope', short_factor=[1] * 4), "no field 'long_factor'"),
    (
      scaled('longrope', short_factor=[1] * 3, long_factor=[1] * 4),
      r'short_factor must be a list of 4 numbers.*\[1, 1, 1\]',
    ),
    (
      scaled('longrope', short_factor=[1] * 4, long_factor=[1, 1, '2', 1]),
      "An entry of long_factor must be .* got '2'",
    ),
    (
      scaled('longrope', original_max_position_embeddings=1),
      'original_max_position_embeddings must be above 1',
    ),
  ],
)
def test_an_unsupported_config_is_named(changes, message, checkpoint):
  edit_config(checkpoint, **changes)
  with pytest.raises(ValueError, match=message):
    load(checkpoint)


@pytest.mark.parametrize('place', [None, 'sliding_attention'])
def test_layers_with_a_window_are_not_scaled(place, tmp_path):
  path = tmp_path / 'm'
  weights.save(random_model(CONFIGS['olmo3_yarn']), str(path), None)
  edit_config(path, rope_scaling=None)
  yarn = families.YARN | {'rope_theta': 5e5}
  edit_config(path, rope_parameters={place: yarn} if place else yarn)
  with pytest.raises(ValueError, match=r"'yarn'.*only those of full_attention"):
    load(path)


# By key, what else must go with it.
TOGETHER = {
  'num_hidden_layers': ('num_hidden_layers', 'layer_types', 'no_rope_layers')
}


@pytest.mark.parametrize('architecture', FIELDS)
def test_fields_left_out_have_the_values_of_transformers(architecture):
  transformers = pytest.importorskip('transformers')
  family = architecture.removesuffix('ForCausalLM')
  text = 'Text' if family == 'Gemma3' else ''
  theirs = getattr(transformers, f'{family}{text}Config')

  def parse(raw):
    raw = {**raw, 'architectures': [architecture]}
    return config_json.parse(raw, 'float32', 'config.json')

  assert parse({}) == parse(theirs().to_dict())
  # Heads that fit to every default.
  sizes = families.SIZES | {'hidden_size': 128, 'num_attention_heads': 64}
  whole = theirs(**sizes, sliding_window=8).to_dict()
  # As older versions write it.
  whole |= {'rope_theta': 7.0, 'sliding_window_pattern': 2}
  for key in FIELDS[architecture]:
    gone = TOGETHER.get(key, (key,))
    raw = {name: value for name, value in whole.items() if name not in gone}
    assert parse(raw) == parse(theirs.from_dict(raw).to_dict()), key


def test_fields_of_other_families_mean_nothing(checkpoint):
  before = weights.read_config(str(checkpoint), 'float32')
  edit_config(
    checkpoint,
    query_pre_attn_scalar=9,
    final_logit_softcapping=3.0,
    hidden_activation='relu',
  )
  assert weights.read_config(str(checkpoint), 'float32') == before


def test_null_turns_off_what_a_family_has(tmp_path):
  weights.save(random_model(CONFIGS['gemma2']), str(tmp_path / 'm'), None)
  edit_config(
    tmp_path / 'm',
    final_logit_softcapping=None,
    attn_logit_softcapping='absent',
  )
  found = weights.read_config(str(tmp_path / 'm'), 'float32')
  assert (found.logits_softcap, found.attention_softcap) == (0.0, 50.0)


def test_a_missing_place_or_file_is_named(checkpoint):
  with pytest.raises(FileNotFoundError, match='nowhere'):
    load(checkpoint / 'nowhere')
  (checkpoint / 'model.safetensors').unlink()
  with pytest.raises(FileNotFoundError, match=r'neither model\.safetensors'):
    load(checkpoint)
  (checkpoint / 'config.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'no config\.json'):
    load(checkpoint)


def test_a_missing_shard_is_named(tmp_path):
  weights.save(random_model(), str(tmp_path / 'm'), None, shard_bytes=20_000)
  sorted((tmp_path / 'm').glob('*.safetensors'))[1].unlink()
  with pytest.raises(FileNotFoundError, match='model-00002-of'):
    load(tmp_path / 'm')


NORM = 'model.norm.weight'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: {k: t[k] for k in t if k != NORM}, f'lacks .*{NORM}'),
    (lambda t: t | {'model.extra.weight': t[NORM]}, r'model\.extra\.weight'),
    (lambda t: t | {NORM: t[NORM][:-1]}, rf'{NORM} has shape \(31,\)'),
    (lambda t: t | {NORM: t[NORM].astype(np.int8)}, f'{NORM} has dtype I8'),
  ],
)
def test_a_wrong_tensor_is_named(change, message, checkpoint):
  rewrite_tensors(checkpoint, change)
  with pytest.raises(ValueError, match=message):
    load(checkpoint)


@pytest.mark.parametrize('keep', [0, 5, 100, -1])
def test_a_truncated_file_is_named(keep, checkpoint):
  file = checkpoint / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:keep])
  with pytest.raises(ValueError, match=r'model\.safetensors is truncated'):
    load(checkpoint)


def test_another_kind_of_file_is_named(checkpoint):
  file = checkpoint / 'model.safetensors'
  file.write_bytes(struct.pack('<Q', 6) + b'PK\x03\x04zip')
  with pytest.raises(ValueError, match='no safetensors file'):
    load(checkpoint)


def test_a_mesh_that_does_not_divide_is_named(checkpoint):
  mesh = make_mesh(MeshConfig(1, 1, 8))
  with pytest.raises(
    ValueError, match=r'mesh\.tensor=8 .* num_key_value_heads=2'
  ):
    weights.load(str(checkpoint), mesh, 'float32')


def test_a_model_of_no_family_is_not_written(tmp_path):
  config = dataclasses.replace(TINY, logits_softcap=30.0)
  with pytest.raises(ValueError, match='Qwen2ForCausalLM'):
    weights.save(random_model(config), str(tmp_path / 'model'), None)
  assert not os.listdir(tmp_path)


def test_a_checkpoint_replaces_another_only_when_whole(checkpoint):
  before = (checkpoint / 'model.safetensors').read_bytes()
  broken = random_model()
  broken.final_norm_D = broken.embed_VD  # Writing stops at its shape.
  with pytest.raises(ValueError, match='axes'):
    weights.save(broken, str(checkpoint), None)
  assert (checkpoint / 'model.safetensors').read_bytes() == before
  other = random_model(seed=1)
  weights.save(other, str(checkpoint), None)
  assert_same(load(checkpoint), other)
  assert os.listdir(checkpoint.parent) == ['model']


def test_a_checkpoint_takes_the_tokenizer_along(checkpoint, tmp_path):
  source = tmp_path / 'source'
  source.mkdir()
  (source / 'tokenizer.json').write_text(TOKENIZER)
  (source / 'generation_config.json').write_text('{"eos_token_id": [2, 1]}')
  weights.save(random_model(), str(checkpoint), str(source))
  assert (checkpoint / 'tokenizer.json').read_text() == TOKENIZER
  raw = json.loads((checkpoint / 'config.json').read_text())
  assert raw['eos_token_id'] == [2, 1]
