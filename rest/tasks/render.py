"""Renders chat templates: a program of its own, as a template is one, too.

A template comes with a model, from anywhere. It gets what `transformers` gives
it, in Jinja's sandbox, and little time and memory. From standard input comes
{'template': text, 'variables': {name: text}, 'chats': [[turns, whether an
answer is to follow], ...]}; out goes {'texts': [...]} or {'error': why}.
"""

import datetime
import json
import resource
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

SECONDS = 5  # Of CPU time.
_MEMORY = 1 << 30  # Bytes of address space.
_LONGEST = 1 << 20  # Characters of all texts.

# What templates are told of the day: prompts are the same whenever a run goes
# on. It is the one that Llama 3's template takes where there is no clock.
_TODAY = datetime.datetime(2024, 7, 26)


class _Generation(jinja2.ext.Extension):
  """{% generation %}: marks what an assistant wrote, and changes no text."""

  tags = {'generation'}  # noqa: RUF012  As Jinja declares it.

  def parse(self, parser: Any) -> jinja2.nodes.Node:
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


def _environment() -> jinja2.Environment:
  made = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, jinja2.ext.loopcontrols],
  )
  made.filters['tojson'] = _to_json
  made.globals['raise_exception'] = _refuse
  made.globals['strftime_now'] = _TODAY.strftime
  return made


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """Returns JSON; Jinja's own filter escapes it for HTML."""
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)


def _render(job: dict[str, Any]) -> list[str]:
  template = _environment().from_string(job['template'])
  texts: list[str] = []
  for messages, answers in job['chats']:
    text = template.render(
      messages=messages, add_generation_prompt=answers, **job['variables']
    )
    texts.append(text)
    if sum(map(len, texts)) > _LONGEST:
      raise ValueError(f'it writes more than {_LONGEST:,} characters')
  return texts


def main() -> None:
  """Renders what standard input asks for."""
  job = json.load(sys.stdin)
  resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
  resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
  try:
    answer = {'texts': _render(job)}
  except jinja2.TemplateSyntaxError as error:
    answer = {'error': f'line {error.lineno}: {error.message}'}
  except Exception as error:  # A template raises whatever Python can.
    answer = {'error': str(error).rstrip('.') or type(error).__name__}
  json.dump(answer, sys.stdout)


if __name__ == '__main__':
  main()
