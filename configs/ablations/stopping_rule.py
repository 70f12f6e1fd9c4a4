"""When the M-step stops, and which model it takes."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.em.iterations = 1
  run.mstep.epochs *= 3
  run.mstep.eval_every = 10 if base == ablations.EMBEDDED else 100
  return ablations.compare(
    'stopping_rule',
    'Which step of the M-step is taken',
    run,
    {
      'best': {},
      'first_drop': {'mstep': {'stop': 'first_drop'}},
      'fixed_steps': {'mstep': {'stop': 'fixed_steps'}},
    },
    axis='arm',
  )
