"""What of an E-step's samples is kept to train on."""

from collections.abc import Sequence
from dataclasses import dataclass

from rest.types import Graded


@dataclass(frozen=True, slots=True)
class EStepConfig:
  """What is drawn and what of it is kept.

  Attributes:
    num_samples: Samples of each problem, N.
    cap: Most correct solutions kept of a problem; 0 keeps all.
    distinct: Whether equal texts count once.
  """

  num_samples: int = 32
  cap: int = 10
  distinct: bool = True

  def __post_init__(self):
    if self.num_samples < 1:
      raise ValueError(
        f'estep.num_samples must be at least 1, got {self.num_samples}.'
      )
    if self.cap < 0:
      raise ValueError(f'estep.cap must be 0 or more, got {self.cap}.')


def keep(rows: Sequence[Graded], config: EStepConfig) -> list[Graded]:
  """Returns the distinct, finished, correct samples worth training on.

  They are chosen by sample index, never by order of completion, so that the
  dataset does not depend on which samples were quick.
  """
  kept: list[Graded] = []
  seen: set[str] = set()
  for row in sorted(rows, key=lambda row: row.sample):
    text = row.completion.text.strip()
    if row.verdict.reward != 1.0 or not row.completion.finished:
      continue
    if config.distinct and text in seen:
      continue
    seen.add(text)
    kept.append(row)
    if len(kept) == config.cap:
      break
  return kept
