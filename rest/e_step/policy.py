"""The policy: whose weights the sampler holds."""

from collections.abc import Callable

from jax.sharding import Mesh

from rest.e_step.draw import Tools
from rest.model.transformer import Transformer


class Policy:
  """Knows whose weights the sampler holds, and loads others when asked."""

  def __init__(
    self, tools: Tools, mesh: Mesh, load: Callable[[int], Transformer]
  ):
    """Starts with a sampler that holds no weights.

    Args:
      tools: Among them the sampler, which holds one model at a time.
      mesh: The trainer's: devices of all processes.
      load: Reads the weights of an iteration onto that mesh, in float32.
    """
    self.tools, self.load = tools, load
    self.mesh = mesh
    self._held: int | None = None

  def use(self, iteration: int) -> None:
    """Gives the sampler the weights of an iteration; 0 is the base model."""
    if self._held != iteration:
      self.hold(iteration, self.load(iteration))

  def hold(self, iteration: int | None, model: Transformer) -> None:
    """Gives the sampler weights; None are those of no finished iteration."""
    self.tools.sampler.set_weights(model, self.mesh)
    self._held = iteration

  def release(self) -> None:
    """Takes the weights and all else that is large from the sampler."""
    if self._held is not None:
      self.tools.sampler.release()
      self._held = None
