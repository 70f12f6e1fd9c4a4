r"""The words behind a number: what was counted, a remark, or another number.

Nouns are an open class, so they are known by their form: a plural says what was
counted. All else is closed classes of words. What is in none of them is left
where it stands, and then the number is no number.
"""

import re


def _set(words: str) -> frozenset[str]:
  return frozenset(words.split())


# Measures, and nouns that count without looking like a plural.
_UNITS = _set(
  'cm mm km nm ft yd mi kg mg lb lbs oz sec secs min mins hr hrs ml kl mph'
  ' kph kmh deg rad rpm kb mb gb hz kw kwh kcal cal gm gal pt qt mol ha sq cu'
  ' usd eur gbp degree radian unit cent penny pence dollar buck euro pound'
  ' yen yuan rupee peso franc second minute hour day week month year decade'
  ' century meter metre centimeter centimetre millimeter millimetre kilometer'
  ' kilometre foot feet inch yard mile gram kilogram milligram ton tonne'
  ' ounce liter litre milliliter millilitre gallon quart pint cup teaspoon'
  ' tablespoon tsp tbsp acre hectare volt watt amp ampere newton joule pascal'
  ' hertz kelvin celsius fahrenheit calorie bit byte square cubic people'
  ' person children child men women teeth geese mice sheep fish deer oxen'
  ' dice cattle police money homework fruit each apiece more'
)
# They end as plurals do, and are none.
_NO_PLURALS = _set(
  'always across afterwards backwards besides downwards equals forwards has'
  ' does goes less minus nowadays others ours hers theirs yours overseas'
  ' perhaps plus regardless sometimes towards unless upwards versus whereas'
  ' looks seems fails works makes checks fits holds gives exceeds misses lies'
  ' means appears feels sounds remains becomes comes needs stands says wants'
  ' repeats recurs differs squares cubes roots reciprocals inverses negatives'
  ' opposites powers logs factorials complements conjugates ones tens'
)
_NUMERALS = _set(
  'zero one two three four five six seven eight nine ten eleven twelve'
  ' thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty'
  ' thirty forty fifty sixty seventy eighty ninety hundred thousand million'
  ' billion trillion dozen dozens hundreds thousands millions billions'
  ' trillions score scores gross mille myriad lakh lakhs crore crores both'
) | _set('ones twos threes fours fives sixes sevens eights nines zeros zeroes')
# Behind a number they make another one of it, or doubt it, wherever they stand.
_CHANGING = _set(
  'approx est or if otherwise not no nor never without none maybe perhaps'
  ' possibly probably about approximately around roughly nearly almost mod'
  ' modulo modulus base binary octal hexadecimal hex am pm remainder half'
  ' quarter quarters fraction plus minus squared cubed root roots rooted'
  ' power exponent exponents factorial choose chooses divided multiplied'
  ' increased decreased reduced raised rounded doubled tripled halved negated'
  ' inverted unless but either sin cos tan log ln sqrt pi infinity union ish'
  ' below above under beneath before past negative fewer less lower higher'
  ' greater larger smaller short shy up down other another instead rather'
  ' except excluding repeating repeated recurring recurrent periodic point'
  ' decimal opposite inverse reciprocal complement conjugate too twice thrice'
  ' double triple until wait actually correction wrong incorrect false error'
  ' mistake mistaken guess unsure uncertain depending depends provided'
  ' assuming suppose supposing give take minimum maximum most least change'
  ' noon midnight denominator numerator against versus when whenever'
)
_FRACTION = re.compile(
  r'(?:(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ie|four|fif|six|seven'
  r'|eigh|nin|ten|eleven|twelf|(?:thir|four|fif|six|seven|eigh|nine)teen'
  r'|hundred'
  r'|thousand|(?:m|b|tr)illion)ths?|halves|thirds?'
)
# They begin what says where, when and for whom.
_STARTERS = _set(
  'in of for per a an from at on during each every altogether together'
  ' overall total combined left leftover remaining here there now today these'
  ' those who which whose including daily weekly monthly yearly hourly'
)
_LINKS = _set('and but than with was are has can will over into onto onward')
_NEAR = _set('near close somewhere within over exceeds outside beyond after')
_DETERMINERS = _set('all the these those next first last')
_DENYING = _set('not no never neither nor without')  # Also: 'who do not play'.
_PRONOUNS = _set('we i it this that they he she you')

