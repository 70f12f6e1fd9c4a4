"""Attention of a decoding step on NVIDIA GPUs: what runs in place of XLA."""

from rest.sampler.kernels.launch import Blocks, attend

__all__ = ['Blocks', 'attend']
