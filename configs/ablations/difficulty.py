"""Success by difficulty, before and after (paper, figure 8 right).

Problems are sorted by half of the base's samples and measured on the others.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.eval.num_samples = 16 if base == ablations.EMBEDDED else 64
  run.eval.num_problems = 0
  run.eval.temperature = 1.0
  run.eval.top_p = 1.0
  run.eval.top_k = 0
  return ablations.compare(
    'difficulty',
    "Success by the base model's success",
    run,
    {'rest_em': {}},
    axis='difficulty',
  )