_WORD = re.compile(r"[A-Za-z][A-Za-z'.]*|\d[\d.,]*|\S")
_HEAD = re.compile(
  r'\$(?:\s[^$]{1,80}\s|[^$\s](?:[^$]{0,80}[^$\s])?)\$(?:\s?\\?%)?'
  r'|\\\([^()]{1,80}\\\)|\\boxed\{[^{}]*\}'
  r'|-?(?:\\?\$|[£€¥])?-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)'
  r'(?: \d+(?=/\d))?(?:/\d+)?(?:\s?\\?%|\s(?:percent|pct)\b)?'
)


def counted(words: list[str], one: bool = False) -> int:
  """Returns how many words behind a number say what was counted, or 0.

  It is 3 for 'large red apples', 1 for 'apples in May', 0 for 'tenths' and for
  'below zero'. Behind the number one, nouns need no plural.
  """
  for i, word in enumerate(words[:4]):
    following = words[i + 1] if i + 1 < len(words) else ''
    if word == 'times':
      return 0 if following else i + 1
    if _changes(word) or word in _NUMERALS:
      return 0
    if _is_noun(word, one) and not _is_noun(following, one):
      return i + 1
    if (word in _STARTERS and word != 'each') or not word.isalpha():
      return 0
  return 0


def is_remark(words: list[str]) -> bool:
  """Returns whether words behind a number leave it as it is.

  Numbers may be in it only as in 'for all 16 glasses', 'over the 3 months'.
  """
  if words[:1] == ['and']:
    return words[1:2] != [] and words[1] in _PRONOUNS and is_remark(words[1:])
  for i, word in enumerate(words):
    before = words[max(i - 3, 0) : i]
    if word in _DENYING and 'who' in words[:i]:
      continue
    if word[0].isdigit() or word in _NUMERALS:
      each = word == 'one' and before[-1:] in (['in'], ['per'], ['for'])
      known = each or not _DETERMINERS.isdisjoint(before[-1:])
      if not known or 'of' in before:
        return False
    elif _changes(word) or not re.fullmatch(r"[a-z'.]{2,}|[ai,()!]", word):
      return False
  return True


def begins_remark(word: str) -> bool:
  """Returns whether a word directly behind a number may begin a remark."""
  return word in _STARTERS or word in ('and', '(')


def without_remark(claim: str) -> str:
  """Returns a claimed number without the words that leave it as it is.

  'apples' stays, since units are compared; 'in total' goes.
  """
  head = _HEAD.match(claim)
  rest = claim[head.end() :].lstrip('*') if head else ''
  found = list(_WORD.finditer(rest))
  words = [match.group().lower().rstrip('.') or '.' for match in found]
  if not head or not words or rest[0].isalnum():
    return claim
  nouns = counted(words, claim[: head.end()] == '1')
  tail = words[nouns:]
  if tail[:1] == [',']:
    tail = tail[1:]
  if tail[:1] == ['('] and not (
    counted(tail[1:]) or begins_remark(' '.join(tail[1:2]))
  ):
    return claim
  if tail and not nouns and not begins_remark(tail[0]):
    return claim
  if not is_remark(tail):
    return claim
  return claim[: head.end()] + rest[: found[nouns - 1].end() if nouns else 0]


def is_doubtful(words: list[str]) -> bool:
  """Returns whether words before a number make it another one, or doubt it."""
  return any(_changes(w) or w in _NUMERALS or w in _NEAR for w in words)


def _changes(word: str) -> bool:
  return word in _CHANGING or bool(_FRACTION.fullmatch(word))


def _is_noun(word: str, one: bool) -> bool:
  if word in _UNITS:
    return True
  if one and word.isalpha() and len(word) > 2:
    return word not in _STARTERS and word not in _LINKS and not _changes(word)
  plural = len(word) > 3 and word.isalpha() and word.endswith('s')
  singular = word.endswith(('ss', 'us', 'is')) or word in _NO_PLURALS
  return plural and not singular and not _FRACTION.fullmatch(word)
