"""Calls of a program, and what is right of their results.

Most tests of HumanEval, MBPP and their successors say no more than `f(x) == y`
(`reader` reads them so). Then arguments go to the program, its results come
back as data and are compared here: no test runs, and what is expected never
meets the program's process.

Stops: whatever reads, patches or guesses what tests expect, and every object
with comparisons of its own. Does not stop: answers that are right for the cases
alone, where tests are few.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from rest.verify.program import compare


@dataclass(frozen=True, slots=True)
class Case:
  """One call, and what is right of its result.

  Attributes:
    function: The name that is called.
    arguments: Its arguments.
    named: Its named arguments.
    views: Builtin functions that the result goes through in the program's
      process, such as `sorted`, each with its other arguments.
    check: 'equal', 'differs', 'is', 'true', 'false'; 'near' (their distance is
      at most the tolerance), 'close' (as in NumPy), 'isclose' (as in `math`),
      or 'found' (it is there, where that is wanted).
    wanted: What the result is compared with.
    tolerance: Relative and absolute.
  """

  function: str
  arguments: list[Any]
  named: dict[str, Any] = field(default_factory=dict)
  views: tuple[tuple[str, list[Any]], ...] = ()
  check: str = 'true'
  wanted: Any = None
  tolerance: tuple[float, float] = (0.0, 0.0)

  def holds(self, tree: Any) -> bool:
    """Whether an encoded result is right.

    Invariant: what is wanted leads, and only exact types of plain data count;
    what is no data is right for no check, 'differs' and 'false' among them.
    Example: for `assert f(3) != [1]`, check 'differs', the tree [2] holds,
    [1] does not, and neither does {'no data': 'Evil'}.
    """
    match self.check:
      case 'equal':
        return compare.equal(tree, self.wanted)
      case 'differs':
        known = compare.truth(tree) is not None
        return known and not compare.equal(tree, self.wanted)
      case 'is':
        return type(tree) is type(self.wanted) and tree == self.wanted
      case 'true' | 'false':
        return compare.truth(tree) is (self.check == 'true')
      case 'found' if type(tree) is not bool:
        return (tree is not None) == self.wanted
      case 'found':
        return tree == self.wanted
      case 'close':
        return compare.equal(tree, self.wanted) or compare.close(
          tree, self.wanted, *self.tolerance
        )
    found = compare.number(tree)
    if found is None:
      return False
    relative, absolute = self.tolerance
    try:
      if self.check == 'near':
        return abs(found - self.wanted) <= absolute
      return math.isclose(
        found, self.wanted, rel_tol=relative, abs_tol=absolute
      )
    except OverflowError:
      return False
