"""The samples of a problem on their way to verdicts, in order of sample."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rest.types import Completion, Graded, Problem, Verdict


@dataclass(slots=True)
class Answers:
  """What was drawn of a problem, and what of it is judged.

  Attributes:
    problem: The problem.
    prompt: As it was asked.
    count: Samples asked.
    is_enough: Whether further samples are not wanted.
    judged: The first samples, in order.
    waiting: Later ones: their verdict, or one before it, is still out.
  """

  problem: Problem
  prompt: str
  count: int
  is_enough: Callable[[Sequence[Graded]], bool]
  judged: list[Graded] = field(default_factory=list)
  waiting: dict[int, tuple[Completion, Future[Verdict]]] = field(
    default_factory=dict
  )

  def add(
    self, sample: int, completion: Completion, verdict: Future[Verdict]
  ) -> None:
    """Takes a sample, in any order."""
    self.waiting[sample] = completion, verdict

  def settle(self) -> bool:
    """Judges further samples; returns whether all that are wanted are judged.

    It goes by sample, so that what ends up in `judged` does not depend on which
    verdicts came first.
    """
    while len(self.judged) < self.count:
      sample = len(self.judged)
      if sample not in self.waiting:
        return False
      completion, verdict = self.waiting[sample]
      if not verdict.done():
        return False
      del self.waiting[sample]
      self.judged.append(
        Graded(
          self.problem.id, sample, self.prompt, completion, verdict.result()
        )
      )
      if self.is_enough(self.judged):
        self.cancel()
        return True
    return True

  def cancel(self) -> None:
    """Wants no verdict that is still out."""
    for _, needless in self.waiting.values():
      needless.cancel()
