"""What the loop works with: its config, its parts, its policy."""

from dataclasses import dataclass

import jax
from etils import epath
from jax.sharding import Mesh

from rest.config import EMConfig, EStepConfig, EvaluateConfig, MStepConfig
from rest.e_step.draw import Tools
from rest.model.sharding import local_copy
from rest.model.transformer import Transformer
from rest.run.opened import load_model
from rest.tasks.suites import Suite


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
