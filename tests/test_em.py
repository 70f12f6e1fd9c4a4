"""Whole runs on the embedded model: killed, stopped, changed, and run again."""

import contextlib
import gzip
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import notebooks
import pytest

from rest.use import export

ROOT = pathlib.Path(__file__).parent.parent
TINY = (
  '--config=configs/arithmetic.py',
  '--config.task.num_train=24',
  '--config.task.num_validation=8',
  '--config.task.num_test=16',
  '--config.estep.num_samples=4',
  '--config.sampling.rows=16',
  '--config.sampling.max_tokens=96',
  '--config.em.iterations=2',
  '--config.eval.num_samples=4',
  '--config.eval.num_problems=4',
  '--config.eval.pass_k=(1,4)',
  '--config.mstep.save_every=2',
  '--config.mstep.rows=2',
)


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> str:
  """Compiled programs, shared by the processes of this module."""
  folder = tmp_path_factory.mktemp('cache')
  return f'--config.compilation_cache={folder}'


@pytest.fixture(scope='module')
def reference(tmp_path_factory, cache) -> pathlib.Path:
  """A run that nothing happened to."""
  workdir = tmp_path_factory.mktemp('em') / 'run'
  done = _run(workdir, cache, '--config.em.export=True')
  assert done.returncode == 0, done.stderr
  return workdir


def _command(workdir: pathlib.Path, *flags: str) -> list[str]:
  return [
    *(sys.executable, '-m', 'rest.main', *TINY, f'--workdir={workdir}'),
    *flags,
  ]


def _run(
  workdir: pathlib.Path, *flags: str
) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    _command(workdir, *flags),
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


def _results(workdir: pathlib.Path) -> dict[str, bytes]:
  """Everything that must not depend on what happened to the run."""
  names = ('dataset.jsonl', 'e_step.json', 'm_step.json')
  names += ('validation.json', 'test.json')
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted(workdir.glob('iteration_*/*.json*'))
    if path.name in names
  }


def test_a_run_leaves_its_results(reference):
  names = set(_results(reference))
  assert {f'iteration_{i}/test.json' for i in range(3)} <= names
  assert {f'iteration_{i}/dataset.jsonl' for i in (1, 2)} <= names
  record = json.loads((reference / 'run.json').read_text())
  assert record['config']['estep.num_samples'] == 4
  assert record['versions']['jax']
  assert (reference / 'results.png').read_bytes().startswith(b'\x89PNG')
  assert not list(reference.rglob('*.partial*'))
  assert not list(reference.glob('iteration_*/training'))


def test_the_dataset_is_made_of_correct_finished_samples(reference):
  kept = (reference / 'iteration_1/dataset.jsonl').read_text().splitlines()
  assert kept
  parts = {}
  for path in (reference / 'iteration_1/parts').iterdir():
    for line in gzip.decompress(path.read_bytes()).splitlines():
      row = json.loads(line)
      parts[row['problem'], row['sample']] = row
  assert len(parts) == 24 * 4
  for line in kept:
    row = json.loads(line)
    part = parts[row['problem'], row['sample']]
    assert part['reward'] == 1.0
    assert part['ended'] == 'token'
    assert part['text'] == row['text']


def test_a_finished_run_says_so_and_shows_its_table(reference, cache):
  before = _results(reference)
  again = _run(reference, cache)
  assert again.returncode == 0
  assert 'is finished' in again.stdout
  assert 'test pass@1' in again.stdout
  assert _results(reference) == before


