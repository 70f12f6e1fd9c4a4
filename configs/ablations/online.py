"""Shorter turns of E- and M-step, down to nearly online (IML, Online RFT).

All arms draw as many samples; the shorter ones go on from the model before,
with the state of its optimizer.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  whole = run.task.num_train or 7000

  def turns(count: int):
    return {
      'em': {
        'start_from': 'previous_state',
        'problems_per_iteration': whole // count,
        'iterations': run.em.iterations * count,
      },
      'mstep': {'schedule': 'constant', 'stop': 'fixed_steps'},
    }

  return ablations.compare(
    'online',
    'Length of an iteration',
    run,
    {'rest_em': {}, 'half': turns(2), 'eighth': turns(8)},
    axis='arm',
  )
