r"""Tells a claim from what only looks like one.

'A common wrong answer is 42', 'If the answer is 42' and 'It is false that the
answer is 42' claim nothing; 'Oops' behind a claim takes it back; of two
different claims in a row, the last counts only if something decides. What is
looked at is the clause before a claim, the text behind it, the gap between two.
"""

import re

_CLAUSE = 300  # Characters before a claim that are looked at.
_NEAR = 40  # Of them, those that may deny a box.
_GAP = 100  # Between two claims; a longer one is reasoning.
_SHORTEST = 4  # Characters of what takes back: 'oops'.
_CORRECTION = 60  # Characters between 'Correction:' and the value.

_SENTENCE = re.compile(r'[.!?]["\')*$\]]*\s|\n\s*')
_INTERRUPTED = re.compile(r',[\w ]{2,20}, (?=that\b)')
# What the main clause begins with: 'If a = 2, then b = 3, so the answer is 5'.
_MAIN = re.compile(
  r'(?:[,;:]|\band|\u2014|--)\s*(?:and\s+)?(?:so|thus|therefore|hence|but|yet'
  r'|consequently|accordingly|however|in fact)\b|;|=>|\\implies|\\Rightarrow'
  r'|\b(?:so|thus|therefore|hence)(?=\s+(?:(?:the|our|my)\s+)?$)',
  re.IGNORECASE,
)
_NEGATION = re.compile(
  r"\b(?:not|never|cannot|\w+n['\u2019]t|no|nobody|none|nothing|nor|neither"
  r'|false|untrue|wrong|incorrect|mistaken|mistake|error|misconception|fallacy'
  r'|doubts?|doubtful|den(?:y|ies)|disagree|refutes?|disproves?|impossible'
  r'|unlikely|hardly|contradicts?|absurd|rather than|instead of|far from)\b',
  re.IGNORECASE,
)
_SUPPOSITION = re.compile(
  r'\b(?:if|unless|whether|suppos(?:e|es|ing)|assum(?:e|es|ing)|imagin(?:e|ing)'
  r'|pretend(?:ing)?|hypothetically|lest|provided that|on condition'
  r'|(?:had|were|should) (?:we|i|it|they|he|she|you)|say,? that'
  r"|let['\u2019]?s say"
  r"|(?:to|must|should|please|let us|let me|let['\u2019]s|can you|can we) "
  r'(?:also |now )?(?:check|verify|prove|show|confirm|test|decide|say|think'
  r'|believe|claim|conclude|guess))\b',
  re.IGNORECASE,
)
# Someone else's view, directly before 'that the answer is'.
_SAYING = re.compile(
  r"(?P<who>(?:[\w'\u2019]+\s+){0,3})"
  r'\b(?:thinks?|thought|believe[sd]?|says?|said|claim(?:s|ed)?|guess(?:es|ed)?'
  r'|argue[sd]?|assert(?:s|ed)?|insist(?:s|ed)?|reports?|reported|states?'
  r'|stated'
  r'|expect(?:s|ed)?|feels?|felt|swears?|wrote|writes?|tells?|told|hopes?|hoped'
  r'|concludes?|concluded|contends?|maintains?|announce[sd]?|tempted'
  r'|declare[sd]?|answered|according to|tempting)'
  r"\b[^\w.!?;]+(?:[\w'\u2019]+[^\w.!?;]+){0,4}$",
  re.IGNORECASE,
)
_OWN = re.compile(r"\b(?:i|we|us|let['\u2019]s)\b", re.IGNORECASE)
# Adjectives and owners of answers that are not the one that is given.
_NOT_MINE = re.compile(
  r'\b(?:wrong|incorrect|false|mistaken|na[i\u00ef]ve|tempting|erroneous'
  r'|invalid'
  r'|bad|poor|common|popular|typical|frequent|usual|intuitive|obvious|initial'
  r'|first'
  r'|previous|original|earlier|old|alternative|alternate|possible|plausible'
  r'|potential|another|other|such|partial|intermediate|incomplete|rejected'
  r'|approximate|rough|estimated|no|his|her|their|whose|someone'
  r"|(?!problem|question|exercise|puzzle)\w+['\u2019]s|\w+s['\u2019])\b",
  re.IGNORECASE,
)
_DETERMINERS = frozenset(
  ('the', 'a', 'an', 'my', 'our', 'your', 'this', 'that', 'one', 'any', 'some')
)
_HEDGE = re.compile(
  r'\b(?:approximately|about|around|roughly|nearly|almost|at (?:least|most)'
  r'|less'
  r'|more|fewer|greater|between|either|or|perhaps|maybe|probably|think|thinks'
  r'|say|says|claims?|try|guess|given|let|where|when(?! \w+ing))\b|\?',
  re.IGNORECASE,
)
_DENIED_VALUE = re.compile(
  r"\b(?:not|cannot be|never|\w+n['\u2019]t(?: be)?|rather than|instead of)"
  r'(?:\s+(?:be|equal|to|equal to|the answer|simply|just))*[\s:$({\\[]*$',
  re.IGNORECASE,
)

