"""The model card of an exported model: how it was made, from its run's files.

States what the files say and nothing else, so that the same run gives the same
card; no date, and no path of the machine it ran on.
"""

import re
from pathlib import PurePath
from typing import Any

from etils import epath

from rest.run import store, tables
from rest.run.scores import Row, chosen, gain, percent, points, read_row

PAPER = '[Beyond Human Data](https://arxiv.org/abs/2312.06585), Singh et al.'

_HEADER = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- rest-em
- self-training
---
"""

# Says how a machine was used, or where files lay, and not what came of it.
_LOCAL = ('compilation_cache', 'mesh.', 'verify.', 'model.path', 'task.path')


def model_card(record: dict[str, Any], folders: list[epath.Path]) -> str:
  """Returns README.md, as Markdown.

  Args:
    record: The run's, as `store.read_record` gives it.
    folders: Of the iterations from 0, the base model, to the one exported.
  """
  config = record['config']
  base, iteration = _base_name(record), f'iteration {len(folders) - 1}'
  rows = [read_row(folder, index) for index, folder in enumerate(folders)]
  source = (
    'solutions that it wrote itself and a verifier found right'
    if config['em.source'] == 'model'
    else "the problem set's own solutions"
  )
  blocks = [
    f'{_HEADER}\n# {base} after ReST-EM on {config["task.name"]}, {iteration}',
    f'`{base}`, fine-tuned on {source}: ReST-EM ({PAPER}), {iteration} of a '
    f'run of `rest {record["versions"]["rest"]}`.',
    *_how(record, rows[1:]),
    *_scores(record, rows),
    *_use(record, folders[-1]),
    *_details(record),
  ]
  return '\n\n'.join(blocks) + '\n'


def _base_name(record: dict[str, Any]) -> str:
  """Returns what the base model is called: its folder's name."""
  return PurePath(record['config']['model.path']).name


def _how(record: dict[str, Any], trained: list[Row]) -> list[str]:
  config = record['config']
  facts = [
    f'- Base model: `{_base_name(record)}`, digest `{record["base"]}`. Its '
    'license and limits go on to this one.',
    f'- Problem set: `{config["task.name"]}` (prompt `{config["task.prompt"]}`,'
    f' sha256 `{record["data"]}`), {len(record["leaks"])} problems dropped as '
    'leaks.',
  ]
  if config['em.source'] == 'model':
    facts.append(_sampling(config))
  facts.append(_training(config))
  made = tables.as_markdown([_made(row) for row in trained])
  return ['## How it was made', '\n'.join(facts), made]


def _sampling(config: dict[str, Any]) -> str:
  cap = config['estep.cap']
  distinct = {
    'text': ', distinct',
    'equations': ', with distinct equations',
    'off': '',
  }[config['estep.distinct']]
  return (
    f'- E-step: {config["estep.num_samples"]} samples of each training problem '
    f'at {_decoding(config, "estep")}, at most '
    f'{config["sampling.max_tokens"]} tokens. Kept: correct and finished ones'
    + distinct
    + (f', at most {cap} a problem.' if cap else '.')
  )


def _training(config: dict[str, Any]) -> str:
  rank, epochs = config['mstep.lora_rank'], config['mstep.epochs']
  what = (
    f'adapters of rank {rank} (alpha {config["mstep.lora_alpha"]}), merged '
    'into the weights'
    if rank
    else 'all weights'
  )
  return (
    f'- M-step: from the {config["em.start_from"]} model each time, {what}; '
    f'{config["mstep.optimizer"]}, peak learning rate '
    f'{config["mstep.learning_rate"]}, {config["mstep.schedule"]} schedule, '
    f'{epochs} epoch{"" if epochs == 1 else "s"} of {config["mstep.batch"]} '
    'solutions a step, '
    f'loss on solutions only; stop rule `{config["mstep.stop"]}`.'
  )


def _decoding(config: dict[str, Any], section: str) -> str:
  names = ('temperature', 'top_k', 'top_p')
  return ', '.join(f'{name} {config[f"{section}.{name}"]}' for name in names)


def _made(row: Row) -> dict[str, str]:
  """Returns what an iteration drew, kept and trained on."""
  drawn, trained = row.e_step, row.m_step
  cells = {'iteration': str(row.iteration)} | {
    name: f'{drawn[name]:,}' if drawn else '-'
    for name in ('problems', 'sampled', 'correct', 'kept', 'solved')
  }
  return cells | {
    'trained on': f'{trained["examples"]:,}',
    'step chosen': f'{trained["chosen"]} of {trained["steps"]}',
    'loss': f'{trained["loss"]:.4f}',
  }


