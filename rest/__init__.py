"""ReST-EM: self-training of language models on their own verified solutions.

The reference implementation of 'Beyond Human Data: Scaling Self-Training for
Problem-Solving with Language Models' (Singh et al., arXiv:2312.06585).
"""

__version__ = '0.1.0'
