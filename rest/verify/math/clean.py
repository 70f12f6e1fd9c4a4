r"""Rewrites an answer so that one notation is left of each kind.

What stays: commands that mean something, `\text{...}` for words, brackets. What
goes: delimiters, spacing, sizes, fonts, and characters that nobody sees. A
linear pass of replacements; no meaning is decided here.
"""
# ruff: noqa: RUF001  The look-alikes are what this file is about.

import re
import unicodedata

ROW = '¶'  # What `\\\\` becomes, so that it starts no command.
DOLLAR = '¤'  # A dollar that is money.

_OUTER = 5  # Pairs of braces stripped; each costs a scan.

_CHARACTERS = {
  '−': '-', '–': '-', '—': '-', '‐': '-', '‑': '-',
  '×': r'\times ', '·': r'\cdot ', '⋅': r'\cdot ', '∗': '*', '÷': r'\div ',
  '≤': r'\le ', '≥': r'\ge ', '≠': r'\ne ', '∞': r'\infty ', '≈': r'\approx ',
  '∪': r'\cup ', '∩': r'\cap ', '∈': r'\in ', '∅': r'\emptyset ',
  '±': r'\pm ', '∓': r'\mp ', '°': r'^\circ ', '√': r'\sqrt ', 'π': r'\pi ',
  'ℝ': r'\mathbb{R}', 'ℤ': r'\mathbb{Z}', '∠': r'\angle ', '△': r'\triangle ',
  'θ': r'\theta ', 'α': r'\alpha ', 'β': r'\beta ', 'γ': r'\gamma ',
  'λ': r'\lambda ', 'μ': r'\mu ', 'φ': r'\phi ', 'ω': r'\omega ',
  '⟨': r'\langle ', '⟩': r'\rangle ', '′': "'", '’': "'",
  '¢': r'\text{ cents}', '⁄': '/', '∕': '/',
}  # fmt: skip
for _fraction in '½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒':  # NFKC alone makes 11/2 of 1½.
  _above, _below = unicodedata.normalize('NFKC', _fraction).split('⁄')
  _CHARACTERS[_fraction] = rf'\frac{{{_above}}}{{{_below}}}'
_SUPERSCRIPTS = re.compile('[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+')
_SUBSCRIPTS = re.compile('[₀₁₂₃₄₅₆₇₈₉]+')
_SPECIAL = re.compile('[' + ''.join(_CHARACTERS) + ']')

_DROPPED = re.compile(
  r'\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|'
  r'mathstrut|strut|hfill|noindent|centering|bf|it|sf|tt|cal|bfseries|'
  r'rm(?!\s*\{)|small|normalsize|large|Large|huge|Huge)(?![a-zA-Z])\.?'
  r'|\\(?:phantom|hphantom|vphantom|hspace|vspace|label|tag)\*?\{[^{}]*\}'
)
_THOUSANDS = re.compile(
  r'(?<=\d)(?<!(?<!\d)0)(?:\s*\{\s*,\s*\}|,\s*\\!\s*|\\[,!:; ])(?=\d{3}(?!\d))'
)
_DECIMAL_COMMA = re.compile(r'(?<=\d)\s*\{,\s*\}\s*(?=\d)')
# LaTeX that was escaped once more, as in JSON: a row begins with no command.
_ESCAPED = re.compile(
  r'(?<!\\)\\\\(?:left|right|[dt]?frac|sqrt|boxed|text|begin)\s*[\\{(\[]'
)
# 1 234 567, but not the mixed number 1 234/567.
_SPACED = re.compile(r'(?<![\w.}\\])(?<![\w.}] )\d{1,3}(?: \d{3})+(?![\d/])')
_SPACES = re.compile(  # Some sets have `\quadx_2`, which TeX would refuse.
  r'\\(?:[,;:! >]|q?quad|(?:enspace|thinspace|thickspace)(?![a-zA-Z]))'
  r'|~|\s+'
)
_OVER = re.compile(r'\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}')
_WORDS = re.compile(
  r'\\(?:textbf|textit|textrm|textnormal|textsf|texttt|mbox|hbox|mathrm|rm|'
  r'operatorname\*?|text)\s*(?=\{)'
)
_OLD_WORDS = re.compile(r'\{\s*\\rm\s+([a-zA-Z. ]+)\}')
_ALL_TEXT = re.compile(r'\\text\{([^{}]*\d[^{}]*)\}')  # 80 percent.
_LEAD = re.compile(  # The area is 12.
  r'\\text\{(?![^{}]*\b(?:not|either|neither)\b)'
  r'[^{}]*(?:\b(?:is|are|equals)|[:=])\s*\}(?=.)'
)
_FONTS = re.compile(
  r'\\(?:mathbf|mathit|mathsf|mathcal|boldsymbol|bm|emph|underline|vec|'
  r'overrightarrow)\s*(?=[{\\a-zA-Z])'
)
_NAMES = {
  r'\dfrac': r'\frac', r'\tfrac': r'\frac', r'\cfrac': r'\frac',
  r'\leq': r'\le', r'\geq': r'\ge', r'\leqslant': r'\le', r'\geqslant': r'\ge',
  r'\lt': '<', r'\gt': '>', r'\neq': r'\ne', r'\varnothing': r'\emptyset',
  r'\dbinom': r'\binom', r'\tbinom': r'\binom', r'\lbrace': r'\{',
  r'\rbrace': r'\}', r'\lbrack': '[', r'\rbrack': ']', r'\lvert': '|',
  r'\rvert': '|', r'\vert': '|', r'\mid': '|', r'\ast': '*', r'\degree':
  r'^\circ ', r'\degrees': r'^\circ ', r'\varphi': r'\phi', r'\colon': ':',
  r'\pounds': '£', r'\euro': '€', r'\bmatrix': r'\matrix', r'\dots': r'\ldots',
  r'\cdots': r'\ldots', r'\lparen': '(', r'\rparen': ')', r'\bar': r'\overline',
  r'\R': r'\mathbb{R}', r'\reals': r'\mathbb{R}', r'\Reals': r'\mathbb{R}',
}  # fmt: skip
_DELIMITERS = re.compile(r'\\[()\[\]]|(?<=¶)\s*\[[\d.]+(?:pt|em|ex|mm|cm)\]')
_COMMAND = re.compile(r'\\[a-zA-Z]+')
_BRACE = re.compile(r'\\.|[{}]')
_CIRCLE = re.compile(r'\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*degrees?\s*\}')


