"""The E-step: draw, judge, choose; and evaluation, which draws alike."""