_TAKEN_BACK = re.compile(
  r'\b(?:(?:scratch|strike|scrap|forget|ignore|disregard) (?:that|this|it)\b'
  r'|(?:this|that|it|which|answer|i)(?:[\'\u2019]s| is| was| am| must be) '
  r'(?:actually |clearly |also |obviously |simply )?(?:wrong|incorrect'
  r'|mistaken|too (?:large|small|big|low|high)|not (?:right|correct|(?:the'
  r'|my) (?:\w+ )?answer))'
  r'|(?:this|that|it|which) (?:cannot|can[\'\u2019]?t|could not'
  r'|couldn[\'\u2019]t'
  r'|does not|doesn[\'\u2019]t) (?:be|seem|look) (?:right|correct|the answer)'
  r'|(?<!if )i(?:[\'\u2019]ve| have)? (?:just )?(?:forgot|missed|misread'
  r'|miscounted|miscalculated|mistyped|overlooked|messed up|double.?counted'
  r'|made (?:an? |the |some |this )?(?:\w+ )?(?:mistake|error|slip|typo'
  r'|blunder)'
  r')\b|i (?:mean|meant)\b|my (?:mistake|bad|error|apologies)\b'
  r'|(?:apologi[sz]e|sorry) for (?:the|my|that|this|any) (?:\w+ )?(?:error'
  r'|mistake|confusion|typo|slip|oversight)|sorry\s*[,:.;!\u2014-]'
  r'|(?:on|upon) (?:second thoughts?|(?:further|closer) \w+|reflection'
  r'|re-?(?:check|read|examin|consider|think|inspect)\w*)'
  r'|correction\b|corrected\b|erratum\b|errata\b|oops\b|whoops\b|nope\b'
  r'|no,? wait'
  r'|(?:it|this|that|answer) should (?:be|have been)\s+(?=[-\d\\$(])'
  r'|or rather\b|no[,:;] (?=[-\d\\$(])|(?-i:EDIT|UPDATE)\b'
  r'|(?:edit|updated?):)',
  re.IGNORECASE,
)
_ASKED = re.compile(r'[$)*\s]{0,8}\?')
# What takes back, unless a check that holds follows.
_DOUBT = re.compile(
  r'(?:^|[.!?;:,\n(){}$\]\u2014-]\s{0,3}|\b(?:but|oh|no|hmm+),?\s+)(?:wait|hold on'
  r'|hmm+|hang on|actually|not so fast|but no|let(?: me|[\'\u2019]?s)'
  r' (?:try again|fix|correct|re-?(?:do|check|compute|calculate|count|consider'
  r'|examine|think|verify|evaluate|work|read|visit)))\b',
  re.IGNORECASE,
)
_CONFIRMED = re.compile(
  r'\b(?:correct|right|good|yes|yep|confirmed|confirms|checks? out|holds'
  r'|matches'
  r'|consistent|verified|as expected|fine|same|okay|ok|indeed)\b',
  re.IGNORECASE,
)
_BEHIND = re.compile(
  r'[\s.$*)}\\\]]{0,9}\b(?:is|was|would be|seems|cannot be|can[\'\u2019]t be'
  r'|isn[\'\u2019]t)\s+(?:\w+\s+)?(?:wrong|incorrect|false|mistaken|impossible'
  r'|too (?:large|small|big|low|high|much|many)'
  r'|(?<=not )(?:right|correct|valid|possible|the|our|my|it)'
  r'|(?<=[\'\u2019]t )(?:right|correct|valid|possible|the|it)'
  r'|(?<=[tn][o\u2019\']t be )(?:right|correct|it))\b',
  re.IGNORECASE,
)

