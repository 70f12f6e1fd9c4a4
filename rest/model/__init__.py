"""The model: one transformer, sharded by the names of its parameters.

Axis letters in names of arrays, here and in `rest.m_step`:

  B batch: packed rows          T positions of a row      S positions of keys
  D model width                 V vocabulary              L layers
  K key/value heads             G query heads of each     H head width
  J pairs of a head, H / 2      F feed-forward width      C gate and up
  P a key/value head's share of the fused projection: G queries, key, value
  R rank of adapters            X devices with rows       I blocks of a row
  M blocks that one may meet    N runs of those
"""
