"""Attention of a decoding step on NVIDIA GPUs, in four Triton kernels.

The first runs over the prefix, for queries of all rows at once; the second over
the questions, for all rows of a slot; the last over each row's suffix, of which
it reads only what is filled, and adds what the others found. Where few rows are
left, questions are cut into stretches, and those of a suffix that are full are
read by a kernel of their own.

  prefix.py     grid (tiles of M, K, A)               -> MeanPart --+
  questions.py  grid (tiles of M of a slot, K, A * Q) -> MeanPart --+
  suffix.py     grid (1, K, A * B), full stretches    -> MeanPart --+
                grid (1, K, B), the rest and all these <------------+
                  -> out_BKGH

`attention.py` is the reference, and the path on other devices. Letters beside
those of `rest.sampler`:

  M queries that share a key head: of all rows (B * G), of a slot (R * G), or
    the tile of them that one program works on
  A parts that the keys of a level are cut into
"""

from rest.sampler.kernels.attend import attend
from rest.sampler.kernels.options import Blocks, Options

__all__ = ['Blocks', 'Options', 'attend']
