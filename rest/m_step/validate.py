"""What the M-step stops on: a score of the model as it is after some steps."""

from collections.abc import Callable

from rest.config import EMConfig, MStepConfig
from rest.e_step.draw import question_tokens
from rest.e_step.evaluate import accuracy
from rest.e_step.policy import Policy
from rest.m_step.examples import human_tokens, training_prefix
from rest.m_step.packing import Example
from rest.m_step.update import held_out_loss
from rest.model.transformer import Transformer


def validator(
  policy: Policy, em: EMConfig, mstep: MStepConfig, iteration: int
) -> Callable[[Transformer, int], float] | None:
  """Returns (model, steps done) -> score, higher is better.

  Args:
    policy: Draws, if the score is accuracy; is lent the model meanwhile.
    em: Says whether it is accuracy, or the loss of human solutions.
    mstep: How the loss is computed.
    iteration: For the title of the bar.

  Returns:
    None where there are no validation problems.
  """
  tools = policy.tools
  task, tokenizer = tools.task, tools.tokenizer
  problems = task.problems('validation')
  if not problems:
    return None
  if em.validation == 'loss':
    prefix = training_prefix(task, tokenizer, em.train_prompt)
    examples = [
      Example(
        tuple(question_tokens(task, tokenizer, problem)),
        human_tokens(task, tokenizer, problem),
        prefix=prefix,
      )
      for problem in problems
      if problem.solution is not None
    ]
    return lambda model, step: (
      -held_out_loss(model, examples, mstep, policy.mesh)
    )

  def validate(model: Transformer, step: int) -> float:
    policy.hold(None, model)
    score = accuracy(tools, problems, f'iteration {iteration}, step {step}')
    tools.sampler.release()  # Training goes on, and needs the memory.
    return score

  return validate
