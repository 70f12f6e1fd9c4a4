"""Training behind the few-shot prompt of sampling (paper), or without it.

The embedded set has no few-shot prompt: there both arms are the same.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  return ablations.compare(
    'train_prompt',
    'Prompt in training',
    run,
    {'same': {}, 'zero_shot': {'em': {'train_prompt': 'zero_shot'}}},
    transfers=True,
  )
