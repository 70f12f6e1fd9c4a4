"""RFT: the base trained once on samples of an SFT model, distinct by equations.

Human solutions stay in the data; all that is distinct is kept.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.estep.num_samples = 16 if base == ablations.EMBEDDED else 100
  source = {
    'iterations': 1,
    'source': 'samples_of',
    'samples_of': '{sft}/iteration_2',
    'include_human': True,
  }
  return ablations.compare(
    'rft',
    'Rejection sampling from an SFT model',
    run,
    {
      'sft': {
        'em': {'iterations': 1, 'source': 'human'},
        'eval': {'on_train': True},
      },
      'rft': {'em': source, 'estep': {'cap': 0, 'distinct': 'equations'}},
      'rft_texts': {'em': source, 'estep': {'cap': 0}},
      'rest_em': {},
    },
    axis='arm',
  )
