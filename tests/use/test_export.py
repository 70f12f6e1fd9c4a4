"""A run's model goes out as a directory that `transformers` answers from."""

import contextlib
import io
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest
import small_run

from rest.model import sharding, tokenizer, weights
from rest.run import opened, store
from rest.sampler import Ask, Sampler, SamplerConfig
from rest.use import export

QUESTIONS = (
  'Anna bakes 4 trays of 6 rolls. A customer takes 9 rolls. '
  'How many rolls are left?\n',
  ' Two  spaces, Zoë — and\n\na break\n',
)


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> pathlib.Path:
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(small_run.ROOT)
    return small_run.write(tmp_path_factory.mktemp('export') / 'run')


@pytest.fixture(scope='module')
def exported(run) -> pathlib.Path:
  out = run.parent / 'out'
  export.main([str(run), '--iteration=1', f'--out={out}'])
  return out


def _mesh():
  return sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:1])


def _files(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def _run_the_code_of_the_card(folder, monkeypatch) -> dict[str, Any]:
  """Runs it where it is meant to be run, and returns its names."""
  monkeypatch.chdir(folder)
  code = pathlib.Path('README.md').read_text().split('```')[1]
  names: dict[str, Any] = {}
  exec(code.removeprefix('python'), names)
  return names


def _refused(*arguments: str) -> str:
  said = io.StringIO()
  with contextlib.redirect_stderr(said), pytest.raises(SystemExit, match='2'):
    export.main(list(arguments))
  return said.getvalue()


def test_the_weights_that_go_out_are_those_of_the_iteration(run, exported):
  ours = opened.open_run(run).load(1, _mesh())
  again = weights.load(str(exported), _mesh(), 'float32')
  for left, right in zip(
    jax.tree.leaves(ours), jax.tree.leaves(again), strict=True
  ):
    np.testing.assert_array_equal(left, right)
  base = opened.open_run(run).load(0, _mesh())
  assert not np.array_equal(base.embed_VD[...], again.embed_VD[...])


def test_transformers_writes_the_same_greedy_text(
  exported, monkeypatch, capsys
):
  pytest.importorskip('transformers')
  codec = tokenizer.load(str(exported))
  config = SamplerConfig(max_tokens=64, max_prompt_tokens=64, rows=2)
  model = weights.load(str(exported), _mesh(), 'float32')
  sampler = Sampler(model.config, codec, config, _mesh(), seed=0)
  sampler.set_weights(model)
  names = _run_the_code_of_the_card(exported, monkeypatch)
  questions = (*QUESTIONS, names['question'])
  asks = [Ask(i, tuple(codec.encode(q)), (0,)) for i, q in enumerate(questions)]
  drawn = {
    i: c for i, _, c in sampler.sample([codec.bos], asks, temperature=0.0)
  }
  theirs, reference = names['tokenizer'], names['model']
  for index, question in enumerate(questions):
    inputs = theirs(question, return_tensors='pt')['input_ids']
    assert inputs[0].tolist() == [codec.bos, *codec.encode(question)]
    # No argument says how: the directory's generation_config.json does.
    tokens = reference.generate(inputs)[0, inputs.shape[1] :]
    assert tokens.tolist() == list(drawn[index].tokens)
    text = theirs.decode(tokens, skip_special_tokens=True)
    assert text == drawn[index].text
  assert any(c.finished for c in drawn.values())
  assert drawn[2].text in capsys.readouterr().out


def test_the_tokenizer_that_goes_out_is_that_of_the_base(exported):
  ours, base = (tokenizer.load(p) for p in (str(exported), small_run.BASE))
  for name in ('vocab_size', 'bos', 'eos', 'pad'):
    assert getattr(ours, name) == getattr(base, name)


def test_the_same_run_gives_the_same_files(run, exported, tmp_path):
  export.main([str(run), f'--out={tmp_path / "out"}'])
  assert _files(tmp_path / 'out') == _files(exported)


@pytest.mark.parametrize(
  'fact',
  [
    '# arithmetic-1m after ReST-EM on arithmetic, iteration 1',
    'https://arxiv.org/abs/2312.06585',
    '16 samples of each training problem at temperature 0.7, top_k 40',
    'at most 10 a problem',
    'peak learning rate 0.0001, cosine schedule, 1 epoch of',
    '| 1 | 8 | 128 | 60 | 41 | 7 | 41 | 6 of 9 | 0.2500 |',
    '| test | base | 8 | 25.0 % [12.5 %, 90.0 %] | 87.5 % | 50.0 % |',
    '| validation | this model | 8 | 75.0 % [37.5 %, 90.0 %] | - | - |',
    'Test pass@1 against the base: +50.0 points',
    'The answer (correct):\n\n```text\n4 * 6 = 24\n#### 24\n```',
    "mstep.optimizer = 'adamw'",
  ],
)
def test_the_card_states(fact, exported):
  assert fact in (exported / 'README.md').read_text()


def test_the_card_names_data_base_and_versions_but_no_place(run, exported):
  card = (exported / 'README.md').read_text()
  record = json.loads((run / 'run.json').read_text())
  for text in (record['data'], record['base'], *record['versions'].values()):
    assert text in card
  for place in (str(run.parent), str(small_run.ROOT)):
    assert place not in card


def test_the_card_of_adapters_says_that_they_are_merged(tmp_path, monkeypatch):
  monkeypatch.chdir(small_run.ROOT)
  run = small_run.write(tmp_path / 'run', mstep__lora_rank=4)
  export.main([str(run), f'--out={tmp_path / "out"}'])
  card = (tmp_path / 'out/README.md').read_text()
  assert 'adapters of rank 4 (alpha 16.0), merged into the weights' in card


def test_tensors_may_go_out_in_bfloat16(run, exported, tmp_path):
  export.main([str(run), '--dtype=bfloat16', f'--out={tmp_path / "out"}'])
  config = json.loads((tmp_path / 'out/config.json').read_text())
  assert config['torch_dtype'] == 'bfloat16'
  sizes = [
    (folder / 'model.safetensors').stat().st_size
    for folder in (tmp_path / 'out', exported)
  ]
  assert sizes[0] < 0.51 * sizes[1]


@pytest.mark.parametrize(
  ('iteration', 'message'),
  [
    (
      2,
      'no model of iteration 2: it is not finished. Models are there of 0, 1',
    ),
    (9, 'no model of iteration 9: it is a run of 3 iterations'),
    (-1, 'no model of iteration -1'),
    (0, 'it is the base model'),
  ],
)
def test_an_iteration_without_a_model_is_named(
  iteration, message, run, tmp_path
):
  out = tmp_path / 'out'
  assert message in _refused(
    str(run), f'--iteration={iteration}', f'--out={out}'
  )
  assert not out.exists()


def test_by_default_goes_out_what_validation_chooses(run, tmp_path):
  chosen = tmp_path / 'run'
  shutil.copytree(run, chosen)
  record = store.read_record(chosen)
  record['config']['em.stop_on_validation'] = True
  store.write_json(chosen / 'run.json', record)
  for iteration, share in enumerate((0.9, 0.5)):
    path = chosen / f'iteration_{iteration}/validation.json'
    store.write_json(path, store.read_json(path) | {'pass_1': share})
  out = f'--out={tmp_path / "out"}'
  assert 'it is the base model' in _refused(str(chosen), out)


def test_what_is_no_run_is_named(tmp_path):
  message = _refused(str(tmp_path), f'--out={tmp_path / "out"}')
  assert 'has no run.json: it is not a run' in message


def test_a_directory_with_files_is_left_alone(run, exported):
  before = _files(exported)
  assert 'not an empty directory' in _refused(str(run), f'--out={exported}')
  assert _files(exported) == before


def test_an_empty_directory_is_taken(run, exported, tmp_path):
  export.main([str(run), f'--out={tmp_path}'])
  assert _files(tmp_path) == _files(exported)


def test_a_base_that_moved_is_found_and_another_is_refused(run, tmp_path):
  moved, other = tmp_path / 'arithmetic-1m', tmp_path / 'other'
  for folder in (moved, other):
    shutil.copytree(small_run.BASE, folder)
  out = f'--out={tmp_path / "out"}'
  (other / 'config.json').write_text('{}')
  assert 'is not the base model' in _refused(str(run), out, f'--base={other}')
  assert 'is not at /gone' in _refused(str(run), out, '--base=/gone')
  export.main([str(run), out, f'--base={moved}'])
  assert (tmp_path / 'out/README.md').exists()


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
  write = weights.safetensors.write

  def fail(*arguments):
    write(*arguments)
    raise OSError('disk full')

  monkeypatch.setattr(weights.safetensors, 'write', fail)
  out = f'--out={tmp_path / "out"}'
  assert _refused(str(run), out) == 'error: disk full\n'
  assert 'out' not in os.listdir(tmp_path)
