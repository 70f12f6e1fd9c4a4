r"""Finds the answer that a solution finally claims.

Claims are marked as the problem sets mark them: `\boxed{7}` (MATH), `#### 7`
(GSM8K), 'The final answer is 7.' (Minerva). The last claim counts, of whatever
kind. There is no search for 'the last number': an unmarked text makes no claim.
All scans are linear, whatever the text.
"""

import re

from rest.verify import math_clean, math_parse, math_units
from rest.verify.math_lex import Unreadable

_SCANNED = 20_000  # Characters at the end of a text in which claims are sought.
_CLAIMS = 16  # Phrases that are looked at, from the end.
_SENTENCE = 600  # Characters of a claim in words.
_BARE = 300  # Characters of an answer that stands alone, without a mark.

_BOX = re.compile(r'\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*')
_BOXED_TOKEN = re.compile(r'[^\s$]+')
_HASHES = re.compile(r'(?<!#)####(?!#)[ \t]*([^\n]*)')
_PHRASE = re.compile(
  r'\b(?:final |correct )?answers?\b'
  r"(?:[\w ,'*]{0,50}?\b(?:is|are|be|equals)\b|[*_ \t]{0,8}[:=])"
  r'(?:[ \t]*(?:simply|then|thus|therefore|exactly|equal to)\b)?[*_:\s]{0,16}',
  re.IGNORECASE,
)
# What may follow 'answer is' where no answer is given at all ...
_REMARK = re.compile(
  r'(?:correct|right|wrong|incorrect|in|the same|that|given|found|clear|clearly'
  r'|obvious|unclear|verified|as follows|reasonable|consistent|what|also'
  r'|already|expected|supposed|needed)\b',
  re.IGNORECASE,
)
# ... and where what is given is not the answer.
_NO_CLAIM = re.compile(
  r'(?:not|between|either|neither|about|around|approximately|roughly|one of|'
  r'at (?:least|most)|more than|less than)\b',
  re.IGNORECASE,
)
_MAYBE = re.compile(
  r"\b(?:could|may|might|can|cannot|not|never|\w+n't)\b", re.IGNORECASE
)
_MATH_START = re.compile(
  r'[-+\u2212\d.$£€¥\\({\[|√π]|[A-Za-z](?![A-Za-z]| [a-z]{2})'
)
_HEADING = re.compile(
  r'(?:step|part|case|conclusion|solution|check|verification|explanation|'
  r'note|summary|question|problem|final|answer)\b',
  re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
  r"\b(?:scratch that|(?:this|that|it|which|answer)(?:'s| is| was) (?:actually "
  r'|clearly |also )?(?:wrong|incorrect|not (?:right|correct))|'
  r'i (?:made|have made) (?:a|an) (?:mistake|error)|'
  r"wait,? (?:no\b|actually\b|it(?:'s| is) (?!correct|right|fine)))",
  re.IGNORECASE,
)
_JOINED = re.compile(
  r'[\s,;$}(]*(?:\\(?:text|mbox|quad)\b[\s{]*)*(?:or|and|perhaps|maybe)\b'
  r'(?!\s*(?:so|then|thus|hence|we|therefore))[^.\n]{0,40}'
)
_JOINED_BOXES = 8
# Behind an answer: why it is one, and what it is not.
_REASON = re.compile(
  r'(?:;\s*(?:we|this|that|it|so|thus|hence)|(?:\s*[,;(]|\s)\s*'
  r'(?:since|because|and not|rather than|instead of|not(?= *[$\\\d(-])|'
  r'which (?:is|equals|means|matches|agrees)|'
  r'as (?:we|it|the|shown|required|desired|expected|claimed|above)))\b'
)
_COMPUTATION = re.compile(
  r'(?:[\s\d.,+*/()$\xd7-]|(?:(?<=\d)|(?<=\d\s))x(?=\s?\d))+'
)
_CALCULATOR = re.compile(r'<<[^<>]*>>')
_SENTENCE_END = re.compile(r'[.!?]["\'*)]*(?=\s|$)|\n')


def extract(text: str) -> str | None:
  """Returns the answer that a text claims at last, or None.

  A short text of one line, without any mark, is taken to be the answer itself;
  the comparison is strict enough that prose never equals anything.
  """
  text = text[-_SCANNED:].strip()
  marked = _marked(text)
  if marked is not None:
    claim, end = marked
    if claim and not _TAKEN_BACK.search(text, end):
      return claim
    return None
  if text and len(text) <= _BARE and '\n\n' not in text:
    return text
  return None


