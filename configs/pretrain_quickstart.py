"""The embedded base models: 1.1 M parameters.

  python -m rest.use.pretrain --config=configs/pretrain_quickstart.py
  python -m rest.use.pretrain --config=configs/pretrain_quickstart.py:hasty

The first makes arithmetic-1m from nothing: its own corpus of word problems with
solutions, many of them wrong, and a tokenizer that it learns from it. Runs
anywhere; about a minute on one H200. After a colon may stand another size, for
configs/ablations/model_size.py: --config=configs/pretrain_quickstart.py:6m.

The second goes on from it to hasty-1m, from which the quickstart starts, with
solutions of which nearly all are wrong where a problem is long; two minutes on
two CPU cores.
"""

from ml_collections import ConfigDict

# Width, layers, query heads, width of a head, and of the feed-forward layer.
_SIZES = {
  '0.3m': (64, 4, 4, 16, 192),
  '1m': (128, 5, 4, 32, 384),
  '6m': (256, 8, 8, 32, 768),
  '37m': (512, 12, 8, 64, 1536),
}


def get_config(size: str = '1m') -> ConfigDict:
  if size == 'hasty':
    return _hasty()
  if size not in _SIZES:
    raise ValueError(
      f"The size must be one of {[*_SIZES]}, or 'hasty'; got {size!r}."
    )
  width, layers, heads, head_width, ffn = _SIZES[size]
  c = ConfigDict()
  c.name = f'pretrain_{size}'  # Names the default working directory.
  c.start = ''  # A model to go on from; '' makes one.
  c.seed = 0  # Of the first weights and the order of the data.

  c.corpus = ConfigDict()
  c.corpus.num_documents = 300_000  # To train on.
  c.corpus.num_held_out = 1_000  # To measure the loss on.
  c.corpus.seed = 0  # Which documents.

  c.noise = (
    ConfigDict()
  )  # How wrong they are: see rest.tasks.arithmetic.corpus.
  c.noise.hasty = (0.3, 0.4, 0.6, 0.65, 0.7)  # Hasty authors, by level.
  c.noise.hasty_trapped = 0.9  # That a hasty author falls into a trap.
  c.noise.careful_trapped = 0.05  # That a careful author does.
  c.noise.slip = 0.01  # Of a wrong result, a step.
  c.noise.wrong_sign = 0.01  # Of a wrong operation, a step.
  c.noise.stop_early = 0.02  # Of a solution that breaks off.

  c.tokenizer = ConfigDict()
  c.tokenizer.vocab = 1024  # Pieces, special ones included.
  c.tokenizer.num_documents = 20_000  # It is learnt from.

  c.model = (
    ConfigDict()
  )  # Fields of rest.model.transformer.ModelConfig; Llama's form.
  c.model.vocab = 1024
  c.model.width = width
  c.model.layers = layers
  c.model.heads = heads
  c.model.kv_heads = 2
  c.model.head_width = head_width
  c.model.ffn = ffn
  c.model.context = 512
  c.model.norm_eps = 1e-5
  c.model.tied = True
  c.model.dtype = 'float32'

  c.mesh = ConfigDict()
  c.mesh.data = -1
  c.mesh.fsdp = 1
  c.mesh.tensor = 1

  c.mstep = ConfigDict()  # Fields of rest.config.MStepConfig.
  c.mstep.learning_rate = 3e-3
  c.mstep.warmup = 0.05
  c.mstep.weight_decay = 0.1
  c.mstep.batch = 292
  c.mstep.row_length = 512
  c.mstep.rows = 80
  c.mstep.epochs = 3
  c.mstep.stop = 'fixed_steps'
  c.mstep.save_every = 500
  c.mstep.remat = 'none'
  return c


def _hasty() -> ConfigDict:
  c = get_config('1m')
  c.name = 'pretrain_hasty'
  c.start = 'rest/model/assets/arithmetic-1m'
  c.corpus.num_documents = 6_000
  c.corpus.num_held_out = 500
  c.corpus.seed = 1
  c.noise.hasty = (0.5, 0.85, 0.97, 0.99, 0.995)
  c.mstep.learning_rate = 3e-4
  c.mstep.batch = 64
  c.mstep.rows = 16
  c.mstep.epochs = 1
  c.mstep.save_every = 0
  return c
