"""Programs in completions."""

import re

_FENCE = re.compile(r'```[^\n]*\n(.*?)(?:```|\Z)', re.DOTALL)


def unfenced(completion: str) -> str:
  """Returns the first fenced block, or all of a text that has none.

  Chat models put programs between fences; base models do not.
  """
  block = _FENCE.search(completion)
  return block.group(1) if block else completion
