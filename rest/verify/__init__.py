"""Verdicts on untrusted completions, reached in processes that can be killed.

with Pool(VerifyConfig(), ('math',)) as pool:
  pool.submit(Request('math', completion, gold='42')).result()
"""

from rest.config import VerifyConfig
from rest.verify.pool import Pool, Stats
from rest.verify.request import Request, make_request

__all__ = ['Pool', 'Request', 'Stats', 'VerifyConfig', 'make_request']