def _marked(text: str) -> tuple[str, int] | None:
  """Returns the last claim and where it ends; an empty one is no answer."""
  claims = [c for c in (_last_box(text), _last_hashes(text)) if c is not None]
  strong = max(claims, key=lambda c: c[0]) if claims else None
  start = strong[0] if strong else -1
  phrase = _last_phrase(text, start)
  found = phrase or strong
  return found[1:] if found else None


def _last_box(text: str) -> tuple[int, str, int] | None:
  """Returns the last box; boxes joined by 'and' or 'or' are one claim, a list.

  Otherwise 'it is [12] or [15]' would be right whenever either is.
  """
  boxes = list(_BOX.finditer(text))[-_JOINED_BOXES:]
  if not boxes:
    return None
  claim, end = _boxed(text, boxes[-1].end())
  start = boxes[-1].start()
  for box in reversed(boxes[:-1]):
    before, before_end = _boxed(text, box.end())
    if before_end > start:
      claim, end = before, before_end  # The last box stands inside this one.
    elif _JOINED.fullmatch(text, before_end, start):
      claim = claim if before == claim else f'{before}, {claim}'
    else:
      break
    start = box.start()
  return boxes[-1].start(), claim, end


def _boxed(text: str, start: int) -> tuple[str, int]:
  """Returns what a box holds and where it ends; '' where it is not closed."""
  if not text.startswith('{', start):
    token = _BOXED_TOKEN.match(text, start)
    return (token.group().rstrip('.,;'), token.end()) if token else ('', start)
  depth = 0
  for brace in re.compile(r'\\.|[{}]', re.DOTALL).finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return text[start + 1 : brace.start()].strip(), brace.end()
  return '', len(text)


def _last_hashes(text: str) -> tuple[int, str, int] | None:
  for line in reversed(list(_HASHES.finditer(text))):
    claim = _tidy(line.group(1))
    if not line.group(1) or not _HEADING.match(claim):
      return line.start(), claim, line.end()
  return None


def _last_phrase(text: str, after: int) -> tuple[int, str, int] | None:
  """Returns the last 'answer is' claim that stands behind `after`.

  Remarks such as 'so the answer is an integer' claim nothing where another
  claim stands before them; alone they do: the answer may be 'an ellipse'.
  """
  words = None
  for phrase in reversed(
    list(_PHRASE.finditer(text, max(after, 0)))[-_CLAIMS:]
  ):
    claim, end = _sentence(text, phrase.end())
    if _BOX.search(claim) or _REMARK.match(claim):
      continue
    found = phrase.start(), _tidy(claim), end
    denied = _NO_CLAIM.match(claim)
    if denied or _MAYBE.search(phrase.group()):
      rest = claim[denied.end() :].lstrip() if denied else claim
      if _MATH_START.match(rest):
        return phrase.start(), '', end
      continue
    if _is_mathematics(claim) or (after < 0 and _MATH_START.match(claim)):
      return found
    words = words or found
  return words if after < 0 else None


def _is_mathematics(claim: str) -> bool:
  if not _MATH_START.match(claim):
    return False
  try:
    math_parse.parse(math_units.split(math_clean.clean(claim))[0])
  except Unreadable:
    return False
  return True


def _sentence(text: str, start: int) -> tuple[str, int]:
  """Returns the rest of the sentence, full stops inside $...$ skipped."""
  limit = min(start + _SENTENCE, len(text))
  for opening, closing in (('$$', '$$'), ('\\[', '\\]')):
    if text.startswith(opening, start):
      end = text.find(closing, start + 2, limit)
      end = limit if end < 0 else end
      return text[start + 2 : end].strip(), end
  position = start
  if text.startswith('$', start):  # It may run over several lines.
    position = max(text.find('$', start + 1, limit), start)
  while stop := _SENTENCE_END.search(text, position, limit):
    inside = text.count('$', start, stop.start()) % 2 and stop.group() != '\n'
    if not inside:
      return text[start : stop.start()].strip(), stop.start()
    position = stop.end()
  return text[start:limit].strip(), limit


def _tidy(claim: str) -> str:
  """Drops calculator marks, emphasis and a computation before its result."""
  # Runs of spaces, which a model may print without end, cost a scan each.
  claim = ' '.join(_CALCULATOR.sub('', claim).split()).strip('*').strip()
  claim = re.sub(r'\s*I hope (?:it|this) is correct\.?$', '', claim)
  reason = _REASON.search(claim)
  if reason and not _TAKEN_BACK.search(claim, reason.start()):
    claim = claim[: reason.start()].rstrip()
  sides = claim.split('=')
  if len(sides) > 1 and all(
    _COMPUTATION.fullmatch(side) for side in sides[:-1]
  ):
    claim = sides[-1]
  return claim.strip()
