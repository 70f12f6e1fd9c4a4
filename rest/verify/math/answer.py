r"""Finds the answer that a solution finally claims.

Claims are marked as the problem sets mark them: `\boxed{7}` (MATH), `#### 7`
(GSM8K), 'The final answer is 7.' (Minerva), `<answer>7</answer>`. The last
claim counts, of whatever kind, unless it is taken back. There is no search for
'the last number': without a mark, only a last sentence that concludes with one
formula claims it. All scans are linear, whatever the text.
"""

import re
from typing import NamedTuple

from rest.types import without_thoughts
from rest.verify.math import assertion, revision
from rest.verify.math.clean import clean, group_end
from rest.verify.math.conclusion import conclusion
from rest.verify.math.lex import Unreadable
from rest.verify.math.parse import parse
from rest.verify.math.units import split
from rest.verify.math.words import is_doubtful, without_remark

_SCANNED = 20_000  # Characters at the end of a text in which claims are sought.
_CLAIMS = 16  # Phrases that are looked at, from the end.
_SENTENCE = 600  # Characters of a claim in words.
_BARE = 300  # Characters of an answer that stands alone, without a mark.
_BESIDE = 8  # Claims that are joined.
_CORRECTIONS = 4

_TURN = re.compile(  # Where a chat's next turn begins.
  r'<\|(?:im_end|endoftext|eot_id|end_of_text|im_start\|>user)'
)
_BOX = re.compile(r'\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*')
_BOXED_TOKEN = re.compile(r'[^\s$]+')
_HEADED = re.compile(
  r'^(?:#{1,6} |\*\*)[ \t]*(?:the )?(?:final )?answer[*: \t]{0,8}\n',
  re.IGNORECASE | re.MULTILINE,
)
_HASHES = re.compile(r'(?<!#)####(?!#)[ \t]*([^\n]*)')
_TAG = re.compile(r'<answer>([^<]{1,300})</answer>', re.IGNORECASE)
_PHRASE = re.compile(
  r'\b(?:final |correct )?answers?\b'
  r"(?:[\w ,'*]{0,50}?\b(?:is|are|be|equals)\b|[*_ \t]{0,8}[:=]"
  r'|(?= ?(?:\$\$|\\\[|(?:\$|\\\()(?! ?\n))))'
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
# ... and where what is given is not the answer, or may be another.
_NOT = re.compile(r"\b(?:not|cannot|never|neither|\w+n['\u2019]t)\b", re.I)
_NO_CLAIM = re.compile(
  r'(?:not|between|either|neither|about|around|approximately|roughly|one of|'
  r'at (?:least|most)|more than|less than)\b',
  re.IGNORECASE,
)
_MAYBE = re.compile(
  r"\b(?:could|may|might|can|cannot|not|never|\w+n['\u2019]t|used|once"
  r'|no longer|thought|believed|claimed|said|supposed|expected|if|when)\b',
  re.IGNORECASE,
)
_MATH_START = re.compile(
  r'[-+\u2212\d.$£€¥\\({\[|√π]|[A-Za-z](?![A-Za-z]| [a-z]{2})'
)
_HEADING = re.compile(
  r'(?:step|part|case|conclusion|solution|check|verification|explanation|'
  r'note|summary|question|problem|final|answer)\b',
  re.IGNORECASE,
)
# Behind an answer: why it is one, and what it is not.
_REASON = re.compile(
  r'(?:;\s*(?:we|this|that|it|so|thus|hence)|(?:\s*[,;(]|\s)\s*'
  r'(?:since|because|and not|rather than|instead of|not(?= *[$\\\d(-])|i\.e\.,?'
  r'|that is,|namely|which (?:is|equals|means|matches|agrees)|'
  r'as (?:we|it|the|can|one|shown|required|desired|expected|claimed|above)))'
  r'(?!\w)'
)
_PLAIN = re.compile(r'-?\d{1,30}(?:,\d{3}){0,9}(?:\.\d{1,30})?')
_COMPUTATION = re.compile(
  r'(?:[\s\d.,+*/()$\xd7-]|(?:(?<=\d)|(?<=\d\s))x(?=\s?\d))+'
)
_CALCULATOR = re.compile(r'<<[^<>]*>>')
_PRICE = re.compile(r'(\$\d+(?:,\d{3})*(?:\.\d+)?)[.!?](?:\s|$)')
_RIVALS = re.compile(r'\b(?:or|alternatively|maybe|perhaps|possibly)\b', re.I)
_SENTENCE_END = re.compile(r'[.!?]["\'*)]*(?=\s|$)|\n')


_BEFORE = 100  # Characters before a box in which its phrase begins.
_OPENING = re.compile(r'[\s$*:({]*(?:\\[(\[])?\s*')
_NUMBER_IN = re.compile(r"[A-Z][A-Za-z ,'\u2019-]{2,80} (?=[$£€\\]?-?\.?\d)")
_COMPUTED = re.compile(r'[a-z]{3}.*\d.*[-+*/\xd7\u2212]')
_VERB = re.compile(r'\b(?:is|are|equals)\b[*_:\s]*')


class Claim(NamedTuple):
  """What is claimed, and from where to where; '' claims that none is known."""

  start: int
  text: str
  end: int


def extract(text: str) -> str | None:
  """Returns the answer that a text claims at last, or None.

  A short text of one line, without any mark, is taken to be the answer itself;
  the comparison is strict enough that prose never equals anything.
  """
  if _PLAIN.fullmatch(text):  # Half of all references: be quick.
    return text
  text = revision.without_struck(text[-_SCANNED:]).strip()
  if 'think>' in text:  # What is drafted in there is no answer.
    text = without_thoughts('', text).strip()
  if '<|' in text and (turn := _TURN.search(text)):
    text = text[: turn.start()].rstrip()
  if 'nswer' in text or 'NSWER' in text:
    text = _HEADED.sub('Answer: ', text)
  claim = _last_claim(text)
  if claim is not None:
    return _standing(text, claim) or None
  if concluded := conclusion(text):
    return concluded
  if text and len(text) <= _BARE and '\n\n' not in text:
    return text
  return None


def _standing(text: str, claim: Claim) -> str:
  """Returns what stands of a claim: it, what replaces it, or nothing."""
  for _ in range(_CORRECTIONS):
    position = revision.taken_back(text, claim.end)
    if position is None:
      return claim.text
    start = revision.corrected(text, position)
    if start is None:
      return ''
    sentence, end = _sentence(text, start)
    claim = Claim(start, _tidy(sentence), end)
    if not _is_mathematics(claim.text):
      return ''
  return ''


def _last_claim(text: str) -> Claim | None:
  """Returns the last claim; those that stand beside it are one with it.

  Otherwise 'it is [12] or [15]' would be right whenever either is.
  """
  claims = sorted([*_boxes(text), *_lines(text)])
  said = _phrases(text, claims[-1] if claims else None)
  claims += said
  if not claims:
    return None
  last = claims.pop()
  joined = last.text
  start = last.start
  while claims and joined:
    before = claims.pop()
    gap = text[before.end : start]
    if before.end > start or not revision.is_beside(gap):
      break
    if before in said and _SENTENCE_END.search(gap):
      if _is_cut(text, last, before):
        return before
      # 'The answer is 5 kg. The answer is 5.' says it again, or better.
      if not _RIVALS.search(gap):
        break
    if before.text not in joined.split(', '):
      joined = f'{before.text}, {joined}'
    start = before.start
  return last._replace(text=joined)


def _is_cut(text: str, last: Claim, before: Claim) -> bool:
  """Returns whether a text ends inside a claim that it makes again.

  Of 'The answer is 30. The answer is 3' the length limit has the rest.
  """
  repeats = before.text != last.text and before.text.startswith(last.text)
  return last.end == len(text) and repeats


def _boxes(text: str) -> list[Claim]:
  """Returns the last boxes in order; one that holds another stands for it."""
  found: list[Claim] = []
  for box in list(_BOX.finditer(text))[-_BESIDE:]:
    claim, end = _boxed(text, box.end())
    if found and box.start() < found[-1].end:
      continue
    found.append(Claim(box.start(), claim, end))
  kept = [
    claim
    for claim in found
    if _phrase_stands(text, claim)
    and not assertion.is_denied(text, claim.start, claim.end)
  ]
  return kept or [claim._replace(text='') for claim in found[-1:]]


def _boxed(text: str, start: int) -> tuple[str, int]:
  """Returns what a box holds and where it ends; '' where it is not closed."""
  if not text.startswith('{', start):
    token = _BOXED_TOKEN.match(text, start)
    return (token.group().rstrip('.,;'), token.end()) if token else ('', start)
  end = group_end(text, start)
  if end is None:
    return '', len(text)
  return text[start + 1 : end - 1].strip(), end


def _phrase_stands(text: str, box: Claim) -> bool:
  """Returns whether 'answer is' before a box, if it is there, claims it."""
  begin = max(box.start - _BEFORE, 0)
  if 'nswer' not in text[begin : box.start]:
    return True
  for phrase in _PHRASE.finditer(text, begin, box.start):
    if _OPENING.fullmatch(text, phrase.end(), box.start):
      return assertion.is_asserted(text, phrase.start())
  return True


def _lines(text: str) -> list[Claim]:
  """Returns what is marked with #### or <answer>, in order."""
  found = []
  hashes = _HASHES.finditer(text) if '####' in text else ()
  for line in list(hashes)[-_BESIDE:]:
    claim = _tidy(line.group(1))
    if phrase := _PHRASE.search(claim):
      stands = assertion.is_asserted(claim, phrase.start())
      claim = _tidy(claim[phrase.end() :]) if stands else ''
    if not claim or not _HEADING.match(claim):
      found.append(Claim(line.start(), claim, line.end()))
  tags = _TAG.finditer(text) if '</' in text else ()
  for tag in list(tags)[-_BESIDE:]:
    claim = _predicate(_tidy(tag.group(1)), ':')
    found.append(Claim(tag.start(), claim, tag.end()))
  return found


def _phrases(text: str, strong: Claim | None) -> list[Claim]:
  """Returns the 'answer is' claims behind another claim, in order.

  Remarks such as 'so the answer is an integer' claim nothing where another
  claim stands before them; alone they do: the answer may be 'an ellipse'.
  """
  found: list[Claim] = []
  words: list[Claim] = []
  dropped: list[Claim] = []
  denied = set()
  begin = strong.end if strong else 0
  for phrase in reversed(list(_PHRASE.finditer(text, begin))[-_CLAIMS:]):
    sentence, end = _sentence(text, phrase.end())
    if _BOX.search(sentence) or _REMARK.match(sentence):
      continue
    value = _predicate(_tidy(sentence), phrase.group())
    claim = Claim(phrase.end(), value, end)
    answer = phrase.start() + phrase.group().lower().rfind('answer')
    asserted = assertion.is_asserted(text, answer)
    if text.startswith('?', end) or not asserted:
      dropped.append(claim._replace(text=''))
      continue
    hedge = _NO_CLAIM.match(sentence)
    if hedge or _MAYBE.search(phrase.group()):
      value = sentence[hedge.end() :].lstrip() if hedge else sentence
      if not _MATH_START.match(value):
        continue
      if _NOT.search(f'{phrase.group()} {hedge.group() if hedge else ""}'):
        denied.add(_tidy(value))
        dropped.append(claim._replace(text=''))
      elif not (hedge and strong):
        found.append(claim._replace(text=''))
    elif _is_mathematics(claim.text):
      found.append(claim)
    elif not strong:
      (found if _MATH_START.match(claim.text) else words).append(claim)
  last = found[0] if found else strong
  if last and last.text in denied:
    return [dropped[0]]
  return found[::-1] or ([] if strong else words[:1] or dropped[:1])


def _is_mathematics(claim: str) -> bool:
  if not _MATH_START.match(claim):
    return False
  try:
    parse(split(clean(claim))[0])
  except Unreadable:
    return False
  return True


def _sentence(text: str, start: int) -> tuple[str, int]:
  """Returns the rest of the sentence, full stops inside $...$ skipped."""
  limit = min(start + _SENTENCE, len(text))
  if price := _PRICE.match(text, start, limit):
    return price.group(1), price.end(1)
  for opening, closing in (('$$', '$$'), ('\\[', '\\]')):
    if text.startswith(opening, start):
      end = text.find(closing, start + 2, limit)
      end = limit if end < 0 else end
      return text[start + 2 : end].strip(), end
  position = start
  if text.startswith('$', start):  # It may run over several lines.
    position = max(text.find('$', start + 1, limit), start)
  while stop := _SENTENCE_END.search(text, position, limit):
    dollars = text.count('$', start, stop.start())
    escaped = text.count('\\$', start, stop.start())
    if (dollars - escaped) % 2 == 0 or stop.group() == '\n':
      return text[start : stop.start()].strip(), stop.start()
    position = stop.end()
  return text[start:limit].strip(), limit


def _tidy(claim: str) -> str:
  """Drops what leaves a claim as it is: marks, a computation, remarks."""
  if _PLAIN.fullmatch(claim):
    return claim
  # Runs of spaces, which a model may print without end, cost a scan each.
  claim = ' '.join(_CALCULATOR.sub('', claim).split()).strip('*').strip()
  claim = re.sub(r'\s*I hope (?:it|this) is correct\.?$', '', claim)
  reason = _REASON.search(claim)
  if reason and revision.taken_back(claim, reason.start()) is None:
    claim = claim[: reason.start()].rstrip()
  sides = claim.split('=')
  if len(sides) > 1 and all(
    _COMPUTATION.fullmatch(side) for side in sides[:-1]
  ):
    claim = sides[-1]
  return without_remark(claim.strip())


def _predicate(claim: str, phrase: str) -> str:
  """Returns 34 for 'The largest n is 34', and other claims as they are.

  Behind 'Answer:' it is also 34 for 'She has to pay $34 in total' and for 'They
  have 17 hens + 17 ducks = 34 birds'.
  """
  if ':' in phrase and claim.count('=') == 1:
    lead, side = claim.split('=')
    value = without_remark(side.strip())
    computed = _COMPUTED.search(lead) and not assertion.is_doubtful(lead)
    if computed and _is_mathematics(value):
      return value
  number = _NUMBER_IN.match(claim) if ':' in phrase else None
  if number and not is_doubtful(number.group().lower().split()):
    value = without_remark(claim[number.end() :])
    if _is_mathematics(value) and not assertion.is_doubtful(number.group()):
      return value
  verbs = list(_VERB.finditer(claim))
  if len(verbs) != 1 or _MATH_START.match(claim):
    return claim
  if assertion.is_doubtful(claim[: verbs[0].start()]):
    return claim
  value = without_remark(claim[verbs[0].end() :])
  return value if _is_mathematics(value) else claim
