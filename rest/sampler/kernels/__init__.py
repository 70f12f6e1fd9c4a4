"""Attention of a decoding step on NVIDIA GPUs, in three Triton kernels.

The first runs over the prefix, for queries of all rows at once; the second over
the questions, for all rows of a slot; the third over each row's suffix, of
which it reads only what is filled, and begins with what the others found.

  prefix.py     grid (tiles of M, K, A)            -> MeanPart --+
  questions.py  grid (tiles of M of a slot, K, Q)  -> MeanPart --+-> suffix.py
                                                       grid (B, K) -> out_BKGH

`attention.py` is the reference, and the path on other devices. Letters beside
those of `rest.sampler`:

  M queries that share a key head: of all rows (B * G), of a slot (R * G), or
    the tile of them that one program works on
  A parts that the keys of the prefix are cut into
"""

from rest.sampler.kernels.attend import attend
from rest.sampler.kernels.options import Blocks, Options

__all__ = ['Blocks', 'Options', 'attend']
