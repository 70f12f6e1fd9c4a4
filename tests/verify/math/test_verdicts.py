"""The math verifier: labelled cases, whole problem sets, hostile texts."""

import collections
import gzip
import json
import os
import pathlib
import random
import re
import time
from collections.abc import Callable

import pytest
from workers import worker_pids

from rest.verify import Pool, Request, VerifyConfig, math
from rest.verify.math import (
  answer,
  assertion,
  clean,
  conclusion,
  revision,
  words,
)

_DATA = pathlib.Path(__file__).parents[2] / 'data'
_SETS = os.environ.get('REST_DATA', '')
_needs_sets = pytest.mark.skipif(not _SETS, reason='REST_DATA is not set')

_CASES: dict[str, list[dict]] = collections.defaultdict(list)
for _line in (_DATA / 'math_cases.jsonl').read_text().splitlines():
  _case = json.loads(_line)
  _CASES[_case['kind']].append(_case)

# What keeps graders busy for minutes and gigabytes, or ends them.
_COSTLY = (
  '10^{10^{10^{10}}}',
  '99999999!',
  '(10^9)!',
  '((9!)!)!',
  '9^{9^{9^9}}',
  '2^{2^{40}}',
  '9**9**9**9',
  r'\binom{10^8}{5\cdot10^7}',
  '10^{10^9}',
  '(a+b+c+d+e)^{40}-(a+b+c+d)^{40}',
  r'\int_0^1 x^x dx',
  r'\sum_{n=1}^{100000000} n',
  '(' * 1000 + 'x' + ')' * 1000,
  r'\frac{1}{' * 300 + 'x' + '}' * 300,
  r'\sin' * 100 + ' x',
  r'\sqrt{' + '7' * 4000 + '}',
  r'\ln(100000000!)',
  '+'.join(f'x_{{{i}}}' for i in range(1000)),
  r'\cup'.join(f'({i},{i + 1})' for i in range(0, 400, 2)),
  '+'.join(f'|x-{i}|' for i in range(40)),
  r'(\frac{1+\sqrt5}{2})^{100000}',
  r'x^{50}+x^{49}+1=0',
  ','.join(map(str, range(5000))),
  r'\begin{pmatrix}' + r'1&2\\' * 3000 + r'\end{pmatrix}',
  r'\sin(10^{10^{6}})',
  r'e^{e^{e^{e^{e}}}}',
  '0.' + '3' * 100_000,
  '!' * 5000,
  '-' * 50_000 + '1',
  '2^' * 5000 + '2',
)
_TEXTS = (
  '"123 "' * 7500,
  r'\[' * 20000,
  'final answer is ' * 5000,
  'answer is ' * 10000,
  r'\boxed{' * 20000,
  '#### ' * 20000,
  '#### 1' + ' ' * 19_900 + 'x',
  'The answer is' + ' ' * 10_000 + '$1' + '\n' * 9_000 + 'x$.',
  'the answer is $' * 8000,
  '7' * 100_000,
  '=' * 100_000,
  '$' * 100_000,
  'answer ' + 'a' * 100_000,
  'answer ' + ' is' * 30_000,
  '\u202e21\u200b\u0000\ud800',
  '{' * 20000,
  r'\text{' * 20000,
  'answer: ' + '**' * 50_000,
  r'\boxed{' + '{' * 9000 + '}' * 9000 + '}',
)


@pytest.mark.parametrize('kind', _CASES)
def test_labelled_cases_are_judged_as_labelled(kind):
  wrong = [
    case
    for case in _CASES[kind]
    if math.is_equivalent(case['gold'], case['prediction']) != case['equal']
  ]
  assert not wrong


def test_equality_has_no_direction():
  wrong = [
    (case['gold'], case['prediction'])
    for case in _CASES_WITHOUT_TEXTS
    if (math.judge(case['prediction'], case['gold']).reward == 1)
    != case['equal']
  ]
  assert not wrong


_CASES_WITHOUT_TEXTS = [
  case
  for kind, cases in _CASES.items()
  if kind not in ('extraction', 'hostile', 'choice')
  for case in cases
  if math.extract(case['prediction']) == case['prediction'] != '{}'
]


def test_hostile_texts_are_wrong_and_need_no_kill():
  texts = [*(rf'\boxed{{{text}}}' for text in _COSTLY), *_TEXTS]
  with Pool(VerifyConfig(workers=1), ('math',)) as pool:
    verdicts = [
      (gold, text, pool.submit(Request('math', text, gold)))
      for gold in ('12', 'x+1', '(1,2)', r'[0,1)\cup(2,3)')
      for text in texts
    ]
    for gold, text, verdict in verdicts:
      assert verdict.result().reward == 0, (gold, text[:60])
    (worker,) = worker_pids(pool)
    status = pathlib.Path(f'/proc/{worker}/status').read_text()
    assert pool.stats.killed == 0
  peak = re.search(r'VmHWM:\s*(\d+) kB', status)
  assert peak and int(peak.group(1)) < 256 << 10


