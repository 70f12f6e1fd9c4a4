"""Processes agree; more than two, on demand: REST_PROCESSES=4 pytest ..."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COUNT = int(os.environ.get('REST_PROCESSES', '0'))
FLAGS = (
  '--config=configs/arithmetic.py',
  '--config.task.num_train=24',
  '--config.task.num_validation=8',
  '--config.task.num_test=16',
  '--config.estep.num_samples=4',
  '--config.sampling.rows=16',
  '--config.sampling.max_tokens=96',
  '--config.em.iterations=1',
  '--config.eval.num_samples=0',
  '--config.eval.pass_k=()',
  '--config.mstep.save_every=2',
  '--config.mstep.rows=4',
)

# Saves an array that lies on two processes, damages what the second one wrote,
# and reads it; then they meet again.
READ = """
import pathlib, sys
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from rest.model import checkpoint
from rest.run import processes

processes.initialize()
folder, place = pathlib.Path(sys.argv[1]), jax.P('x')
with jax.set_mesh(jax.make_mesh((2,), ('x',))):
  tree = {'a': jax.jit(jnp.arange, static_argnums=0, out_shardings=place)(1e6)}
checkpoint.save_model(folder, tree)
checkpoint.load_tree(folder, tree)
if not processes.is_first():
  for path in folder.glob('ocdbt.process_1/d/*'):
    path.write_bytes(b'')
multihost_utils.sync_global_devices('damaged')
try:
  checkpoint.load_tree(folder, tree)
except ValueError as error:
  print('refused', error)
print(processes.totals(1.0))
"""

# Runs what follows as on devices that only sample together.
IN_STEP = """
import dataclasses, os
from absl import app
from rest import main
from rest.model import hardware
from rest.run import processes

cpu, prepare = hardware.cpu, main.prepare

def whole(devices):
  return dataclasses.replace(cpu(devices), whole_above=1)

def told(*given):
  run = prepare(*given)
  print(run.world.sampling_mesh.size, 'sample together')
  return run

hardware.cpu, main.prepare = whole, told
try:
  app.run(main.main, flags_parser=main.parse)
except SystemExit as end:
  # All come here together. JAX's own farewell was seen to crash (0.10.2).
  processes.barrier('end')
  print(flush=True)
  os._exit(end.code or 0)
