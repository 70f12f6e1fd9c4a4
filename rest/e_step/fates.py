"""What became of each sample: kept, or why not."""

from collections.abc import Callable, Sequence

from rest.types import Graded

KEPT = 'kept'
OVER_CAP = 'over the cap'
OUTVOTED = 'outvoted'  # Right, but another answer was the commonest.
DUPLICATE = 'duplicate'
UNFINISHED = 'cut off'
INCORRECT = 'incorrect'
UNKNOWN = 'unknown'


def fates(
  rows: Sequence[Graded],
  kept: set[int],
  cap: int,
  same: Callable[[str], object] | None,
) -> list[str]:
  """Returns the fate of each sample of a problem.

  Args:
    rows: All samples of the problem, in order of sample.
    kept: Which of them (`Graded.sample`) are in the dataset.
    cap: Most that may be kept of a problem; 0 is all.
    same: What two texts have in common that count once; None where all count.
  """
  seen: set[object] = set()
  found = []
  # Only a vote takes wrong samples and leaves every right one.
  won = any(r.sample in kept and r.verdict.reward == 1.0 for r in rows)
  for row in rows:
    text = row.completion.text.strip()
    common = same(text) if same else None
    counts_once = common is not None and common in seen
    repeats = counts_once or not 0 < cap <= len(kept)
    fate = _fate(row, kept, won, repeats)
    if fate in (KEPT, OVER_CAP):
      seen.add(common)
    found.append(fate)
  return found


def _fate(row: Graded, kept: set[int], won: bool, repeats: bool) -> str:
  if row.sample in kept:
    return KEPT
  if row.verdict.reward is None:
    return UNKNOWN
  if row.verdict.reward != 1.0:
    return INCORRECT
  if not row.completion.finished:
    return UNFINISHED
  if not won:
    return OUTVOTED
  return DUPLICATE if repeats else OVER_CAP
