"""Pretrains a small base model: corpus, tokenizer, weights.

  python -m rest.use.pretrain --config=configs/pretrain_quickstart.py

Ends with a Hugging Face directory, `model` in the working directory, which the
loop can start from. Started again, it goes on where it stopped.
"""

import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import sentencepiece
from absl import app, flags, logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

from rest.config import MStepConfig
from rest.m_step.fine_tune import FineTuned, fine_tune
from rest.m_step.packing import Example
from rest.m_step.update import Metrics, held_out_loss
from rest.model import sharding, tokenizer, weights
from rest.model.transformer import ModelConfig, Transformer
from rest.run.store import write_json
from rest.tasks.arithmetic.corpus import Document, Noise, corpus
from rest.types import Tokenizer

# Ids in the tokenizers made here; what is unknown is spelled in bytes.
_SPECIAL: dict[str, Any] = {'pad_id': 0, 'bos_id': 1, 'eos_id': 2, 'unk_id': 3}
_LOG_EVERY = 20  # Steps.


@dataclass(frozen=True, slots=True)
class CorpusConfig:
  """What is trained on.

  Attributes:
    num_documents: To train on.
    num_held_out: To measure the loss on.
    seed: Which documents.
  """

  num_documents: int
  num_held_out: int
  seed: int


def main(argv: Sequence[str]) -> None:
  """Runs what the flags say."""
  if len(argv) > 1:
    sys.exit(f'error: unknown arguments {argv[1:]}; flags start with --.')
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every step it takes.
  config = flags.FLAGS.config
  workdir = epath.Path(flags.FLAGS.workdir or config.name)
  try:
    pretrain(config, workdir)
  except (FileNotFoundError, ValueError) as error:
    sys.exit(f'error: {error}')


def pretrain(config: Any, workdir: epath.Path) -> dict[str, Any]:
  """Trains and writes a model; returns what people want to know of it.

  Raises:
    FileNotFoundError: There is no model at `start`.
    ValueError: A field is wrong, or that model.
  """
  source = CorpusConfig(**config.corpus)
  model_config = ModelConfig(**config.model)
  if config.tokenizer.vocab != model_config.vocab:
    raise ValueError(
      f'tokenizer.vocab and model.vocab must be equal; got '
      f'{config.tokenizer.vocab} and {model_config.vocab}.'
    )
  mesh = sharding.make_mesh(sharding.MeshConfig(**config.mesh))
  folder, first = epath.Path(config.start), None
  if config.start:
    first = weights.load(config.start, mesh, model_config.dtype)
    if tokenizer.load(config.start).bos is None:
      raise ValueError(
        f"start={config.start!r}: the model's tokenizer has no begin token."
      )
  workdir.mkdir(parents=True, exist_ok=True)
  print('making the corpus', flush=True)
  count = source.num_documents + source.num_held_out
  documents = list(corpus(count, source.seed, Noise(**config.noise)))
  if first is None:
    folder = workdir / 'tokenizer'
    texts = documents[: config.tokenizer.num_documents]
    _make_tokenizer(folder, texts, config.tokenizer.vocab)
    first = _first_weights(model_config, mesh, config.seed)
  codec = tokenizer.load(str(folder))
  examples = [to_example(document, codec) for document in documents]
  result, loss = _train(
    examples[: source.num_documents],
    examples[source.num_documents :],
    first,
    MStepConfig(**config.mstep),
    mesh,
    config.seed,
    workdir,
  )
  weights.save(result.model, str(workdir / 'model'), str(folder))
  summary = result.summary | {
    'parameters': sum(x.size for x in jax.tree.leaves(result.model)),
    'tokens': sum(e.length for e in examples[: source.num_documents]),
    'held_out_loss': loss,
    'correct': sum(d.correct for d in documents) / len(documents),
  }
  write_json(workdir / 'pretrain.json', summary)
  return summary


def to_example(document: Document, codec: Tokenizer) -> Example:
  """Returns a document as a sequence, with a loss on all of it."""
  assert codec.bos is not None  # Those made here have one; others are asked.
  question = codec.encode(document.prompt)
  solution = codec.encode(document.completion, follows=True)
  return Example((codec.bos,), (*question, *solution, codec.eos[0]))


def learn_tokenizer(texts: Iterable[str], vocab: int) -> bytes:
  """Returns a SentencePiece model (BPE, digits apart, bytes for the rest)."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=model,
    vocab_size=vocab,
    model_type='bpe',
    split_digits=True,
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    user_defined_symbols=['\n'],
    num_threads=1,  # The same model every time.
    minloglevel=2,
    **_SPECIAL,
  )
  return model.getvalue()


def _make_tokenizer(
  folder: epath.Path, documents: Sequence[Document], vocab: int
) -> None:
  """Learns a tokenizer, and writes it to a folder, if there is none."""
  if not (folder / 'tokenizer_config.json').exists():
    print('learning the tokenizer', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    texts = (f'{d.prompt}{d.completion}' for d in documents)
    (folder / 'tokenizer.model').write_bytes(learn_tokenizer(texts, vocab))
    settings = {
      'tokenizer_class': 'LlamaTokenizer',
      'add_bos_token': True,
      'add_eos_token': False,
      'bos_token': '<s>',
      'eos_token': '</s>',
      'pad_token': '<pad>',
      'unk_token': '<unk>',
      'legacy': False,
      'add_prefix_space': False,
    }
    write_json(folder / 'tokenizer_config.json', settings)


def _train(
  examples: Sequence[Example],
  held_out: Sequence[Example],
  first: Transformer,
  config: MStepConfig,
  mesh: Mesh,
  seed: int,
  workdir: epath.Path,
) -> tuple[FineTuned, float]:
  """Returns the trained model and its loss on held-out documents."""
  with (workdir / 'pretrain.jsonl').open('a') as log:

    def on_step(done: int, metrics: Metrics) -> None:
      if done % _LOG_EVERY == 0:
        log.write(json.dumps({'step': done, **metrics._asdict()}) + '\n')

    result = fine_tune(
      lambda: first,
      examples,
      config,
      mesh,
      seed,
      folder=workdir / 'checkpoints',
      title='pretraining',
      on_step=on_step,
    )
  return result, held_out_loss(result.model, held_out, config, mesh)


def _first_weights(config: ModelConfig, mesh: Mesh, seed: int) -> Transformer:
  """Returns random weights, made where they will live."""

  def make() -> Transformer:
    return Transformer(config, jax.random.key(seed))

  places = sharding.shardings(jax.eval_shape(make), mesh)
  return jax.jit(make, out_shardings=places)()


if __name__ == '__main__':
  config_flags.DEFINE_config_file(
    'config', None, 'What to train, such as configs/pretrain_quickstart.py.'
  )
  flags.DEFINE_string(
    'workdir', None, 'Folder for all files. Default: named after the config.'
  )
  flags.mark_flag_as_required('config')
  app.run(main)
