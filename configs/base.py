"""ReST-EM as published: every field, as `rest/config.py` has and explains it.

Other configs say only how they differ.
"""

import dataclasses

from ml_collections import ConfigDict

from rest.config import Config


def get_config() -> ConfigDict:
  """Returns ReST-EM as published, without a problem set or a model."""
  return ConfigDict(dataclasses.asdict(Config()))
