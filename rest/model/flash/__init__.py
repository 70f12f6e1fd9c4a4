"""Attention of packed rows on NVIDIA GPUs, in Pallas.

`rest/attention.py` is the reference, and what runs on other devices.
"""

from rest.model.flash.attention import KEPT, flash_attention, has_kernel
from rest.model.flash.kernels import Blocks, Cut

__all__ = ['KEPT', 'Blocks', 'Cut', 'flash_attention', 'has_kernel']
