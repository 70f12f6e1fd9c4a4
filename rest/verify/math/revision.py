r"""Tells what becomes of a claim behind it: it may be taken back or corrected.

Of two different claims in a row, the last counts only if something decides for
it: a conclusion, a computation, a denial of the first.
"""

import re

_GAP = 100  # Characters between two claims; more of them are reasoning.
_SHORTEST = 4  # Characters of what takes back: 'oops'.
_CORRECTION = 60  # Characters between 'Correction:' and the value.

_STRUCK = re.compile(r'(?<!\S)~~(?=\S)[^~]{1,300}(?<=\S)~~')
_APOSTROPHE = r"['\u2019]"
_IT = r'(?:this|that|it|which|answer)'
# One look at the beginning of each word, since what follows may be long.
_TAKEN_BACK = re.compile(
  r'\b(?=[acdefimnoruswt])(?:(?:scratch|strike|scrap|forget|ignore|disregard'
  r'|cancel|discard|withdraw|retract|make) (?:that|this|it)'
  r'|take (?:that|this|it) back|never ?mind|crossed out'
  rf'|{_IT}(?:{_APOSTROPHE}s| is| was| must be) (?:actually |clearly |also '
  r'|obviously |simply )?(?:wrong|incorrect|mistaken|too (?:large|small|big|low'
  r'|high)|not (?:right|correct|(?:the|my) (?:\w+ )?answer))'
  rf'|{_IT} (?:cannot|can{_APOSTROPHE}t|could not|couldn{_APOSTROPHE}t|does not'
  rf'|doesn{_APOSTROPHE}t) (?:be|seem|look) (?:right|correct|the answer)'
  rf'|i(?: am|{_APOSTROPHE}m| was) (?:wrong|mistaken)'
  rf'|(?<!if )i(?:{_APOSTROPHE}ve| have)? (?:just )?(?:forgot|missed|misread'
  r'|miscounted|miscalculated|mistyped|overlooked|messed up|double.?counted'
  r'|made (?:an? |the |some |this )?(?:\w+ )?(?:mistake|error|slip|typo))'
  r'|i (?:mean|meant)|my (?:mistake|bad|error|apologies)'
  r'|(?:apologi[sz]e|sorry) for (?:the|my|that|this|any) (?:\w+ )?(?:error'
  r'|mistake|confusion|typo|slip|oversight)|sorry(?=\s{0,3}[,:.;!\u2014-])'
  r'|(?:on|upon) (?:second thoughts?|(?:further|closer) \w+|reflection'
  r'|re-?(?:check|read|examin|consider|think|inspect)\w*)'
  r'|correction|corrected|erratum|errata|amendment|amended|revised|revision'
  r'|oops|whoops|nope|no,? wait|or rather|(?-i:EDIT|UPDATE)'
  rf'|{_IT} should (?:be|have been)(?=\s{{1,3}}[-\d\\$(])'
  r'|no(?=[,:;] [-\d\\$(])|(?:edit|updated?)(?=:))\b'
  r'|(?:^|[.!?,\n\u2014-])\s{0,3}(?:wrong|incorrect|false)\s{0,3}[.!\n]',
  re.IGNORECASE,
)
# Another value, for which nothing decides.
_RIVAL = re.compile(
  r'[.!?\n]\s{0,3}(?:or|alternatively|maybe|perhaps|possibly)[, ]{1,2}'
  r'(?:(?:it|the answer) (?:is|could be|might be|may be) )?[-$\\(]{0,3}\d',
  re.IGNORECASE,
)
# Where a sentence begins with it, it takes back, unless a check holds.
_DOUBT = re.compile(
  r'(?:^|[.!?;:,\n(){}$\]\u2014-]\s{0,3}|\b(?:but|oh|no|hmm+),?\s)(?:wait'
  r'|hold on|hmm+|hang on|actually|not so fast|ugh|looking again|after re-?\w+'
  r'|(?:in fact|really|rather|better|instead)[\s,:]{1,3}(?:(?:it|this|that'
  r'|the answer)(?: is| must be|\'s)\s{1,3})?(?=[-\d\\$(])'
  r'|(?:but|however),? (?:this|that|it|i|we) (?:ignore|miss|overlook|neglect'
  r'|forg|omit|fail|must|need|have to|should|did)\w*'
  rf'|let(?: me|{_APOSTROPHE}?s) (?:try again|fix|correct|re-?(?:do|check|count'
  r'|compute|calculate|consider|examine|think|verify|evaluate|work|read|visit)))'
  r'\b',
  re.IGNORECASE,
)
_CONFIRMED = re.compile(
  r'\b(?:correct|right|good|yes|yep|confirmed|confirms|checks? out|holds|fine'
  r'|matches|consistent|verified|as expected|same|okay|ok|indeed)\b',
  re.IGNORECASE,
)
_BEHIND = re.compile(
  r'[\s.$*)}\\\]]{0,9}\b(?:is|was|would be|seems|cannot be'
  rf'|can{_APOSTROPHE}t be|isn{_APOSTROPHE}t)\s+(?:\w+\s+)?(?:wrong|incorrect'
  r'|false|mistaken|impossible|too (?:large|small|big|low|high|much|many)'
  r'|(?<=not )(?:right|correct|valid|possible|the|our|my|it)'
  r'|(?<=[\'\u2019]t )(?:right|correct|valid|possible|the|it)'
  r'|(?<=[tn][o\u2019\']t be )(?:right|correct|it))\b',
  re.IGNORECASE,
)
_VALUE = re.compile(
  r'[\s,:;.!\u2014-]*(?:(?:the (?:correct )?answer|it|that|this|i|we)\b'
  rf'(?:{_APOSTROPHE}s)?\s*)?(?:(?:actually|really)\s+)?'
  r'(?:(?:is|should be|must be|mean|meant|get|should have been)\b\s*)?[:\s]*'
  r'(?=[-\d$\\(]|[A-E]\b)',
  re.IGNORECASE,
)
_DECISION = re.compile(
  r'\b(?:so|thus|therefore|hence|final(?:ly)?|then|no|not|wrong|incorrect|wait'
  r'|actually|oops|mean|meant|correct(?:ion|ed|ing)|instead|because|since|total'
  r'|in fact|should be|but|however|we (?:get|find|have)|which|giv(?:es?|ing)'
  r'|yields?|becomes|equals?|simplif\w+|reduc\w+|add(?:ing|s)?|multipl\w+'
  r'|subtract\w*|divid\w+|question|solution|problem|conclude|sum|overall'
  r'|fail(?:s|ed)?|works?|check\w*|re-?(?:check|comput|calculat|consider|do)\w*'
  r'|revised|corrected|updated|new|actual|true|real)\b|\d\s{0,3}(?:[-+*/=\u00d7]|\\times|\\cdot)\s{0,3}\d'
  r'|</think|\\implies|\\Rightarrow|\\to\b|\u21d2|\u2192|[-=]>',
  re.IGNORECASE,
)


def without_struck(text: str) -> str:
  """Returns a text without what its author has struck: ~~42~~."""
  return _STRUCK.sub('', text) if '~~' in text else text


def taken_back(text: str, end: int) -> int | None:
  """Returns where what replaces a claim begins, or None: the claim stands."""
  if len(text) - end < _SHORTEST:
    return None
  if behind := _BEHIND.match(text, end, end + _GAP):
    return behind.end()
  if _RIVAL.search(text, end):
    return len(text)
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


def is_beside(gap: str) -> bool:
  """Returns whether the gap between two claims decides for neither.

  Then they are a list: 'it is [12] or [15]' must not be right whenever either
  is.
  """
  return len(gap) <= _GAP and not _DECISION.search(gap)
