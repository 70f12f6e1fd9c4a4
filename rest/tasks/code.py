"""Programs in completions: what an answer finally gives.

Base models write the program and nothing else, or go on behind it. Chat models
think first, explain, and put the program between fences, and with it earlier
drafts, tests, examples of its use and its output. So thoughts are left out, and
of the blocks the last counts that can be the program: one that defines what the
tests call, or that reads the input.

All of this is linear in the length of the text, whatever the text: it runs in
the process that holds the device.
"""

import re
from dataclasses import dataclass, field

from rest.types import Tests, without_thoughts

_FENCE = re.compile(r'`{3,}')
_QUOTES = re.compile(r'"""|\'\'\'')
_PYTHON = re.compile(r'[{.\s]*py', re.IGNORECASE)  # ```py, ```{.python}
_READS = re.compile(r'\binput\s*\(|\bstdin\b|\bopen\(0')


def program(completion: str, tests: Tests) -> str:
  r"""Returns the program that a completion gives.

  Args:
    completion: 'Use sum:\n```python\ndef f(v): return sum(v)\n```\nTry f([1]).'
    tests: Of the problem: they tell a program from an example of its use.
  """
  return _flush(_chosen(completion, tests, goes_on=False))


def continuation(completion: str, tests: Tests) -> str:
  r"""Returns what goes on behind the head of a function: its body.

  Or a whole program, which defines the function anew.

  Args:
    completion: '    return sum(v)\n```\nThis adds the numbers.'
    tests: Of the problem.
  """
  return _chosen(completion, tests, goes_on=True)


@dataclass(slots=True)
class _Block:
  """Lines of a completion: those before all fences, or behind one.

  Attributes:
    tag: What stands behind the fence, such as 'python'.
    column: Where the fence stands. One that stands deeper closes no block: it
      is part of the program, as in a docstring.
    length: Of the fence.
    is_closed: Whether the block has an end.
    lines: What it holds.
    deeper: Fences that stand deeper, by the line.
  """

  tag: str = ''
  column: int = 0
  length: int = 3
  is_closed: bool = False
  lines: list[str] = field(default_factory=list)
  deeper: list[int] = field(default_factory=list)

  @property
  def text(self) -> str:
    return '\n'.join(self.lines)

  def end(self) -> None:
    """Ends a block that no fence has closed.

    Deeper fences come in pairs, unless the last of them was meant to close it.
    """
    if len(self.deeper) % 2 and not self.is_closed:
      del self.lines[self.deeper[-1] :]
      self.is_closed = True


def _chosen(completion: str, tests: Tests, goes_on: bool) -> str:
  completion = without_thoughts('', completion)
  wanted = _wanted(tests)
  blocks = _blocks(completion)
  lead = blocks[0]

  def rank(place: int, block: _Block) -> tuple[int, int, bool, int]:
    text = block.text
    if not text.strip():
      return 0, 0, False, place
    tag = 2 if _PYTHON.match(block.tag) else int(not block.tag)
    # Of another language, or only indented as output may be: less likely.
    fits = (2 if tag else 1) * bool(wanted.search(text))
    if goes_on and not fits and _margin(block.lines):
      fits = 2 if block is lead else 1
    if fits == 2 or block is lead:
      tag = 0
    return fits, tag, block is lead or block.is_closed, place

  best = max(rank(place, block) for place, block in enumerate(blocks))
  return blocks[best[-1]].text


def _wanted(tests: Tests) -> re.Pattern[str]:
  """Returns what a program has that these tests can judge."""
  if tests.kind == 'stdin':
    return _READS
  if not tests.entry_point:
    return re.compile(r'\b(?:def|class)\s')
  name = re.escape(tests.entry_point)
  return re.compile(
    rf'\b(?:def|class|as)\s+{name}\b|^[ \t]*{name}[ \t]*(?::[^=\n]*)?=(?!=)',
    re.MULTILINE,
  )


def _blocks(text: str) -> list[_Block]:
  r"""Returns what stands before all fences, then the blocks, in order.

  Text between blocks is left out. In 'A ```py\nx\n``` B ```\ny', 'A ' is
  first, and the others hold 'x' and 'y'; the last has no end.
  """
  blocks = [_Block()]
  outside = True  # Of all blocks.
  quotes = 0  # Of docstrings so far.
  for line in text.split('\n'):
    block, is_kept = blocks[-1], not outside or len(blocks) == 1
    in_docstring, quotes = quotes % 2, quotes + len(_QUOTES.findall(line))
    fences = list(_FENCE.finditer(line))
    if not fences:
      if is_kept:
        block.lines.append(line)
      continue
    fence = fences[-1]
    before, tag = line[: fence.start()], line[fence.end() :].strip()
    if outside:
      # An even number of fences is code inside a sentence.
      is_part = in_docstring and is_kept and line[:1].isspace()
      opens = len(fences) % 2 == 1 and '`' not in tag and not is_part
      closes = False
    else:
      # With a tag, a fence opens a block even inside another: that one was left
      # open, or is a text of which this is a part.
      is_deeper = not before.strip() and fence.start() > block.column
      alone = len(fences) == 1 and not is_deeper
      opens = alone and bool(tag) and not before.strip()
      closes = alone and not tag and len(fence.group()) >= block.length
      block.deeper += [len(block.lines)] * is_deeper
    if not opens and not closes:
      before = line
    if is_kept and (before.strip() or before == line):
      block.lines.append(before)
    if opens:
      block.end()
      blocks.append(_Block(tag, fence.start(), len(fence.group())))
    if closes:
      block.is_closed = True
    outside = closes or (outside and not opens)
  blocks[-1].end()
  return blocks


def _flush(text: str) -> str:
  """Returns a program without the indentation that all of it has."""
  lines = text.split('\n')
  margin = _margin(lines)
  if not margin or any(
    line.strip() and not line.startswith(margin) for line in lines
  ):
    return text
  return '\n'.join(line.removeprefix(margin) for line in lines)


def _margin(lines: list[str]) -> str:
  """Returns the indentation of the first line that is not blank."""
  first = next((line for line in lines if line.strip()), '')
  return first[: len(first) - len(first.lstrip())]
