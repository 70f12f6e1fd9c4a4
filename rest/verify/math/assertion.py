r"""Tells 'the answer is 42' that claims it from what only looks like a claim.

'A common wrong answer is 42', 'If x = 1, the answer is 42' and 'It is false
that the answer is 42' claim nothing. English has no end of ways to deny, doubt
or suppose, but few to assert: so what stands between the last break of the
sentence and 'answer' must be known, and what stands before must be no condition
and nobody else's view.
"""

import re

_CLAUSE = 300  # Characters before a claim that are looked at.
_NEAR = 60  # Of them, those that may deny a box.


def _any(*phrases: str) -> str:
  """Returns the pattern of any of some words; in them, '_' is a space."""
  words = '|'.join(' '.join(phrases).split()).replace('_', r'\s+')
  return r'\b(?:' + words.replace("'", r"['\u2019]") + r')\b'


_UNSTOPPED = re.compile(r'[\w%$)]\s+$')
_SENTENCE = re.compile(r'[.!?]["\')*$\]]*\s|\n\s*|\$\$|\\\]|\\end\{\w+\*?\}')
_INTERRUPTED = re.compile(r',[\w ]{2,20}, (?=that\b)')
_NEGATION = re.compile(
  _any(
    r"not never cannot \w+n't no nobody none nothing nor neither false untrue",
    'wrong incorrect mistaken mistake error misconception fallacy lie myth',
    'trap doubt doubts doubtful deny denies disagree refutes? disproves?',
    'impossible unlikely hardly contradicts? absurd rather_than instead_of',
    'far_from',
  ),
  re.IGNORECASE,
)
_CONDITION = re.compile(
  _any(
    r'if unless whether when(?!\s+\w+(?:ed|ing)) whenever without lest once',
    r'in_cases? in_the_case as_long_as so_long_as suppos\w+ assum\w+',
    r'imagin\w+ pretend\w* provided_that providing ignoring neglecting',
    'forgetting omitting hypothetically on_condition',
    '(?:had|were|should)_(?:we|i|it|they|he|she|you) according_to book',
    'textbook key legend rumou?r tempting naively originally initially',
    'wrongly incorrectly mistakenly at_first for_the_sake opinion view world',
  )
  + r'|\bfor \$?[a-z]\s*(?:[<>=]|\\[lg])|^\W*(?:were|had|should)\b',
  re.IGNORECASE,
)
_HEDGE = re.compile(
  _any(
    'approximately about around roughly nearly almost at_least at_most less',
    'more fewer greater between either or perhaps maybe probably possibly',
    'thinks? say says claims? try guess given let where',
    r'(?:when(?!\s+\w+ing))',
  )
  + r'|\?',
  re.IGNORECASE,
)
# What may say something of an answer that is the one.
_OWN_WORDS = (
  'final correct right true exact actual real simplified simplest required'
  ' desired requested numerical numeric overall total complete full only unique'
  ' best short boxed integer decimal revised corrected new updated resulting'
  " the our my your this an a problem's question's exercise's"
)
_OWN = frozenset(_OWN_WORDS.split())
_MAIN = re.compile(
  r'(?:[,;:]|\band|\u2014|--)\s*(?:and\s+)?(?:so|thus|therefore|hence|but|yet'
  r'|consequently|accordingly|however|in fact|which\s+(?:means|gives|implies'
  r'|shows|yields))\b|;|=>|\\implies|\\Rightarrow'
  r'|\b(?:so|thus|therefore|hence)\s*$',
  re.IGNORECASE,
)
_CONNECTIVES = _any(
  'so thus therefore hence then now finally and also again consequently but',
  'yet accordingly clearly evidently indeed overall altogether however',
  'instead well surely here ergo conclusion result solution since because',
  'okay ok yes no step in_total in_conclusion in_summary in_short in_the_end',
  'in_all in_this_case as_a_result as_such to_sum_up to_conclude',
  'to_summarize all_in_all note_that final_answer answer correction edit',
  'update verification check summary final_step let_us_conclude recall_that',
  'in_simplest_form',
)
_ASSERTIONS = _any(
  r"(?:i|we|one)(?:'m|'ve|'re)?_(?:(?:can|easily|now|then|also|have|could|will|may|am"
  r'|are)_)*'
  r'(?:see|find|found|know|get|have|had|conclude|concluded|deduce|deduced'
  r'|obtain|obtained|determine|determined|infer|say|believe|think|guess|suspect'
  r'|confirm|confirmed|established|shown|proved|confident|sure|certain)',
  r'(?:this|it|that|which)_(?:clearly_)?(?:follows|shows|means|implies|gives'
  r'|proves|confirms|seems|appears|tells_us)',
  r"it(?:_is|'s)_(?:clear|easy_to_see|obvious|evident|safe_to_say)",
)
_ASSERTION = re.compile(
  rf'\W*(?:{_CONNECTIVES}[\W\d]*)*(?:{_ASSERTIONS}\W*(?:(?:now|then|from'
  rf' this)\W+)?(?:that\b\W*)?(?:{_CONNECTIVES}\W*)*)?'
  r'(?:in(?:\s+\w+){1,3}\s*)?',
  re.IGNORECASE,
)
_LEADING = re.compile(  # 'Since she has 3 apples the answer is 42.'
  r'\W*(?:since|because|as|adding|using|simplifying|\w+ing)\b[^:\n]*$',
  re.IGNORECASE,
)
_ARRIVING = re.compile(  # 'Divide by 9 to get the answer: 5'.
  r'\b(?:gets?|obtain|gives?|giving|yields?|yielding|for|as)(?:\s+that)?\W*$',
  re.IGNORECASE,
)
# Someone else's view, directly before 'that the answer is'.
_SAYING = re.compile(
  r"(?P<who>(?:[\w'\u2019]+\s+){0,3})\b(?:thinks?|thought|believe[sd]?|says?"
  r'|said|claim(?:s|ed)?|guess(?:es|ed)?|argue[sd]?|assert(?:s|ed)?|insist(?:s|ed)?'
  r'|reports?|reported|states?|stated|expect(?:s|ed)?|swears?|wrote|writes?'
  r'|tells?|told|hopes?|hoped|concludes?|concluded|answered)'
  r"\b[^\w.!?;]+(?:[\w'\u2019]+[^\w.!?;]+){0,4}$",
  re.IGNORECASE,
)
_MYSELF = re.compile(r"\b(?:i|we|us|let['\u2019]s)\b", re.IGNORECASE)
_DENIED_VALUE = re.compile(
  r"(?:\b(?:not|cannot be|never|\w+n['\u2019]t(?: be)?|rather than|instead of)"
  r'(?:\s+(?:be|equal|to|equal to|the answer|simply|just))*'
  r'|\\(?:sout|[xb]?cancel)\s*\{)[\s:$({\\[]*$',
  re.IGNORECASE,
)
_SAID = re.compile(
  r'\b(?:says?|said|claim(?:s|ed)|thinks?|thought|believe[sd]?|guess(?:es|ed)?)'
  r'(?:\s+(?:that|it|is))*[\s:$({\\[]*$',
  re.IGNORECASE,
)
_DISOWNED = re.compile(
  r'\b(?:wrong|incorrect|mistaken|na[i\u00ef]ve|doubt|tempting|erroneous)\b'
  r'[^,;:.=]*$',
  re.IGNORECASE,
)
_SUSPECT_WORDS = (
  "not n't n\u2019t never rather instead sout cancel wrong incorrect mistaken"
  ' na\u00efve naive doubt tempting erroneous say said claim think thought'
  ' belie guess'
)
_SUSPECT = tuple(_SUSPECT_WORDS.split())
_ASKED = re.compile(r'[$)*\s]{0,8}\?')
_WORDS = re.compile(r"[\w'\u2019-]+")


