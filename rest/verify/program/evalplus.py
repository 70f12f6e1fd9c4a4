"""The helpers by which EvalPlus compares results, known by their words.

Stops: nothing by itself; a helper that is worded otherwise runs as a script.
Does not stop: the helper that asserts nothing is read as it was meant.
"""

import ast

_IS_FLOATS = """
def is_floats(x) -> bool:
  if isinstance(x, float):
    return True
  if isinstance(x, (list, tuple)):
    return all(isinstance(i, float) for i in x)
  if isinstance(x, np.ndarray):
    return x.dtype == np.float64 or x.dtype == np.float32
  return False
"""
_BY_VALUE = (
  """
def assertion(out, exp, atol):
  exact_match = out == exp
  if atol == 0 and is_floats(exp):
    atol = 1e-6
  if not exact_match and atol != 0:
    assert np.allclose(out, exp, rtol=1e-07, atol=atol)
  else:
    assert exact_match
""",
  """
def assertion(out, exp, atol):
  if atol == 0 and is_floats(exp):
    atol = 1e-6
  if out != exp and atol != 0:
    assert np.allclose(out, exp, rtol=1e-07, atol=atol)
  else:
    assert out == exp, f"out: {out}, exp: {exp}"
""",
)
# What this one finds it never asserts, as published.
_BY_FINDING = """
def assertion(out, exp, atol):
  if isinstance(out, bool):
    exact_match = out == exp
  else:
    exact_match = exp == (out is not None)
"""
_BY_SET = _BY_VALUE[1].replace(
  'if out', 'out = set(out)\n  exp = set(exp)\n  if out'
)


# By their tree: what they compare.
HELPERS = {
  ast.dump(ast.parse(text).body[0]): kind
  for text, kind in [
    (_IS_FLOATS, ''),
    *((text, 'value') for text in _BY_VALUE),
    (_BY_SET, 'set'),
    (_BY_FINDING, 'found'),
  ]
}