@pytest.mark.parametrize('text', _TEXTS, ids=lambda text: text[:12])
def test_a_claim_is_found_in_linear_time(text):
  start = time.process_time()  # Of this process: there, nothing can be killed.
  math.extract(text)
  assert time.process_time() - start < 2


# Each is a beginning of something that is read: a mark, a remark, a correction.
_REPEATED = (
  ' ', '\n', '\t\n', '.', '. ', ', ', '$', '$ ', '$$', r'\[', r'\(', '(', '{',
  '}', r'\{', r'\\', '*', '**', '_', '#', '####', '#### ', '<', '<<',
  '<answer>', '<think>', '</think>', '<|', '~~', '~~ ', '=', '= ', '-', '--',
  '!', '?', '7', '7 ', '7,', '7.', '7/', '1,234', '-7', '$7$', r'\boxed',
  r'\boxed{', r'\boxed{7}', r'\boxed{7} or ', r'\text{', r'\frac', r'\begin{',
  r'\end{align}', 'a', 'a ', 'is ', "n't ", 'not ', 'no ', 'no, ', 'so ',
  'if ', 'that ', 'who ', 'and ', 'answer', 'answer ', 'answer: ',
  'answer is ', 'the answer is 7. ', 'answers ', 'final answer is 7 ',
  'the answer is not 7. ', 'I think ', 'they say that ', 'Therefore ',
  'Therefore, x is 7. ', 'wait ', 'Wait, ', '. But this ', 'sorry ',
  'sorry  ', 'I made a ', 'on re', 'let me re', 'Correction: ', 'Or 7. ',
  'apples ', 'in total ', 'for all 3 ', 'dollars and ', '7 apples ',
  r'7\text{ cm}', 'x=7,', r'\approx 7', '{,}', ' {,} ', r'\left', r'\\left(',
  '\u00a0', '\u2019', 'so so zz ', 'and so ',
)  # fmt: skip
_LONG = 20_000  # Characters; a quadratic pass takes seconds for them.


def _seconds(read: Callable[[str], object], text: str) -> float:
  """Returns the least CPU time of three readings."""
  found = []
  for _ in range(3):
    start = time.process_time()
    read(text)
    found.append(time.process_time() - start)
  return min(found)


