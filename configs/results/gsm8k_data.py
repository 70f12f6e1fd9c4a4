r"""GSM8K from Qwen2.5-Coder-Instruct: what one iteration should train on.

The paper's figures 6 and 8: human or model solutions, to the same questions or
to all; one or many; of fewer questions; or those of a larger model.

  python -m rest.experiment \
      --config=configs/results/gsm8k_data.py:TEACHER/iteration_1/dataset.jsonl \
      --config.run.model.path=/models/Qwen2.5-Coder-0.5B-Instruct \
      --config.run.task.path=/data/gsm8k --config.run.verify.workers=12

TEACHER is the folder of the 1.5B's run (gsm8k_1_5b.py): of it, text is enough.
Without a larger model, leave out what is behind the colon and the two arms:
--config.arms="('rest_em','human_one_each',...)".

Hardware: one GPU of 80 GB; 16 CPU cores. Measured on one NVIDIA H200, from
4-bit copies made bfloat16 again, seed 0, in 11 minutes but for `all_kept`,
which was not run; greedy test accuracy, 1,319 problems, 95 % intervals: base
14.4 [12.6, 16.4], `rest_em` 21.2 [19.1, 23.5], `human_one_each` 23.8 [21.6,
26.2], `model_one_each` 21.0 [18.9, 23.3], `human_all` 28.5 [26.1, 31.0],
`distill_many` 40.4 [37.8, 43.1], `distill_one` 37.4 [34.8, 40.0],
`problems_1000` 17.7 [15.8, 19.9], `problems_3000` 18.3 [16.3, 20.4]; seed 1,
`human_all` 29.9 [27.5, 32.5]. docs/experiments.md tells the rest.
"""

from configs import ablations, results

_TEACHER = 'results_gsm8k_1_5b/rest_em/seed_0/iteration_1/dataset.jsonl'


def get_config(teacher: str = _TEACHER):
  run = results.start()
  run.em.iterations = 1
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