# Between two claims: it decides for the second ...
_DECISION = re.compile(
  r'\b(?:so|thus|therefore|hence|final(?:ly)?|then|no|not|wrong|incorrect|wait'
  r'|actually|oops|mean|meant|correction|instead|because|since|total|in fact'
  r'|should|we (?:get|find|have)|which|gives?|yields?|becomes|equals?'
  r'|simplif\w+'
  r'|reduc\w+|add(?:ing|s)?|multipl\w+|subtract\w*|divid\w+|question|solution'
  r'|problem)\b|</think|\\implies|\\Rightarrow|\u21d2',
  re.IGNORECASE,
)
# ... or only sets one beside the other.
_JOINS = re.compile(r'\b(?:or|and|perhaps|maybe)\b', re.IGNORECASE)
_BESIDE = re.compile(
  r'(?:or|and|also|alternatively|another|other|else|either|maybe|perhaps'
  r'|possibly'
  r'|possible|first|second|third|one|two|option|guess|candidate|case|answers?'
  r'|the|a|an|is|it|its|be|are|could|might|may|can|as|well|too|my|our|your|i'
  r'|quad|qquad|text|mbox|correct|part|\w)',
  re.IGNORECASE,
)


def is_asserted(text: str, start: int) -> bool:
  """Returns whether 'answer is ...' at a place asserts what follows."""
  clause = _clause(text, start)
  if _NOT_MINE.search(_owner(clause)):
    return False
  main = list(_MAIN.finditer(clause))
  clause = clause[main[-1].end() :] if main else clause
  if _SUPPOSITION.search(clause):
    return False
  saying = _SAYING.search(clause)
  if saying and not _OWN.search(saying.group('who')):
    return False
  clause = _INTERRUPTED.sub(' ', clause)
  return not _NEGATION.search(re.split(r'[,:]|\band\b', clause)[-1])


def is_doubtful(words: str) -> bool:
  """Returns whether words before a value deny, suppose or hedge it."""
  return bool(
    _NEGATION.search(words)
    or _SUPPOSITION.search(words)
    or _HEDGE.search(words)
    or _NOT_MINE.search(words)
  )


def is_denied(text: str, start: int, end: int) -> bool:
  """Returns whether a box holds what the answer is not, or asks for it."""
  denied = _DENIED_VALUE.search(text, max(start - _NEAR, 0), start)
  return bool(denied or _ASKED.match(text, end))


def taken_back(text: str, end: int) -> int | None:
  """Returns where what replaces a claim begins, or None: the claim stands."""
  if len(text) - end < _SHORTEST:
    return None
  if behind := _BEHIND.match(text, end, end + _GAP):
    return behind.end()
  if found := _TAKEN_BACK.search(text, end):
    return found.end()
  doubt = _DOUBT.search(text, end)
  if doubt and not _CONFIRMED.search(text, doubt.end()):
    return doubt.end()
  return None


def corrected(text: str, start: int) -> int | None:
  """Returns where the value of a correction begins, directly behind it."""
  found = _VALUE.match(text, start, start + _CORRECTION)
  return found.end() if found else None


_VALUE = re.compile(
  r'[\s,:;.!\u2014-]*(?:(?:the (?:correct )?answer|it|that|this|i|we)\b'
  r"(?:['\u2019]s)?\s*)?(?:(?:actually|really)\s+)?"
  r'(?:(?:is|should be|must be|mean|meant|get|should have been)\b\s*)?[:\s]*'
  r'(?=[-\d$\\(])',
  re.IGNORECASE,
)


def is_beside(gap: str) -> bool:
  """Returns whether the gap between two claims decides for neither.

  Then they are a list: 'it is [12] or [15]' must not be right whenever either
  is.
  """
  if len(gap) > _GAP:
    return False
  gap = re.sub(r'\\(?:text|mbox|q?quad|boxed|fbox)\b', ' ', gap)
  if _DECISION.search(gap):
    return False
  words = re.findall(
    r'[A-Za-z]+', re.sub(r'[A-Za-z]\w*(?:_\S+)?\s*=', ' ', gap)
  )
  if all(map(_BESIDE.fullmatch, words)):
    return True
  joins = _JOINS.search(gap)
  return bool(joins) and not re.search(r'[.!?\n]', gap) and len(words) <= 8


def _clause(text: str, start: int) -> str:
  """Returns the sentence before a place."""
  before = text[max(start - _CLAUSE, 0) : start]
  ends = list(_SENTENCE.finditer(before))
  return before[ends[-1].end() :] if ends else before


def _owner(clause: str) -> str:
  """Returns the words of the noun phrase that ends in 'answer'."""
  words = clause.split()[-4:]
  for i in reversed(range(len(words))):
    if words[i].lower() in _DETERMINERS:
      return ' '.join(words[i + 1 :])
  return ' '.join(words[-2:])
