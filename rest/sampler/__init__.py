"""Prompts in, completions out: the sampler of the E-step and of evaluation."""

from rest.sampler.plan import Plan, SamplerConfig
from rest.sampler.sampler import Sampler, Stats
from rest.sampler.scheduler import Ask

__all__ = ['Ask', 'Plan', 'Sampler', 'SamplerConfig', 'Stats']
