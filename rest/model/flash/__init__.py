"""Attention of packed rows on NVIDIA GPUs, in Triton.

`rest.model.attention` is the reference, and what runs on other devices.
"""

from rest.model.flash.blocks import Blocks, Cut
from rest.model.flash.vjp import flash_attention

__all__ = ['Blocks', 'Cut', 'flash_attention']