def _scores(record: dict[str, Any], rows: list[Row]) -> list[str]:
  config, base, last = record['config'], rows[0], rows[-1]
  measured = [
    {'problems': split, 'model': name, **_cells(scores)}
    for split, name, scores in (
      ('validation', 'base', base.validation),
      ('validation', 'this model', last.validation),
      ('test', 'base', base.test),
      ('test', 'this model', last.test),
    )
    if scores
  ]
  if not measured:
    return ['## Scores', 'None were measured.']
  notes = (
    'Intervals are Wilson score intervals over problems. Validation problems '
    'are what training may have stopped on; test problems decided nothing.'
  )
  if config['eval.num_samples']:
    notes += (
      f' pass@k and maj@k: from {config["eval.num_samples"]} samples a problem '
      f'at {_decoding(config, "eval")}.'
    )
  if found := gain(base, last):
    value, low, high = points(found)
    notes = (
      f'Test pass@1 against the base: {value} points (95 % paired bootstrap '
      f'interval {low} to {high}). {notes}'
    )
  if last.validation:
    best = chosen(rows, record)
    name = f'iteration {best.iteration}' if best.iteration else 'the base'
    notes += (
      ' Of the iterations up to this one, validation chooses '
      f'{"this one" if best is last else name}.'
    )
  return ['## Scores', tables.as_markdown(measured), notes]


def _cells(scores: dict[str, Any]) -> dict[str, str]:
  cells = {
    'n': f'{scores["problems"]:,}',
    'pass@1, greedy [95 %]': (
      f'{percent(scores["pass_1"])} '
      f'[{percent(scores["low"])}, {percent(scores["high"])}]'
    ),
  }
  for k, share in scores['pass_at_k'].items():
    cells[f'pass@{k}, sampled'] = percent(share)
  if scores['maj_at_k'] is not None:
    cells['maj@k'] = percent(scores['maj_at_k'])
  return cells


def _use(record: dict[str, Any], folder: epath.Path) -> list[str]:
  """Returns how to ask, with a prompt of the run and what was answered."""
  prefix = record['prefix']
  code = ['from transformers import AutoModelForCausalLM, AutoTokenizer', '']
  code += [f'prefix = {_literal(prefix)}'] if prefix else []
  parts = store.Parts(folder / 'test' / 'greedy')
  first = parts.read(0)[0] if 0 in parts.done() else None
  code += [
    f'question = {_literal(first.prompt) if first else "..."}',
    "tokenizer = AutoTokenizer.from_pretrained('.')",
    "model = AutoModelForCausalLM.from_pretrained('.')",
    f'inputs = tokenizer({"prefix + " if prefix else ""}question, '
    "return_tensors='pt')['input_ids']",
    'answer = model.generate(inputs)[0, inputs.shape[1]:]',
    'print(tokenizer.decode(answer, skip_special_tokens=True))',
  ]
  blocks = [
    '## Use',
    'The answer follows the question directly. `generation_config.json` asks '
    'for greedy decoding, as in the scores.',
    _fenced('python', '\n'.join(code)),
  ]
  if first:
    verdict = {1.0: 'correct', 0.0: 'incorrect', None: 'no verdict'}
    blocks += [
      f'This is the first test problem, `{first.problem_id}`. The answer '
      f'({verdict[first.verdict.reward]}):',
      _fenced('text', first.completion.text),
    ]
  return blocks


def _details(record: dict[str, Any]) -> list[str]:
  fields = '\n'.join(
    f'{name} = {value!r}'
    for name, value in sorted(record['config'].items())
    if not name.startswith(_LOCAL)
  )
  versions = ', '.join(f'{k} {v}' for k, v in record['versions'].items())
  return [
    '## Details',
    f'Ran on {record["device"]}. {versions}.',
    'Every field that bears on the result (`rest/config.py` says what they '
    'mean):',
    _fenced('text', fields),
  ]


def _literal(text: str) -> str:
  """Returns Python for a text, a line of it a line."""
  lines = text.splitlines(keepends=True)
  if len(lines) == 1:
    return repr(text)
  return '\n  '.join(['(', *map(repr, lines)]) + '\n)'


def _fenced(language: str, text: str) -> str:
  """Returns text as it is, in a fence that nothing in it can close."""
  ticks = [len(run) for run in re.findall('`+', text)]
  fence = '`' * max(3, 1 + max(ticks, default=0))
  return '\n'.join([fence + language, text.rstrip('\n'), fence])
