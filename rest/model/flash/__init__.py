"""Attention of packed rows on NVIDIA GPUs, in Pallas.

`rest.model.attention` is the reference, and what runs on other devices.
"""

from rest.model.flash.blocks import Blocks, Cut
from rest.model.flash.vjp import KEPT, flash_attention, has_kernel

__all__ = ['KEPT', 'Blocks', 'Cut', 'flash_attention', 'has_kernel']
