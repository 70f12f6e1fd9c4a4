"""What is wrong with a model folder is found before any work, in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import families
import jax
import pytest
from etils import epath

from configs import arithmetic
from rest import main
from rest.model import weights
from rest.model.sharding import MeshConfig, make_mesh

ROOT = Path(__file__).parent.parent.parent
BASE = str(ROOT / 'rest/model/assets/arithmetic-1m')
FILE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
NORM, EMBED = 'model.norm.weight', 'model.embed_tokens.weight'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Folders of the base model, in one file and in several."""
  folder = tmp_path_factory.mktemp('whole')
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  model = weights.load(BASE, mesh, 'float32')
  weights.save(model, str(folder / 'one'), BASE)
  weights.save(model, str(folder / 'shards'), BASE, shard_bytes=1 << 20)
  return folder


def prepare(path, workdir):
  config = arithmetic.get_config()
  config.model.path = str(path)
  config.task.num_train = config.task.num_test = 8
  config.sampling.max_tokens = 64
  return main.prepare(config, epath.Path(workdir))


def edit_header(file, change):
  """Passes the header of a file, parsed, through `change`."""
  data = file.read_bytes()
  stop = 8 + int.from_bytes(data[:8], 'little')
  header = json.dumps(change(json.loads(data[8:stop]))).encode()
  file.write_bytes(len(header).to_bytes(8, 'little') + header + data[stop:])


def edit_tensor(**fields):
  """Returns what changes fields of the last norm in a header."""
  return lambda header: header | {NORM: header[NORM] | fields}


def move(name, bytes_):
  """Returns what moves a tensor within its file, as a header tells it."""

  def change(header):
    start, stop = header[name]['data_offsets']
    place = [start + bytes_, stop + bytes_]
    return header | {name: header[name] | {'data_offsets': place}}

  return change


def twice(folder):
  """Puts a tensor of the last shard into the first, in another shape."""
  first, *_, last = sorted(folder.glob('*.safetensors'))
  shards = json.loads((folder / INDEX).read_text())['weight_map']
  name = next(name for name in shards if shards[name] == last.name)

  def add(header):
    end = max(h['data_offsets'][1] for h in header.values() if 'dtype' in h)
    entry = {'dtype': 'F32', 'shape': [2], 'data_offsets': [end, end + 8]}
    return header | {name: entry}

  edit_header(first, add)
  first.write_bytes(first.read_bytes() + bytes(8))


def without(name):
  return lambda header: {k: v for k, v in header.items() if k != name}


def of_file(change):
  """Returns what changes the bytes of the one file."""

  def damage(folder):
    (folder / FILE).write_bytes(change((folder / FILE).read_bytes()))

  return damage


def of_header(change):
  return lambda folder: edit_header(folder / FILE, change)


def of_index(change):
  """Returns what changes the index, as text."""

  def damage(folder):
    (folder / INDEX).write_text(change((folder / INDEX).read_text()))

  return damage


def place(tensor, shard):
  """Returns what makes an index name one more tensor."""

  def change(text):
    index = json.loads(text)
    index['weight_map'][tensor] = shard
    return json.dumps(index)

  return change


