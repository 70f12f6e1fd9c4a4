"""Training on the samples of another model's run (paper, figure 6 right).

Set the teacher by --config.changes.teacher.model.path; as it stands, the
student learns from what its own last model writes.
"""

from configs import ablations


def get_config(base: str = ablations.EMBEDDED):
  run = ablations.start(base)
  # What the last of the teacher's models draws.
  last = f'{{teacher}}/iteration_{run.em.iterations + 1}'
  source = {'iterations': 1, 'source': 'samples_of', 'samples_of': last}
  return ablations.compare(
    'distillation',
    'A student that trains on the samples of a teacher',
    run,
    {
      'teacher': {
        'model': {'path': run.model.path},
        'eval': {'on_train': True},
      },
      'distill_one': {'em': source, 'estep': {'cap': 1}},
      'distill_many': {'em': source},
      'rest_em': {},
      'human': {'em': {'iterations': 1, 'source': 'human'}},
    },
    axis='arm',
  )