"""

on_demand = pytest.mark.skipif(
  not COUNT, reason='on demand: REST_PROCESSES=4 pytest'
)


def _start(
  workdir: pathlib.Path, count: int, *flags: str
) -> list[subprocess.Popen[str]]:
  words = (
    *('-m', 'rest.main', *FLAGS, f'--workdir={workdir}'),
    f'--config.compilation_cache={workdir.parent / "cache"}',
    *flags,
  )
  return _start_python([words] * count)


def _start_python(
  lines: Sequence[Sequence[str]], **environment: str
) -> list[subprocess.Popen[str]]:
  """Starts processes that find each other, each with a command line."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  names = {
    'REST_COORDINATOR': f'localhost:{port}',
    'REST_NUM_PROCESSES': str(len(lines)),
  }
  return [
    subprocess.Popen(
      [sys.executable, *words],
      cwd=ROOT,
      env={
        **os.environ,
        **names,
        **environment,
        'REST_PROCESS_ID': str(index),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index, words in enumerate(lines)
  ]


def _finish(processes: list[subprocess.Popen[str]]) -> None:
  for process in processes:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def _found(workdir: pathlib.Path) -> list[bytes]:
  """What must not depend on how many processes there were."""
  names = ('dataset.jsonl', 'e_step.json', 'validation.json', 'test.json')
  return [(workdir / 'iteration_1' / name).read_bytes() for name in names]


def _loss(workdir: pathlib.Path) -> float:
  return json.loads((workdir / 'iteration_1/m_step.json').read_text())['loss']


@pytest.fixture(scope='module')
def alone(tmp_path_factory) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('processes') / 'alone'
  _finish(_start(workdir, 1))
  return workdir


def test_weights_that_one_process_cannot_read_none_has_read(tmp_path):
  started = _start_python([('-c', READ, str(tmp_path / 'model'))] * 2)
  for process in started:
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert 'refused' in out and '[2.0]' in out


def test_what_one_process_refuses_ends_all_in_one_line(tmp_path):
  line = ('-m', 'rest.main', *FLAGS, f'--workdir={tmp_path / "run"}')
  absent = f'--config.model.path={tmp_path / "absent"}'
  for process in _start_python([line, (*line, absent)]):
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith('error: ')
    assert 'Traceback' not in errors and absent.split('=')[1] in errors
  assert not list(tmp_path.iterdir())


def _start_small(
  workdir: pathlib.Path, lines: Sequence[str], count: int
) -> list[subprocess.Popen[str]]:
  """Starts a run of a few calls of the sampler, on two devices a process."""
  words = (
    *(*lines, *FLAGS, f'--workdir={workdir}'),
    *('--config.estep.stop_at_cap=True', '--config.estep.cap=1'),
    *('--config.task.num_train=16', '--config.task.num_test=4'),
    *('--config.sampling.rows=8', '--config.mesh.fsdp=2'),
    *('--config.mstep.max_steps=1', '--config.mstep.eval_every=1'),
  )
  return _start_python(
    [words] * count,
    JAX_NUM_CPU_DEVICES='2',
    XLA_FLAGS='--xla_backend_optimization_level=0',
  )


def _ended(started: list[subprocess.Popen[str]], status: int) -> str:
  """Returns what they printed, who must not wait for each other for ever."""
  found = ''
  try:
    for process in started:
      out, errors = process.communicate(timeout=300)
      assert process.returncode == status, errors
      found += out
  finally:
    for process in started:
      process.kill()
  return found


def test_processes_in_step_stop_together_and_find_what_one_finds(tmp_path):
  whole, torn = tmp_path / 'whole', tmp_path / 'torn'
  _ended(_start_small(whole, ('-m', 'rest.main'), 1), 0)
  started = _start_small(torn, ('-c', IN_STEP), 2)
  while not list(torn.glob('iteration_1/parts/part-*')):
    assert started[0].poll() is None
    time.sleep(0.02)
  started[1].send_signal(signal.SIGTERM)
  said = _ended(started, 75)
  assert said.count('4 sample together') == 2
  assert said.count('Stopped while sampling for iteration 1.') == 2
  _ended(_start_small(torn, ('-c', IN_STEP), 2), 0)
  assert _found(torn) == _found(whole)
  one, both = (
    json.loads((folder / 'iteration_1/m_step.json').read_text())
    for folder in (whole, torn)
  )
  assert both['scores'] == one['scores']
  assert both['loss'] == pytest.approx(one['loss'], rel=1e-4)


@on_demand
@pytest.mark.parametrize('fsdp', [1, 2])
def test_many_processes_find_what_one_finds(alone, fsdp):
  workdir = alone.parent / f'fsdp{fsdp}'
  _finish(_start(workdir, COUNT, f'--config.mesh.fsdp={fsdp}'))
  assert _found(workdir) == _found(alone)
  assert _loss(workdir) == pytest.approx(_loss(alone), rel=1e-4)


@on_demand
def test_when_one_of_many_dies_all_stop_and_half_of_them_go_on(alone):
  workdir = alone.parent / 'torn'
  processes = _start(workdir, COUNT)
  while not list(workdir.glob('iteration_1/parts/part-*')):
    assert processes[0].poll() is None
    time.sleep(0.05)
  processes[-1].kill()
  for process in processes:
    _, errors = process.communicate()
    assert process.returncode not in (0, 2, 75)
    assert errors or process is processes[-1]
  _finish(_start(workdir, COUNT // 2))
  assert _found(workdir) == _found(alone)
  assert _loss(workdir) == pytest.approx(_loss(alone), rel=1e-4)