SHARD = 'model-00002-of-00005.safetensors'
LONG = (100_000_001).to_bytes(8, 'little') + bytes(100_000_001)
FAULTS = {
  'none': (lambda folder: (folder / FILE).unlink(), 'neither'),
  'a folder': (
    lambda folder: (folder / FILE).unlink() or (folder / FILE).mkdir(),
    'Is a directory',
  ),
  'empty': (of_file(lambda data: b''), 'truncated'),
  'cut in its length': (of_file(lambda data: data[:5]), 'truncated'),
  'cut in its header': (of_file(lambda data: data[:100]), 'truncated'),
  'cut by a byte': (of_file(lambda data: data[:-1]), 'truncated'),
  'longer': (of_file(lambda data: data + b'x'), 'its header is wrong'),
  'foreign': (of_file(lambda data: b'PK\3\4' + data), 'truncated, or no'),
  'a header too long': (of_file(lambda data: LONG), 'of 100000001 bytes'),
  'not JSON': (
    of_file(lambda data: data[:8] + b'x' + data[9:]),
    'no safetensors file',
  ),
  'not UTF-8': (
    of_file(lambda data: data[:9] + b'\xff' + data[10:]),
    'no safetensors file',
  ),
  'a list': (of_header(lambda header: [1, 2]), 'no safetensors file'),
  'a text': (of_header(lambda header: header | {NORM: 'x'}), "but 'x'"),
  'no type': (
    of_header(lambda h: h | {NORM: without('dtype')(h[NORM])}),
    f'{NORM} is no tensor',
  ),
  'a negative shape': (of_header(edit_tensor(shape=[-128])), 'is no tensor'),
  'a shape of texts': (of_header(edit_tensor(shape=['128'])), 'is no tensor'),
  'another shape': (of_header(edit_tensor(shape=[64, 2])), r'shape \(64, 2\)'),
  'too large a shape': (of_header(edit_tensor(shape=[129])), 'which is not'),
  'whole numbers': (of_header(edit_tensor(dtype='I32')), 'dtype I32'),
  'one name missing': (
    of_header(lambda h: {f'_{k}' if k == NORM else k: h[k] for k in h}),
    f'lacks 1 .*{NORM}',
  ),
  'a hole': (of_header(without(NORM)), 'starts at|truncated'),
  'an overlap': (of_header(move(NORM, -4)), 'starts at byte'),
  'past the end': (of_header(move(NORM, 1 << 40)), 'starts at byte|truncated'),
  'an index that is no JSON': (of_index(lambda text: text[:50]), 'no index'),
  'an index that is a list': (of_index(lambda text: '[]'), 'no index'),
  'an index without a map': (of_index(lambda text: '{}'), 'no index'),
  'an index of numbers': (of_index(place(NORM, 7)), 'no index'),
  'a shard that is not there': (
    of_index(place(NORM, 'x.safetensors')),
    'names x.safetensors',
  ),
  'a tensor that no shard has': (of_index(place('x', SHARD)), 'places x in'),
  'a shard lost': (lambda folder: (folder / SHARD).unlink(), SHARD),
  'a shard cut': (
    lambda folder: os.truncate(folder / SHARD, 5000),
    f'{SHARD} is truncated',
  ),
  'two shapes of a tensor': (twice, r'has shape .* but \(2,\) in'),
  'no config.json': (
    lambda folder: (folder / 'config.json').unlink(),
    r'no config\.json',
  ),
  'a config.json that is a list': (
    lambda folder: (folder / 'config.json').write_text('[1]'),
    r'config\.json is not JSON',
  ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_faulty_model_folder_is_named_before_any_work(fault, whole, tmp_path):
  damage, message = FAULTS[fault]
  sharded = any(word in fault for word in ('shard', 'index', 'two shapes'))
  folder = tmp_path / 'model'
  shutil.copytree(whole / ('shards' if sharded else 'one'), folder)
  damage(folder)
  with pytest.raises(ValueError, match=message) as found:
    prepare(folder, tmp_path / 'run')
  text = str(found.value)
  assert text.startswith('model.path: ') and str(folder) in text
  assert '\n' not in text
  assert os.listdir(tmp_path) == ['model']


def test_a_plan_for_here_is_refused_in_one_line(whole, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(whole / 'one', folder)
  of_file(lambda data: data[:-1])(folder)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'rest.main', '--config=configs/arithmetic.py'),
      *(f'--config.model.path={folder}', f'--workdir={tmp_path / "run"}'),
      '--dry_run',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  error = done.stderr.splitlines()[-1]
  assert error.startswith(f'error: model.path: {folder}/{FILE} is truncated')
  assert 'Traceback' not in done.stderr
  assert os.listdir(tmp_path) == ['model']


@pytest.mark.parametrize('kind', ['one', 'shards'])
def test_a_whole_folder_is_taken(kind, whole, tmp_path):
  prepare(whole / kind, tmp_path / 'run')


@pytest.mark.parametrize('family', families.FAMILIES)
def test_what_transformers_writes_of_every_family_is_taken(family, tmp_path):
  pytest.importorskip('transformers')
  families.write(family, tmp_path)
  config = weights.read_config(str(tmp_path), 'float32')
  assert EMBED in weights.check(str(tmp_path), config)
