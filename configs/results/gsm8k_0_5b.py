r"""GSM8K from Qwen2.5-Coder-0.5B-Instruct: what ReST-EM and its parts bring.

  python -m rest.experiment --config=configs/results/gsm8k_0_5b.py \
      --config.run.model.path=/models/Qwen2.5-Coder-0.5B-Instruct \
      --config.run.task.path=/data/gsm8k \
      --config.run.eval.suite_folder=/data --workdir=runs/gsm8k_0_5b
"""

from configs import ablations


def get_config():
  run = ablations.start('gsm8k')
  run.task.num_validation = 300
  run.sampling.max_prompt_tokens = 1536  # Those of MATH-500 are longer.
  run.em.iterations = 3
  run.estep.num_samples = 16
  run.estep.cap = 4
  run.mstep.epochs = 1
  run.eval.num_samples = 16
  run.eval.num_problems = 300
  run.eval.pass_k = (1, 4, 16)
  once = {'iterations': 1}
  human = {'iterations': 1, 'source': 'human'}
  same = {'solved_by': '{rest_em}/iteration_1'}
  return ablations.compare(
    'gsm8k_0_5b',
    'GSM8K, Qwen2.5-Coder-0.5B-Instruct',
    run,
    {
      'one_big': {'em': once, 'estep': {'num_samples': 48}},
      'rest_em': {},
      'continue': {'em': {'start_from': 'previous'}},
      'model_one_each': {'em': once, 'estep': {'cap': 1}, 'task': same},
      'human_one_each': {'em': human, 'task': same},
      'human_all': {'em': human},
      'all_kept': {'em': once, 'estep': {'cap': 0}},
      'problems_3000': {'em': once, 'task': {'num_train': 3000}},
      'problems_1000': {'em': once, 'task': {'num_train': 1000}},
    },
    scores=('test', 'pass@16'),
    transfers=True,
  )
