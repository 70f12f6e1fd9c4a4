"""Base models are made from nothing, or go on from others."""

import jax
import numpy as np
import pytest
from etils import epath

from configs import pretrain_quickstart
from rest.config import MeshConfig
from rest.model import sharding, weights
from rest.use.pretrain import pretrain


def test_the_hasty_base_goes_on_from_its_start(tmp_path):
  config = pretrain_quickstart.get_config('hasty')
  config.corpus.num_documents = 8
  config.corpus.num_held_out = 2
  config.mstep.batch = 8
  config.mstep.rows = 4
  config.mstep.learning_rate = 0.0
  summary = pretrain(config, epath.Path(tmp_path))
  assert summary['steps'] == 1
  mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
  made, start = (
    weights.load(path, mesh, 'float32')
    for path in (str(tmp_path / 'model'), config.start)
  )
  assert made.config == start.config
  jax.tree.map(np.testing.assert_array_equal, made, start)
  name = 'tokenizer.model'
  assert (tmp_path / 'model' / name).read_bytes() == (
    epath.Path(config.start) / name
  ).read_bytes()


def test_a_start_that_is_not_there_is_named_before_any_work(tmp_path):
  config = pretrain_quickstart.get_config('hasty')
  config.start = str(tmp_path / 'no-such-model')
  with pytest.raises((FileNotFoundError, ValueError), match='no-such-model'):
    pretrain(config, epath.Path(tmp_path / 'out'))
  assert not list(tmp_path.iterdir())
