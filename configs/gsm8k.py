r"""ReST-EM on GSM8K with a Qwen2.5-1.5B checkpoint.

  python -m rest.main --config=configs/gsm8k.py --workdir=runs/gsm8k \
      --config.model.path=/models/Qwen2.5-1.5B --config.task.path=/data/gsm8k

Data: train.jsonl and test.jsonl of github.com/openai/grade-school-math.
Hardware: one GPU of 80 GB or a TPU host. An iteration draws 229,536 samples.
The paper uses GSM8K only to test transfer from MATH; its settings for MATH are
taken. Expected: others report 69.5 to 75.1 % from Qwen2.5-3B with this method.
Measured (docs/experiments.md, configs/results/gsm8k.py): with N = 16, a cap of
4 and one epoch, from 4-bit copies of Qwen2.5-Coder-Instruct: of 0.5B 14.5,
19.8, 24.4 and 27.8 % after 0 to 3 iterations, of 1.5B 49.7, 59.3 and 58.2 %
after 0 to 2, in 14 minutes of one H200. The whole N has not been run.
"""

from configs import base


def get_config():
  c = base.get_config()
  c.name = 'gsm8k'

  c.task.name = 'gsm8k'
  c.task.prompt = 'few_shot'  # Eight examples that reason.

  # The examples take about 700 tokens, the longest question about 250, the
  # longest human solution about 400.
  c.sampling.max_prompt_tokens = 1280
  c.sampling.max_tokens = 512

  c.eval.num_samples = 64
  c.eval.num_problems = 500
  c.eval.pass_k = (1, 4, 16, 64)
  return c