@pytest.mark.parametrize(
  'read',
  (
    lambda text: answer._last_claim(text),
    lambda text: conclusion.conclusion(text),
    lambda text: revision.without_struck(text),
    lambda text: revision.taken_back(text, 0),
    lambda text: assertion.is_asserted(text + ' z ', len(text) + 3),
    lambda text: words.without_remark('7 ' + text),
    clean.unescaped,
  ),
)
def test_reading_doubles_with_the_length_of_a_text(read):
  slow = []
  for part in _REPEATED:
    text = part * (_LONG // len(part))
    short, long = _seconds(read, text[: _LONG // 4]), _seconds(read, text)
    if long > 8 * short + 0.03:  # Four times is linear, sixteen quadratic.
      slow.append((part, short, long))
  assert not slow


def test_answers_are_cleaned_and_compared_in_bounded_time():
  for part in _REPEATED:
    text = part * (math._LENGTH // len(part))
    start = time.process_time()
    clean.clean(text)
    math.judge('7', text)
    math.judge(text, '7')
    assert time.process_time() - start < 0.5, part


def test_text_is_never_executed(tmp_path):
  mark = tmp_path / 'executed'
  calls = f"__import__('pathlib').Path('{mark}').touch()"
  for form in ('{}', r'\text{{{}}}', '[{}]', r'\pi {}', 'x={}', '({},{})'):
    for text in (calls, calls.replace('_', r'\_')):
      filled = form.replace('{}', text).replace('{{', '{').replace('}}', '}')
      for gold in ('12', r'\begin{pmatrix}1\\2\end{pmatrix}'):
        assert not math.is_equivalent(gold, rf'\boxed{{{filled}}}')
  assert not mark.exists()


@pytest.mark.parametrize(
  'gold', ['', ' ', r'\boxed{}', r'It is \boxed{3', '{}']
)
def test_a_reference_without_an_answer_is_unknown(gold):
  assert math.judge(gold, '3').reward is None


_FRAGMENTS = (
  r'\frac \sqrt { } ( ) [ ] \{ \} ^ _ ! | / \pm \cup \in = < \le \infty & , ;'
  r' : \begin{pmatrix} \end{pmatrix} \\ \text{ and or \log \sin \binom i e x 0'
  r' 7 1.5 1e9999 % $ \overline{3} 0. _2 a.m. ^\circ \lfloor \rfloor \ne - +'
  r' \setminus \mathbb{R} \pi \cdot U cm \boxed{ \langle \rangle 10^{99} 9999'
  ' \ud800 \u0663 \u00b2 \u00b6 \u00a4 \u200b'
)


def test_mangled_answers_raise_nothing():
  draw = random.Random(0)
  fragments = _FRAGMENTS.split()
  answers = [case['gold'] for case in _CASES_WITHOUT_TEXTS]
  for _ in range(4000):
    text = draw.choice(answers)
    for _ in range(draw.randint(1, 5)):
      i = draw.randint(0, len(text))
      text = text[:i] + draw.choice(fragments) + text[i + draw.randint(0, 2) :]
    math.judge(draw.choice(answers), text)
    math.judge(text, draw.choice(answers))


def test_verdicts_name_their_verifier_and_reason():
  verdict = math.judge('3', '4')
  assert (verdict.reward, verdict.verifier) == (0.0, math.VERSION)
  assert verdict.reason == 'different'


def test_what_is_behind_the_last_claim_does_not_change_it():
  remarks = (
    'So the answer is correct.',
    'Since 3 + 4 = 7, the answer is a prime number.',
    'Note that 15 is not possible.',
    'The answer is in simplest form.',
    'The answer may be obtained in other ways.',
    'So the answer is not negative.',
  )
  for claim in (r'\boxed{7}', '#### 7\n', 'The answer is 7. '):
    for remark in remarks:
      assert math.extract(f'{claim} {remark}') == '7', (claim, remark)


def _read(path: str) -> list[dict]:
  opened = gzip.open if path.endswith('.gz') else open
  with opened(f'{_SETS}/{path}', 'rt') as lines:
    return [json.loads(line) for line in lines]


def _last_box(solution: str) -> str:
  """A second reading of MATH's convention, to compare the extractor with."""
  start = max(solution.rfind(r'\boxed'), solution.rfind(r'\fbox'))
  opening = re.compile(r'\\(?:boxed|fbox)\s*').match(solution, start)
  assert opening
  if solution[opening.end()] != '{':
    return solution[opening.end()]
  depth = 0
  for i in range(opening.end(), len(solution)):
    depth += {'{': 1, '}': -1}.get(solution[i], 0)
    if not depth:
      return solution[opening.end() + 1 : i]
  raise AssertionError(solution)


@_needs_sets
def test_every_gsm8k_reference_equals_itself():
  records = _read('gsm8k/train.jsonl') + _read('gsm8k/test.jsonl')
  assert len(records) == 8792
  for record in records:
    solution = record['answer']
    answer = math.extract(solution)
    assert answer is not None
    gold = solution.split('####')[1].strip()
    for reference in (gold, gold.replace(',', ''), solution):
      assert math.judge(reference, answer).reward == 1, solution[-60:]


@_needs_sets
def test_claims_are_found_behind_any_real_reasoning():
  forms = (
    '{text}\nThe answer is {gold}.',
    '{text} So the answer is {gold}.',
    '{text} Therefore, the final answer is **{gold}**.',
    '{text} We conclude that the answer is ${gold}$.',
    '{text} The answer is {gold}, in total.',
    '{text}\n\n**Answer:** {gold}',
    '{text} Hence, $x = {gold}$ and the answer is $\\boxed{{{gold}}}$.',
    '{text} Thus we get \\boxed{{{gold}}}.\n\nI hope this helps!',
  )
  for record in _read('gsm8k/test.jsonl'):
    text, gold = re.sub('<<.*?>>', '', record['answer']).split('\n#### ')
    for form in forms:
      sample = form.format(text=text.rstrip('.') + '.', gold=gold)
      assert math.is_equivalent(gold, sample), sample[-200:]


@_needs_sets
def test_every_math_reference_equals_itself():
  records = _read('math/train.jsonl.gz') + _read('math/test.jsonl.gz')
  assert len(records) == 12_500
  unequal, differs = [], []
  for record in records:
    answer = math.extract(record['solution'])
    name = record['unique_id'].removesuffix('.json')
    if not answer or math.judge(record['solution'], answer).reward != 1:
      unequal.append(name)
    elif math.judge(_last_box(record['solution']), answer).reward != 1:
      differs.append(name)
  # Their boxes are empty.
  assert unequal == ['train/number_theory/7115', 'train/number_theory/7117']
  # Boxes between which nothing decides are one claim, which the last alone is
  # not: otherwise '[12] or [15]' would be right whenever either is.
  assert len(differs) == 20


@_needs_sets
def test_different_references_of_a_subject_are_different():
  answers = collections.defaultdict(set)
  for record in _read('math/train.jsonl.gz') + _read('math/test.jsonl.gz'):
    answers[record['type']].add(_last_box(record['solution']))
  draw = random.Random(0)
  groups = [sorted(group - {''}) for _, group in sorted(answers.items())]
  equal = []
  for i in range(7_000):
    gold, answer = draw.sample(groups[i % len(groups)], 2)
    if math.judge(gold, answer).reward != 0:
      equal.append((gold, answer))
  # One value each, with and without its unit.
  assert equal == [('3', r'3\text{ boxes}'), ('44', r'44\%')]
