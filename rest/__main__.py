"""Lists the commands of this package: python -m rest."""

COMMANDS = {
  'rest.main': 'run ReST-EM, or go on with a run',
  'rest.config': 'list every field of a run, with meaning and default',
  'rest.experiment': 'run the arms and seeds of an experiment, and compare',
  'rest.report': 'write the report of runs: figures and every sample',
  'rest.tasks': 'prepare problem sets, look for leaks, write sheets to grade',
  'rest.verify': 'judge completions, or judge a run again',
  'rest.use.sample': 'ask a model, or that of a run',
  'rest.use.export': 'write the model of a run as others read it',
  'rest.use.pretrain': 'make the embedded base model',
}

if __name__ == '__main__':
  for name, what in COMMANDS.items():
    print(f'python -m {name:18} {what}')
  print('Each tells more with --help.')
