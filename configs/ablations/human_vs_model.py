"""Human against model solutions to the same questions (paper, figure 6 left).

The same questions are those that the first E-step solves; of the model's
solutions to them, one each is taken.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'human_vs_model',
    'Human and model solutions to the same questions',
    run,
    {
      'rest_em': {},
      'model_one_each': {
        'em': {'iterations': 1},
        'estep': {'cap': 1},
        'task': {'solved_by': '{rest_em}/iteration_1'},
      },
      'human_one_each': {
        'em': {'iterations': 1, 'source': 'human'},
        'task': {'solved_by': '{rest_em}/iteration_1'},
      },
      'human_all': {'em': {'iterations': 1, 'source': 'human'}},
    },
    axis='arm',
    transfers=True,
  )
