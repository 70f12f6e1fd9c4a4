"""What the loop works with: its config, its parts, its policy."""

from dataclasses import dataclass

import jax
from etils import epath
from jax.sharding import Mesh

from rest.config import check
from rest.e_step.choose import EStepConfig
from rest.e_step.draw import Tools
from rest.e_step.evaluate import EvaluateConfig
from rest.model.sharding import local_copy
from rest.model.transformer import Transformer
from rest.recipe import MStepConfig
from rest.run.opened import load_model
from rest.tasks.suites import Suite


@dataclass(frozen=True, slots=True)
class EMConfig:
  """The outer loop.

  Attributes:
    iterations: Most iterations, I.
    stop_on_validation: Whether to stop once an iteration does not raise
      validation accuracy.
    source: 'model' trains on verified samples; 'human' on the problem set's own
      solutions (the SFT baseline: no E-step); 'samples_of' on samples that
      another run has drawn (distillation), of which this one keeps its choice.
    samples_of: Folder of the iteration of that run.
    problems_per_iteration: Training problems that an iteration asks, the next
      ones of a random order; 0 is all of them.
    start_from: Where each M-step starts: 'base', or the model before:
      'previous', with the state of its optimizer 'previous_state'.
    accumulate: Whether to train on the datasets of all iterations so far.
    include_human: Whether to train on human solutions too.
    problem_weight: 'count': each kept solution weighs the same; 'uniform': each
      solved problem does.
    train_prompt: 'same' as for sampling, or 'zero_shot': the question alone.
    validation: What the M-step stops on: 'accuracy' (greedy, on validation
      problems) or 'loss' (on their human solutions).
    export: Whether each iteration's model is also written as a Hugging Face
      directory.
  """

  iterations: int = 3
  stop_on_validation: bool = False
  source: str = 'model'
  samples_of: str = ''
  problems_per_iteration: int = 0
  start_from: str = 'base'
  accumulate: bool = False
  include_human: bool = False
  problem_weight: str = 'count'
  train_prompt: str = 'same'
  validation: str = 'accuracy'
  export: bool = False

  def __post_init__(self):
    check(
      'em',
      self,
      {'iterations': '[1, inf)', 'problems_per_iteration': '[0, inf)'},
      {
        'source': ('model', 'human', 'samples_of'),
        'start_from': ('base', 'previous', 'previous_state'),
        'problem_weight': ('count', 'uniform'),
        'train_prompt': ('same', 'zero_shot'),
        'validation': ('accuracy', 'loss'),
      },
    )
    if (self.source == 'samples_of') != bool(self.samples_of):
      raise ValueError(
        "em.samples_of must name a folder where em.source is 'samples_of', and "
        f'nowhere else; got {self.samples_of!r} and {self.source!r}.'
      )


@dataclass(frozen=True, slots=True)
class Run:
  """Everything that the loop works with.

  Attributes:
    workdir: Where all files go.
    tools: For drawing and judging.
    mesh: Where arrays live.
    base: Directory of the base model, in Hugging Face format.
    dtype: Of matrix products.
    seed: Of the M-step's order.
    max_unknown: Share of unknown verdicts above which the E-step fails.
    em: The outer loop.
    estep: What is drawn and kept.
    mstep: How it is trained on.
    eval: What is measured.
    suites: What it is measured on beside the task's own problems.
  """

  workdir: epath.Path
  tools: Tools
  mesh: Mesh
  base: str
  dtype: str
  seed: int
  max_unknown: float
  em: EMConfig
  estep: EStepConfig
  mstep: MStepConfig
  eval: EvaluateConfig
  suites: tuple[Suite, ...]


class Policy:
  """Knows whose weights the sampler holds, and loads others when asked."""

  def __init__(self, run: Run):
    self._run = run
    self._held: int | None = 0  # The sampler was made with the base model.

  def use(self, iteration: int) -> None:
    """Gives the sampler the weights of an iteration; 0 is the base model."""
    if self._held != iteration:
      self.hold(iteration, self.load(iteration))

  def hold(self, iteration: int | None, model: Transformer) -> None:
    """Gives the sampler weights; None are those of no finished iteration."""
    tools = self._run.tools
    model = local_copy(model, self._run.mesh)
    with jax.set_mesh(tools.mesh):
      tools.sampler.set_weights(model)
    self._held = iteration

  def release(self) -> None:
    """Takes the weights and all else that is large from the sampler."""
    if self._held is not None:
      self._run.tools.sampler.release()
      self._held = None

  def load(self, iteration: int) -> Transformer:
    """Reads the weights of an iteration onto the mesh, in float32."""
    run = self._run
    return load_model(run.workdir, iteration, run.base, run.dtype, run.mesh)
