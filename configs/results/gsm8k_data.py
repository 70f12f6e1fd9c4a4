r"""GSM8K from Qwen2.5-Coder-Instruct: what one iteration should train on.

The paper's figures 6 and 8: human or model solutions, to the same questions or
to all; one or many; of fewer questions; or those of a larger model.

  python -m rest.experiment \
      --config=configs/results/gsm8k_data.py:TEACHER/iteration_2/dataset.jsonl \
      --config.run.model.path=/models/Qwen2.5-Coder-0.5B-Instruct \
      --config.run.task.path=/data/gsm8k --config.run.verify.workers=12

TEACHER is the folder of the 1.5B's run in docs/experiments.md: of it, text is
enough. Without a larger model, leave out what is behind the colon and the two
arms: --config.arms="('rest_em','human_one_each',...)".

Hardware: one GPU of 80 GB; 16 CPU cores. Measured on one NVIDIA H200 that three
other runs shared, from a 4-bit copy made bfloat16 again, in 9 minutes: of
`rest_em`, seed 0, greedy test accuracy (1,319 problems) from 14.9 [13.0, 16.9]
to 21.5 [19.4, 23.8]. All other arms and seeds: not measured yet.
"""

from configs import ablations


def get_config(teacher: str = 'runs/gsm8k_1_5b/iteration_2/dataset.jsonl'):
  run = ablations.start('gsm8k')
  run.task.num_validation = 300
  run.em.iterations = 1
  run.estep.num_samples = 16
  run.estep.cap = 4
  run.mstep.epochs = 1
  run.eval.num_samples = 0
  run.eval.pass_k = ()
  same = {'solved_by': '{rest_em}/iteration_1'}
  human = {'source': 'human'}
  distilled = {'source': 'samples_of', 'samples_of': teacher}
  sampled = {'num_samples': 16, 'num_problems': 0, 'pass_k': (1, 4, 16)}
  return ablations.compare(
    'results_gsm8k_data',
    'GSM8K, Qwen2.5-Coder-Instruct',
    run,
    {
      'rest_em': {'eval': sampled},  # All problems, for their difficulty.
      'human_one_each': {'em': human, 'task': same},
      'model_one_each': {'estep': {'cap': 1}, 'task': same},
      'human_all': {'em': human},
      'distill_many': {'em': distilled},
      'distill_one': {'em': distilled, 'estep': {'cap': 1}},
      'problems_1000': {'task': {'num_train': 1000}},
      'problems_3000': {'task': {'num_train': 3000}},
      'all_kept': {'estep': {'cap': 0}},
    },
    axis='arm',
  )