def is_asserted(text: str, start: int) -> bool:
  """Returns whether 'answer is ...' at a place asserts what follows."""
  before = _clause(text, start)
  lead = _without_owner(before)
  # 'She has 3 + 4 = 7 The answer is 7.': a sentence, but for the full stop.
  phrase = f'{before[len(lead) :]}{text[start : start + 1]}'.lstrip()
  is_new = phrase[:1].isupper() and bool(_UNSTOPPED.search(lead))
  clause = _INTERRUPTED.sub(' ', lead)
  main = list(_MAIN.finditer(clause))
  if main:
    clause = re.sub(r'^\s*that\b', '', clause[main[-1].end() :])
  if _CONDITION.search(clause):
    return False
  saying = _SAYING.search(clause)
  if saying and not _MYSELF.search(saying.group('who')):
    return False
  residue = re.split(r',|\band\b', clause)[-1]
  if _ASSERTION.fullmatch(residue):
    return True
  leads = is_new or _LEADING.match(residue) or _ARRIVING.search(residue)
  return bool(leads) and not _NEGATION.search(residue)


def is_doubtful(words: str) -> bool:
  """Returns whether words before a value deny, suppose or hedge it."""
  patterns = (_NEGATION, _CONDITION, _HEDGE)
  return any(pattern.search(words) for pattern in patterns)


def is_denied(text: str, start: int, end: int) -> bool:
  """Returns whether a box holds what the answer is not, or asks for it."""
  before = text[max(start - _NEAR, 0) : start]
  lower = before.lower()
  if not any(word in lower for word in _SUSPECT):  # Nearly always: be quick.
    return bool(_ASKED.match(text, end))
  if _DENIED_VALUE.search(before) or _DISOWNED.search(before):
    return True
  said = _SAID.search(before)
  if said and not _MYSELF.search(before, 0, said.start()):
    return True
  return bool(_ASKED.match(text, end))


def _clause(text: str, start: int) -> str:
  """Returns the sentence before a place."""
  before = text[max(start - _CLAUSE, 0) : start]
  ends = list(_SENTENCE.finditer(before))
  return before[ends[-1].end() :] if ends else before


def _without_owner(clause: str) -> str:
  """Returns what is before the noun phrase of an answer that may be the one."""
  end = len(clause)
  for word in reversed(list(_WORDS.finditer(clause))):
    if word.group().lower() not in _OWN or re.search(
      r'[,:;]', clause[word.end() : end]
    ):
      break
    end = word.start()
  return clause[:end]