def test_the_models_that_a_run_exports_are_those_of_the_command(
  reference, tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  export.main([str(reference), '--iteration=2', f'--out={tmp_path / "out"}'])
  ours, theirs = (
    {path.name: path.read_bytes() for path in folder.iterdir()}
    for folder in (reference / 'iteration_2/hf', tmp_path / 'out')
  )
  assert ours == theirs
  assert '| test | this model | 16 |' in ours['README.md'].decode()
  assert (reference / 'iteration_1/hf/config.json').exists()


def test_another_config_is_refused_and_named(reference, cache):
  refused = _run(reference, cache, '--config.estep.cap=3')
  assert refused.returncode == 2
  assert 'estep.cap was 10, now 3' in refused.stderr


def test_the_notebook_looks_into_a_run(
  reference, tmp_path, monkeypatch, capsys
):
  pytest.importorskip('IPython')
  monkeypatch.chdir(tmp_path)  # As on Colab: no checkout beside it.
  monkeypatch.setenv('REST_WORKDIR', str(reference))
  monkeypatch.setenv('REST_BASE', str(ROOT / 'rest/model/assets/arithmetic-1m'))
  notebooks.run('look_into_a_run')
  out = capsys.readouterr().out
  assert 'test pass@1' in out
  assert '--- sample' in out
  verdicts = re.findall(r'was (\S+), now (\S+) ', out)
  assert len(verdicts) == 4
  assert all(before == now for before, now in verdicts)
  assert '--- temperature 1.5, answer 3' in out


def _count_files(workdir: pathlib.Path) -> int:
  """Counts JSON files, while folders come and go."""
  return sum(
    '.json' in name for _, _, names in os.walk(workdir) for name in names
  )


def _kill_until_done(
  workdir: pathlib.Path, cache: str, seed: int, kills: int
) -> None:
  """Kills a run at random moments, then lets it end."""
  rng = random.Random(seed)
  for _ in range(kills):
    process = subprocess.Popen(
      _command(workdir, cache),
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    files = _count_files(workdir)
    # Counted in files, so that a slow machine is killed at work, too.
    target = files + rng.randrange(1, 40)
    while process.poll() is None:
      if _count_files(workdir) >= target:
        break
      time.sleep(0.02)
    time.sleep(rng.random() * 0.5)
    with contextlib.suppress(ProcessLookupError):  # It may have finished.
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
  done = _run(workdir, cache)
  assert done.returncode == 0, done.stderr


def test_killed_at_random_moments_the_results_are_the_same_bytes(
  reference, cache, tmp_path
):
  _kill_until_done(tmp_path / 'run', cache, seed=0, kills=3)
  assert _results(tmp_path / 'run') == _results(reference)


def _start_processes(
  workdir: pathlib.Path, cache: str, count: int
) -> list[subprocess.Popen[str]]:
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [
    subprocess.Popen(
      _command(workdir, cache, '--config.em.iterations=1'),
      cwd=ROOT,
      env={
        **os.environ,
        'REST_COORDINATOR': f'localhost:{port}',
        'REST_NUM_PROCESSES': str(count),
        'REST_PROCESS_ID': str(index),
      },
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]


def _wait_for_samples(
  workdir: pathlib.Path, process: subprocess.Popen[str]
) -> None:
  while not list(workdir.glob('iteration_1/parts/part-*')):
    assert process.poll() is None
    time.sleep(0.05)


def _same_samples(workdir: pathlib.Path, reference: pathlib.Path) -> bool:
  """Whether the first iterations agree in all that rounding leaves alone."""
  names = ('dataset.jsonl', 'e_step.json', 'test.json')
  folders = workdir / 'iteration_1', reference / 'iteration_1'
  return all(
    (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    for name in names
  )


def test_sigterm_saves_and_the_run_goes_on_with_two_processes(
  reference, cache, tmp_path
):
  workdir = tmp_path / 'run'
  process = subprocess.Popen(
    _command(workdir, cache),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  _wait_for_samples(workdir, process)
  process.terminate()
  out, _ = process.communicate()
  assert process.returncode == 75
  assert 'Run the same command again' in out
  for process in _start_processes(workdir, cache, 2):
    _, errors = process.communicate()
    assert process.returncode == 0, errors
  assert _same_samples(workdir, reference)
  losses = [
    json.loads((folder / 'iteration_1/m_step.json').read_text())['loss']
    for folder in (workdir, reference)
  ]
  assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_when_a_process_dies_the_others_stop_and_one_alone_goes_on(
  reference, cache, tmp_path
):
  workdir = tmp_path / 'run'
  first, second = _start_processes(workdir, cache, 2)
  _wait_for_samples(workdir, first)
  second.kill()
  second.communicate()
  _, errors = first.communicate()
  assert first.returncode == 1
  assert 'process 0 of 2 stops' in errors
  assert _run(workdir, cache, '--config.em.iterations=1').returncode == 0
  assert _same_samples(workdir, reference)
