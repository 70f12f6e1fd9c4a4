"""`transformers` on the sampler's load, on the same machine: the reference."""

import tempfile
from typing import Any

import numpy as np

from bench.workload import Workload
from rest.model import weights
from rest.model.transformer import Transformer


class Transformers:
  """`generate` of transformers, with the weights of one of our models."""

  def __init__(self, model: Transformer, rows: int, threads: int):
    """Exports the weights and reads them back with transformers.

    Args:
      model: Stacked.
      rows: Completions in a batch.
      threads: Of torch.
    """
    import torch
    import transformers

    torch.set_num_threads(threads)
    self._torch = torch
    self._rows = rows
    with tempfile.TemporaryDirectory() as folder:
      weights.save(model, f'{folder}/model', None)
      self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        f'{folder}/model'
      ).eval()
    self.version = f'transformers {transformers.__version__}'

  def draw(self, load: Workload) -> None:
    """Draws the load, in batches of whole problems, in order.

    A batch runs until its longest completion is done, as `generate` does.
    """
    asks = load.asks
    size = max(1, self._rows // len(asks[0].samples))
    for first in range(0, len(asks), size):
      self._generate(load.prefix, asks[first : first + size])

  def _generate(self, prefix, asks):
    torch = self._torch
    samples = len(asks[0].samples)
    width = len(prefix) + max(len(ask.tokens) for ask in asks)
    token_BT = np.zeros((len(asks), width), np.int64)
    mask_BT = np.zeros_like(token_BT)
    for row, ask in enumerate(asks):
      prompt = [*prefix, *ask.tokens]
      token_BT[row, -len(prompt) :] = prompt
      mask_BT[row, -len(prompt) :] = 1
    longest = max(max(ask.limits) for ask in asks)
    with torch.inference_mode():
      drawn = self._model.generate(
        input_ids=torch.from_numpy(token_BT),
        attention_mask=torch.from_numpy(mask_BT),
        num_return_sequences=samples,
        do_sample=True,
        temperature=0.7,
        top_k=40,
        min_new_tokens=longest,
        max_new_tokens=longest,
        pad_token_id=0,
        eos_token_id=None,
      )
    assert drawn.shape == (len(asks) * samples, width + longest)