def clean(answer: str) -> str:
  """Returns the answer in one notation; what differs may still be equal."""
  answer = _characters(answer)
  if answer.startswith('~'):
    answer = answer.replace('~', r'\approx ', 1)
  if _ESCAPED.search(answer):
    answer = answer.replace('\\\\', '\\')
  answer = answer.replace('\\\\', ROW).replace(r'\%', '%').replace(r'\#', '#')
  answer = _DELIMITERS.sub(' ', answer)
  answer = _dollars(answer.replace(r'\$', DOLLAR))
  answer = _COMMAND.sub(lambda m: _NAMES.get(m.group(), m.group()), answer)
  if r'\over' in answer:  # As TeX has it, for all that a group holds.
    answer = _OVER.sub(r'\\frac{\1}{\2}', f'{{{answer}}}')
  answer = _OLD_WORDS.sub(r'\\text{\1}', answer)
  answer = _DROPPED.sub(' ', answer)
  answer = _WORDS.sub(r'\\text', answer)
  answer = _FONTS.sub('', answer)
  answer = _DECIMAL_COMMA.sub('.', _THOUSANDS.sub('', answer))
  answer = _SPACES.sub(' ', answer)
  answer = _SPACED.sub(lambda m: m.group().replace(' ', ''), answer)
  answer = _CIRCLE.sub(r'^\\circ ', answer)
  answer = _ends(answer)
  if whole := _ALL_TEXT.fullmatch(answer):
    answer = _ends(whole.group(1))
  lead = _LEAD.match(answer)
  return _ends(answer[lead.end() :]) if lead else answer


def unescaped(reference: str) -> str:
  r"""Returns a reference with `\\\\le` as `\\le`: some sets are escaped twice.

  Outside of environments there are no rows to break.
  """
  if r'\begin' in reference:
    return reference
  return re.sub(r'(?<!\\)\\\\(?=[a-zA-Z])', r'\\', reference)


def group_end(text: str, start: int) -> int | None:
  """Returns where a group that begins with a brace ends, or None."""
  depth = 0
  for brace in _BRACE.finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return brace.end()
  return None


def _characters(answer: str) -> str:
  answer = _SUPERSCRIPTS.sub(r'^{\g<0>}', answer)  # NFKC lowers them, below.
  answer = _SUBSCRIPTS.sub(r'_{\g<0>}', answer)
  answer = _SPECIAL.sub(lambda m: _CHARACTERS[m.group()], answer)
  if answer.isascii() and answer.isprintable():
    return answer
  answer = unicodedata.normalize('NFKC', answer)
  answer = _SPECIAL.sub(lambda m: _CHARACTERS[m.group()], answer)
  return ''.join(
    ' ' if c.isspace() else c
    for c in answer
    if c.isspace() or not unicodedata.category(c).startswith('C')
  )


def _dollars(answer: str) -> str:
  """Drops the delimiters of mathematics; what remains is money."""
  if answer.count('$') % 2:
    answer = re.sub(r'\$(?=\s*[\d.-])', DOLLAR, answer, count=1)
  return answer.replace('$', ' ')


def _ends(answer: str) -> str:
  """Strips what closes a sentence, and outer braces and boxes."""
  for _ in range(_OUTER):
    before = answer
    answer = answer.strip().rstrip(',;:\\').strip()
    if answer.endswith('.') and not answer.endswith('..'):
      answer = answer[:-1].rstrip()
    answer = answer.removeprefix('**').removesuffix('**')
    inner = answer.removeprefix(r'\boxed')
    if inner.startswith('{') and group_end(inner, 0) == len(inner):
      answer = inner[1:-1]
    if answer == before:
      break
  return answer
