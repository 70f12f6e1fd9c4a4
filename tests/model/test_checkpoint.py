"""Checkpoints: exact, whole or absent, bounded, and loud when they fail."""

import errno
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rest.model import checkpoint, sharding
from rest.model.checkpoint import Checkpoints
from rest.model.transformer import ModelConfig, Transformer

MODEL = ModelConfig(
  vocab=64, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn=48
)


def make_model(*axes: int) -> Transformer:
  mesh = make_mesh(*axes)
  model = Transformer(MODEL, jax.random.key(0))
  return jax.device_put(model, sharding.shardings(model, mesh))


def make_mesh(*axes: int):
  count = int(np.prod(axes))
  config = sharding.MeshConfig(*axes)
  return sharding.make_mesh(config, jax.devices()[:count])


def test_what_is_restored_is_what_was_saved(tmp_path):
  trees = {
    'trained': make_model(1, 1, 1),
    'optimizer': {'count': jnp.int32(7), 'mean_D': jnp.arange(8.0)},
  }
  position = {'scores': [[4, 0.1], [8, -float('inf')]], 'for': 'x'}
  store = Checkpoints(tmp_path)
  store.save(3, trees, position)
  store.close()
  store = Checkpoints(tmp_path)
  assert store.latest() == 3
  assert store.position(3) == position
  restored = store.restore(3, trees)
  jax.tree.map(np.testing.assert_array_equal, restored, trees)
  assert jax.tree.structure(restored) == jax.tree.structure(trees)
  only = store.restore(3, {'optimizer': trees['optimizer']})
  assert list(only) == ['optimizer']
  store.close()


def test_a_checkpoint_is_restored_onto_another_mesh(tmp_path):
  store = Checkpoints(tmp_path)
  store.save(1, {'trained': make_model(2, 2, 2)}, {})
  store.wait()
  for axes in ((1, 1, 1), (1, 8, 1), (2, 1, 2)):
    like = make_model(*axes)
    restored = store.restore(1, {'trained': like})['trained']
    jax.tree.map(np.testing.assert_array_equal, restored, like)
    places = jax.tree.map(lambda x: x.sharding, (restored, like))
    assert jax.tree.leaves(places[0]) == jax.tree.leaves(places[1])
  store.close()


def test_arrays_may_be_donated_once_save_returns(tmp_path):
  store = Checkpoints(tmp_path)
  x = jnp.arange(100_000.0)
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  store.save(1, {'x': {'x': x}}, {})
  y = add(x)
  store.wait()
  restored = store.restore(1, {'x': {'x': y}})['x']['x']
  np.testing.assert_array_equal(restored, np.arange(100_000.0))
  store.close()


def test_only_the_newest_and_what_is_held_stay_on_disk(tmp_path):
  store = Checkpoints(tmp_path)
  for step in range(1, 7):
    store.save(step, {'x': {'x': jnp.zeros(3)}}, {}, hold={2})
    store.wait()
    steps = {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()}
    assert steps == {s for s in (2, step - 1, step) if 0 < s <= step}
  store.close()


def test_a_half_written_checkpoint_is_never_used(tmp_path):
  store = Checkpoints(tmp_path)
  store.save(1, {'x': {'x': jnp.zeros(3)}}, {})
  store.close()
  # What a killed process leaves: a directory under its name for writing.
  half = tmp_path / '2.orbax-checkpoint-tmp-0'
  shutil.copytree(tmp_path / '1', half)
  store = Checkpoints(tmp_path)
  assert store.latest() == 1
  store.save(2, {'x': {'x': jnp.ones(3)}}, {})
  store.close()
  assert Checkpoints(tmp_path).latest() == 2


def test_a_save_that_fails_is_an_error_without_waiting(tmp_path):
  """No file may grow past 64 KiB: as good as a full disk."""
  store = Checkpoints(tmp_path)
  noise = jax.random.uniform(jax.random.key(0), (1 << 18,))
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
  try:
    with pytest.raises(OSError) as found:
      store.save(1, {'x': {'x': noise}}, {})
      for _ in range(600):
        store.check()
        time.sleep(0.05)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert found.value.errno == errno.EFBIG
  assert found.value.filename == str(tmp_path)
  assert Checkpoints(tmp_path).latest() is None


def test_a_model_that_cannot_be_written_says_why(tmp_path):
  noise = jax.random.uniform(jax.random.key(0), (1 << 18,))
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
  try:
    with pytest.raises(OSError) as found:
      checkpoint.save_model(tmp_path / 'model', {'x': noise})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert found.value.errno == errno.EFBIG


def test_a_model_is_read_onto_another_mesh_and_gone_once_removed(tmp_path):
  path = epath.Path(tmp_path) / 'model'
  model = make_model(1, 2, 1)
  checkpoint.save_model(path, model)
  loaded = checkpoint.load_model(path, MODEL, make_mesh(2, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, loaded, model)
  checkpoint.remove(path)
  assert not path.exists()
