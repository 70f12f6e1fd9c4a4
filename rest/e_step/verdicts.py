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
  ) -> bool:
    """Takes a sample; returns whether it was the last one to be drawn."""
    self.waiting[sample] = completion, verdict
    return len(self.judged) + len(self.waiting) == self.count

  def settle(self, wait: bool = False) -> bool:
    """Judges further samples; returns whether all that are wanted are judged.

    It goes by sample, so that what ends up in `judged` does not depend on which
    verdicts came first.

    Args:
      wait: For verdicts that are still out; all samples must be drawn.
    """
    while len(self.judged) < self.count:
      sample = len(self.judged)
      if sample not in self.waiting:
        return False
      completion, verdict = self.waiting[sample]
      if not (wait or verdict.done()):
        return False
      del self.waiting[sample]
      self.judged.append(
        Graded(
          self.problem.id, sample, self.prompt, completion, verdict.result()
        )
      )
      if self.is_enough(self.judged):
        for _, needless in self.waiting.values():
          needless.cancel()
        return True
    return True
