"""pass@k and the majority vote, base and tuned (paper, figure 5)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  if base == ablations.EMBEDDED:
    run.eval.num_samples = 32
    run.eval.num_problems = 100
    run.eval.pass_k = (1, 2, 4, 8, 16, 32)
    run.eval.temperature = 1.0
    run.eval.top_k = 0
    run.eval.top_p = 0.95
  return ablations.compare(
    'pass_at_k',
    'pass@k before and after',
    run,
    {'rest_em': {}},
    axis='k',
  )
