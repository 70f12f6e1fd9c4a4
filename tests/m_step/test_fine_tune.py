"""The M-step: losses fall, the best is returned, what was killed goes on."""

import dataclasses
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

from rest.config import MStepConfig
from rest.m_step.fine_tune import Diverged, FineTuned, fine_tune
from rest.m_step.schedule import Schedule
from rest.m_step.update import held_out_loss
from rest.model.attention import kernel_for
from rest.types import Preempted
from tests.m_step.small_training import (
  CONFIG,
  MODEL,
  make_examples,
  make_mesh,
  make_model,
  one_device,
  same_bytes,
)

# What our kernels take, on a GPU.
WIDE = dataclasses.replace(MODEL, head_width=64, dtype='bfloat16')
LONG = dataclasses.replace(CONFIG, batch=28, row_length=64)


def test_bfloat16_tracks_float32():
  """Over 200 steps the loss curves stay within 2 % of each other."""
  config = dataclasses.replace(
    CONFIG, epochs=99, max_steps=200, stop='fixed_steps', eval_every=0
  )
  examples = make_examples(12)
  curves = []
  for dtype in ('float32', 'bfloat16'):
    losses = []
    fine_tune(
      functools.partial(
        make_model, config=dataclasses.replace(MODEL, dtype=dtype)
      ),
      examples,
      config,
      one_device(),
      seed=0,
      on_step=lambda done, metrics, to=losses: to.append(metrics.loss),
    )
    curves.append(np.array(losses))
  exact, rounded = curves
  assert exact[-1] < 0.5 * exact[0]
  assert np.abs(rounded - exact).max() < 0.02 * exact[0]


@pytest.mark.parametrize(
  ('optimizer', 'rank', 'rate'), [('adamw', 4, 1e-2), ('adafactor', 0, 1e-1)]
)
def test_adafactor_and_adapters_lower_the_loss(optimizer: Any, rank, rate):
  examples = make_examples(12)
  config = dataclasses.replace(
    CONFIG,
    optimizer=optimizer,
    learning_rate=rate,
    lora_rank=rank,
    max_steps=8,
    epochs=8,
    stop='fixed_steps',
  )
  before = held_out_loss(make_model(), examples, config, one_device())
  result = fine_tune(make_model, examples, config, one_device(), seed=0)
  after = held_out_loss(result.model, examples, config, one_device())
  assert after < 0.95 * before


def test_a_batch_that_is_not_finite_is_named():
  examples = make_examples(3)
  examples += [dataclasses.replace(examples[0], weight=3e38)] * 2
  with pytest.raises(Diverged, match=r'step 1: .* examples \[0, 1, 2, 3, 4\]'):
    fine_tune(make_model, examples, CONFIG, one_device(), seed=0)


@pytest.mark.parametrize(
  'fields', [{'share_prefixes': False}, {'row_length': 256}, {'rows': 1}]
)
def test_rows_and_sharing_change_no_step_of_a_training(fields):
  curves = []
  for config in CONFIG, dataclasses.replace(CONFIG, **fields):
    losses = []
    fine_tune(
      make_model,
      make_examples(),
      config,
      one_device(),
      seed=0,
      on_step=lambda done, metrics, to=losses: to.append(metrics),
    )
    curves.append(losses)
  assert len(curves[0]) == 12
  np.testing.assert_allclose(*curves, rtol=2e-5)


def run(
  folder, should_stop=None, seed: int = 5, kernels: bool = False
) -> tuple[FineTuned, list]:
  """Fine-tunes; validation peaks after step 8."""
  losses = []
  result = fine_tune(
    lambda: make_model(config=WIDE if kernels else MODEL),
    make_examples(80 if kernels else 40),
    LONG if kernels else CONFIG,
    one_device(),
    seed,
    validate=lambda model, done: -abs(done - 8.0),
    folder=folder,
    on_step=lambda done, metrics: losses.append((done, metrics.loss)),
    should_stop=should_stop,
  )
  return result, losses


def test_the_best_model_is_returned_not_the_last(tmp_path):
  result, losses = run(tmp_path)
  assert result.summary['steps'] == len(losses) == 12
  assert result.summary['chosen'] == 8
  config = dataclasses.replace(CONFIG, stop='fixed_steps', eval_every=8)
  at_8 = []
  fine_tune(
    make_model,
    make_examples(),
    config,
    one_device(),
    seed=5,
    validate=lambda m, n: at_8.append(jax.tree.map(np.asarray, m)) or 0.0,
  )
  assert same_bytes(result.model, at_8[0])


@pytest.mark.parametrize('stops', [(1,), (4, 1), (7, 2)])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, stops):
  expected, losses = run(tmp_path / 'whole')
  for steps in stops:
    count = iter(range(1, 99))
    with pytest.raises(Preempted):
      run(tmp_path / 'torn', lambda n=steps, c=count: next(c) >= n)
  result, rest = run(tmp_path / 'torn')
  assert rest == losses[sum(stops) :]
  assert result.summary == expected.summary
  assert same_bytes(result.model, expected.model)


def test_what_is_lost_behind_the_last_step_is_trained_from_where_it_was_saved(
  tmp_path,
):
  expected, before = run(tmp_path)
  result, losses = run(tmp_path)
  assert losses == before[9:]
  assert same_bytes(result.model, expected.model)
  assert result.summary == expected.summary


def test_all_tokens_are_hashed_only_for_a_checkpoint(tmp_path, monkeypatch):
  hashed = []
  whole = Schedule.fingerprint
  monkeypatch.setattr(
    Schedule, 'fingerprint', lambda self: hashed.append(1) or whole(self)
  )
  config = dataclasses.replace(CONFIG, save_every=0, eval_every=0)
  arguments = make_model, make_examples(), config, one_device(), 0
  fine_tune(*arguments, folder=tmp_path)
  assert not hashed
  with pytest.raises(Preempted):
    fine_tune(*arguments, folder=tmp_path, should_stop=lambda: True)
  assert hashed


