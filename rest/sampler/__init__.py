"""Prompts in, completions out: the sampler of the E-step and of evaluation.

A table on the device has Q slots, each for a problem or two, of R rows, each
for a sample. Its keys and values lie in three levels, and a row attends to one
sequence of each. Here are slots 0 and 1 of a table with R = 3 and I = 8:

  level 0: prefix   level 1: question buffers     level 2: suffixes
  +-------------+   +-------------------------+   +-----------------------+
  | one, which  |   | slot 0                  |   | row 0: entry 6  aaaaa |
  | all prompts |   |  buffer 0, 8 of 8 given |   | row 1: entry 7  aa    |
  | begin with  |   |  buffer 1, 1 of 5 given |   | row 2: entry 8  b     |
  |             |   +-------------------------+   +-----------------------+
  |             |   | slot 1                  |   | row 3: entry 2  cccc  |
  |             |   |  buffer 0, 4 of 4 given |   | row 4: entry 3  ccc   |
  |             |   |  buffer 1, empty        |   | row 5: idle           |
  +-------------+   +-------------------------+   +-----------------------+

An entry is a sample in its slot's two buffers: buffer * I + place, so that 8 is
place 0 of buffer 1. While the rows of slot 0 end the samples of buffer 0, those
that fall idle go on with buffer 1; once all of buffer 0 are done, the host
loads the next question there. The life of one sample:

  asked       `Ask`: a question, its random key, and which samples to draw
  waits       a `Draft` in an `Order`, which is cut from the ask to fit into a
              buffer; it is queued, then loaded (the question is prefilled)
  row         `claim`: an idle row takes the next entry of its slot
  drawn       a token a step, and some steps a call (`decode`)
  read back   the host files the call's tokens (`Scheduler.collect`), while the
              device is at work on the next call
  completion  at an end token, at a stop text or at the limit (`complete`); with
              the last draft of an order its buffer falls free

At the end of the list nothing is left to be loaded: then the table shrinks, and
what is left is shared out anew among its slots (`rearrange.py`). Where long
completions would take most of the memory, there are several tables one after
the other, and what a table has no room for goes on in the next (`size_tables`).

  sampler.py       weights, checks, a table that is kept for the next list
  drawing.py       the loop: load, decode, collect, rearrange
  scheduler.py     which question goes where, what came back
  order.py         asks, orders, drafts     queue.py      orders not yet loaded
  table.py         what the table holds     refill.py     what goes in and out
  placing.py       which buffers a load fills
  rearrange.py     what moves at the end    capacity.py   sizes, memory
  decode.py        a call                   prefill.py    a prefix, a load
  programs.py      what is compiled         ahead.py      before it is needed
  hand_over.py     the trainer's weights, as decoding has them
  attention.py     three levels as one      kernels/      the same, on NVIDIA
  token_choice.py  logits to a token        stops.py      stop strings
  stats.py         rows busy, device idle

Letters beside those of `rest.types` (arrays are named by them):

  B rows of the table (Q * R)         E question buffers of a slot (2)
  I places in a buffer's list of samples      W words of a random key (2)
  T tokens at work: of a prompt in prefill, the steps of a call, 1 within a step
  S keys of a level                   M queries that share their keys
  X prompts that are prefilled        Y buffers that are filled
  C candidates: the best tokens       Z end tokens of a model
  P groups that the vocabulary is cut into    U tokens of a group
"""

from rest.config import Decoding, SamplerConfig
from rest.sampler.capacity import Capacity
from rest.sampler.order import Ask
from rest.sampler.sampler import Sampler
from rest.sampler.stats import Stats

__all__ = [
  'Ask',
  'Capacity',
  'Decoding',
  'Sampler',
  'SamplerConfig',
  'Stats',
]
