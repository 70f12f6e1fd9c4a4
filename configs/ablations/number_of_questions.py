"""How many training problems there are, nested (paper, figure 8 left)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.em.iterations = 1
  sizes = (100, 50, 25, 12)
  if base != ablations.EMBEDDED:
    sizes = (7000, 4000, 2000, 1000)
    run.task.num_validation = 300
  return ablations.compare(
    'number_of_questions',
    'Number of training problems',
    run,
    {f'problems_{n}': {'task': {'num_train': n}} for n in sizes},
    axis='arm',
    transfers=True,
  )
