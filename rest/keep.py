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
    stop_at_cap: Whether a problem's samples end with the one that meets its
      cap. The dataset is the same; what was drawn, and its statistics, are not.
  """

  num_samples: int = 32
  cap: int = 10
  distinct: bool = True
  stop_at_cap: bool = False

  def __post_init__(self):
    if self.num_samples < 1:
      raise ValueError(
        f'estep.num_samples must be at least 1, got {self.num_samples}.'
      )
    if self.cap < 0:
      raise ValueError(f'estep.cap must be 0 or more, got {self.cap}.')
    if self.stop_at_cap and not self.cap:
      raise ValueError('estep.stop_at_cap needs a cap, but estep.cap is 0.')


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


def meets_cap(rows: Sequence[Graded], config: EStepConfig) -> bool:
  """Whether no further sample is to be drawn: none could enter the dataset."""
  return config.stop_at_cap and len(keep(rows, config)) == config.cap
