"""Prompts in, completions out: the sampler of the E-step and of evaluation."""

from rest.config import SamplerConfig
from rest.sampler.capacity import Capacity
from rest.sampler.order import Ask
from rest.sampler.sampler import Sampler
from rest.sampler.stats import Stats

__all__ = ['Ask', 'Capacity', 'Sampler', 'SamplerConfig', 'Stats']
