r"""GSM8K from Qwen2.5-Coder-1.5B-Instruct; what it loses on BIG-Bench Hard.

The paper's figure 9. What its E-step keeps is what gsm8k_data.py distils.

  python -m rest.experiment --config=configs/results/gsm8k_1_5b.py \
      --config.run.model.path=/models/Qwen2.5-Coder-1.5B-Instruct \
      --config.run.task.path=/data/gsm8k \
      --config.run.eval.suite_folder=/data --config.run.verify.workers=12 \
      --config.seeds="(0,)"

Hardware: one GPU of 141 GB (the longest prompts have 2,443 tokens); 16 CPU
cores. Measured on one NVIDIA H200, from a 4-bit copy made bfloat16 again, in 7
minutes, by one run of `rest.main` with these fields; greedy test accuracy, 95 %
intervals: GSM8K (1,319 problems) from 49.6 [46.9, 52.3] to 56.9 [54.2, 59.5];
of BIG-Bench Hard, 1,241 questions with options, with reasoning from 39.9 [37.2,
42.6] to 36.5 [33.9, 39.2], direct from 29.6 [27.1, 32.2] to 31.4 [28.9, 34.1].
Its other questions were judged by a version that misread them, and direct
options probably too: the base has 34.4 on 831 of them by the version since.
"""

from configs import ablations, results


def get_config():
  run = results.start()
  run.em.iterations = 1
  run.sampling.max_prompt_tokens = 3072
  run.eval.num_samples = 0
  run.eval.pass_k = ()
  run.eval.suites = ('bbh:cot', 'bbh:direct')
  run.eval.suite_problems = 2000  # Of 6,511.
  return ablations.compare(
    'results_gsm8k_1_5b',
    'GSM8K, Qwen2.5-Coder-1.5B-Instruct',
    run,
    {'rest_em': {}},
    scores=('test', 'suites/bbh-cot', 'suites/bbh-direct'),
  )
