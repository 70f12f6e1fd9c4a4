"""The numbers of the M-step, checked where they enter."""

from dataclasses import dataclass
from typing import Literal

from rest.config import check


@dataclass(frozen=True, slots=True)
class MStepConfig:
  """How a model is fine-tuned. The paper publishes none of these numbers.

  Attributes:
    optimizer: 'adamw', or 'adafactor' (its state is a fraction of the model).
    learning_rate: At the peak of the schedule.
    schedule: What follows the warm-up: 'cosine', 'linear' or 'constant'.
    warmup: Share of all steps over which the rate rises from 0 (RFT: 0.03).
    final_rate: Share of the peak that 'cosine' and 'linear' end at.
    weight_decay: Of matrices, times the learning rate; norms and biases are
      never decayed.
    beta1: Decay of AdamW's first moment, per step.
    beta2: Decay of its second moment, per step.
    epsilon: Added to the root of the second moment.
    clip: Largest global norm of the gradient; 0 is no limit.
    row_length: Tokens in a packed row; the longest sequence must fit.
    rows: Packed rows in a step, over all devices.
    accumulate: Parts that a step's rows are worked on in, one after another,
      to save memory; the result is that of one part.
    epochs: Times that each example is seen.
    max_steps: Steps after which training ends at the latest; 0 is no limit.
    stop: Which model is returned: 'best' trains to the end and takes the one
      with the highest validation score; 'first_drop' (paper, Algorithm 1) stops
      at the first validation that is not above the one before, and takes that
      one; 'fixed_steps' takes the last. The untrained model is no candidate.
    eval_every: Steps between validations, besides the one at the end; 0 is
      only that one.
    save_every: Steps between checkpoints, besides those at validations; 0 is
      only those.
    remat: What the forward pass keeps for the backward pass: 'none' makes
      nothing again (fastest on CPUs), 'matmuls' keeps the outputs of matrix
      products, 'full' only the inputs of layers.
    lora_rank: Rank of adapters, trained instead of the weights; 0 is all
      weights.
    lora_alpha: Adapters are scaled by alpha / rank.
  """

  optimizer: Literal['adamw', 'adafactor'] = 'adamw'
  learning_rate: float = 1e-5
  schedule: Literal['cosine', 'linear', 'constant'] = 'cosine'
  warmup: float = 0.03
  final_rate: float = 0.0
  weight_decay: float = 0.0
  beta1: float = 0.9
  beta2: float = 0.95
  epsilon: float = 1e-8
  clip: float = 1.0
  row_length: int = 2048
  rows: int = 16
  accumulate: int = 1
  epochs: int = 2
  max_steps: int = 0
  stop: Literal['best', 'first_drop', 'fixed_steps'] = 'best'
  eval_every: int = 0
  save_every: int = 0
  remat: Literal['none', 'matmuls', 'full'] = 'matmuls'
  lora_rank: int = 0
  lora_alpha: float = 16.0

  @property
  def lora_scale(self) -> float:
    """What the adapters' product is multiplied with."""
    return self.lora_alpha / self.lora_rank

  def __post_init__(self):
    check('mstep', self, _RANGES, _CHOICES)
    if self.rows % self.accumulate:
      raise ValueError(
        f'mstep.accumulate must divide mstep.rows; got {self.accumulate} and '
        f'{self.rows}.'
      )


_RANGES = {
  'learning_rate': '[0, inf)',
  'warmup': '[0, 1]',
  'final_rate': '[0, 1]',
  'weight_decay': '[0, inf)',
  'beta1': '[0, 1)',
  'beta2': '[0, 1)',
  'epsilon': '(0, 1]',
  'clip': '[0, inf)',
  'row_length': '[1, inf)',
  'rows': '[1, inf)',
  'accumulate': '[1, inf)',
  'epochs': '[1, inf)',
  'max_steps': '[0, inf)',
  'eval_every': '[0, inf)',
  'save_every': '[0, inf)',
  'lora_rank': '[0, inf)',
  'lora_alpha': '(0, inf)',
}
_CHOICES = {
  'optimizer': ('adamw', 'adafactor'),
  'schedule': ('cosine', 'linear', 'constant'),
  'stop': ('best', 'first_drop', 'fixed_steps'),
  'remat': ('none', 'matmuls', 'full'),
}
