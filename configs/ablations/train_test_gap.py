"""Accuracy on training problems, sampled, and on test (paper, figure 4)."""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  run.eval.on_train = True
  return ablations.compare(
    'train_test_gap',
    'Training problems (sampled) and test problems (greedy)',
    run,
    {'rest_em': {}},
    scores=('train', 'test'),
  )