def test_rows_are_planned_before_the_model_is_there():
  with pytest.raises(ValueError, match='no examples'):
    fine_tune(lambda: pytest.fail('read'), [], CONFIG, one_device(), seed=0)


def test_checkpoints_of_another_training_are_refused(tmp_path):
  run(tmp_path)
  with pytest.raises(ValueError, match='other examples, seed or mstep'):
    run(tmp_path, seed=6)


def flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 0xFF
  file.write_bytes(data)


def edit(file):
  text = file.read_text()
  digit = text.index('"losses": [') + len('"losses": [')
  file.write_text(f'{text[:digit]}7{text[digit + 1 :]}')


def flip_weights(step):
  files = (step / 'trained').glob('**/d/*')
  flip(max(files, key=lambda file: file.stat().st_size))


DAMAGE = {
  'a byte of the weights': flip_weights,
  'a byte of the position': lambda step: flip(step / 'position/metadata'),
  'half of it gone': lambda step: shutil.rmtree(step / 'optimizer'),
  'all but its name gone': lambda step: shutil.rmtree(step) or step.mkdir(),
  'a digit of the position': lambda step: edit(step / 'position/metadata'),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('lora_rank', [0, 2])
def test_a_damaged_checkpoint_is_put_aside_and_made_again(
  damage, lora_rank, tmp_path, capsys
):
  config = dataclasses.replace(CONFIG, lora_rank=lora_rank)
  mesh = make_mesh(1, 2, 1)

  def train(folder, should_stop=None):
    return fine_tune(
      lambda: make_model(mesh),
      make_examples(),
      config,
      mesh,
      seed=5,
      folder=folder,
      should_stop=should_stop,
    )

  expected = train(None)
  with pytest.raises(Preempted):
    train(tmp_path / 'training', lambda: True)
  DAMAGE[damage](tmp_path / 'training' / '1')
  capsys.readouterr()
  result = train(tmp_path / 'training')
  assert result.summary == expected.summary
  assert same_bytes(result.model, expected.model)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'training', 'training.damaged-1'}
  said = capsys.readouterr().out.splitlines()
  assert len(said) == 1 and 'training.damaged-1 now' in said[0]


def test_a_chosen_checkpoint_that_is_damaged_is_made_again(tmp_path):
  expected, _ = run(tmp_path / 'training')
  flip_weights(tmp_path / 'training' / '8')
  with pytest.raises(Preempted, match='chosen checkpoint is damaged'):
    run(tmp_path / 'training')
  result, losses = run(tmp_path / 'training')
  assert len(losses) == 12
  assert same_bytes(result.model, expected.model)


@pytest.mark.parametrize('kernels', [False, True])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, kernels):
  if kernels and not kernel_for(
    WIDE, 64, jax.devices()[0].platform, shares=True
  ):
    pytest.skip('on a GPU')
  expected, _ = run(tmp_path / 'whole', kernels=kernels)
  code = (
    'import jax; jax.config.update("jax_num_cpu_devices", 8)\n'
    'from tests.m_step import test_fine_tune\n'
    f'test_fine_tune.run({str(tmp_path / "torn")!r}, kernels={kernels})\n'
  )
  flags = os.environ.get('REST_TEST_FLAGS', os.environ.get('XLA_FLAGS', ''))
  environment = os.environ | {'XLA_FLAGS': flags}  # Compiled as it is here.
  command = [sys.executable, '-c', code]
  with subprocess.Popen(command, env=environment) as process:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
      if (tmp_path / 'torn' / '3').exists():  # Training is under way.
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(0.01)
  assert process.returncode == -signal.SIGKILL
  result, losses = run(tmp_path / 'torn', kernels=kernels)
  assert losses[0][0] > 3
  assert same_bytes(result.model, expected.model)
  assert result.summary == expected.summary


# When one array cannot be written, Orbax leaves the writers of the others.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_save_that_fails_ends_training_at_the_next_step(tmp_path):
  """No file may grow past 16 KiB: as good as a full disk."""
  config = dataclasses.replace(
    CONFIG, save_every=3, eval_every=0, stop='fixed_steps'
  )
  seen = []

  def on_step(done: int, metrics: Any) -> None:
    seen.append(done)
    time.sleep(5.0 * (done == 4))  # The failing save is done by then.

  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
  try:
    with pytest.raises(OSError, match='File too large'):
      fine_tune(
        make_model,
        make_examples(),
        config,
        one_device(),
        seed=5,
        folder=tmp_path,
        on_step=on_step,
      )
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert seen[-1] < 6  # Where the next save would have found out.


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'learning_rate': -1.0}, r'mstep\.learning_rate must lie in'),
    ({'stop': 'never'}, r'mstep\.stop must be one of best'),
  ],
)
def test_bad_fields_are_refused_by_name(fields: dict, message: str):
  with pytest.raises(ValueError, match=message):
    MStepConfig(**fields)


@pytest.mark.parametrize('wrong', [-1, MODEL.vocab])
def test_ids_that_the_model_has_not_are_refused(wrong: int):
  mesh = one_device()
  examples = make_examples()
  examples.append(dataclasses.replace(examples[0], completion=(3, wrong)))
  message = rf'completion of example \d+: id {wrong} is not in the vocabulary'
  with pytest.raises(ValueError, match=message):
    fine_tune(lambda: make_model(mesh), examples, CONFIG, mesh, seed=0)
