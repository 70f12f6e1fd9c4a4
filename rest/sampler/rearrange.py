"""Which samples go to which slot when the table is rearranged."""

import bisect

from rest.sampler.order import Draft, Order, Owners
from rest.sampler.table import BUFFERS, TableShape

_Buffer = tuple[int, int]  # A slot, and one of its buffers.
_Item = tuple[_Buffer, Order]  # A buffer that holds its question, and an order.


def share_out(
  owners: Owners, old: range, new: range, shape: TableShape
) -> list[tuple[_Buffer, _Buffer, Order]] | None:
  """Returns what goes where: the new buffer, the old one, and the order.

  What is left of an ask, in however many slots, is put together first. A slot
  gets the smallest of these, and then as much of the largest as there is room
  for. So slots are filled to the last row, if asks are no more than slots.
  Where they are more, the second is one that fits as it is.

  Args:
    owners: Of all buffers.
    old: Slots whose samples are shared out.
    new: Slots that they go to.
    shape: Of the new table.

  Returns:
    None where they do not fit.
  """
  items = _by_ask(owners, old)
  share = max(shape.rows, -(-sum(map(_size, items)) // len(new)))
  placed = []
  for slot in new:
    samples, rows = share, shape.rows
    for buffer in range(BUFFERS):
      if not items or not samples:
        break
      at = -1 if buffer else 0
      is_crowded = len(items) >= new.stop - slot
      if buffer and is_crowded and _size(items[0]) <= samples:
        at = bisect.bisect_right(items, samples, key=_size) - 1
      where, order = items.pop(at)
      part, rest = _split(order, min(samples, shape.samples), rows)
      if rest.left:
        bisect.insort(items, (where, rest), key=_size)
      if not part.left:
        break
      placed.append(((slot, buffer), where, part))
      samples -= part.left
      rows -= part.begun
  return None if items else placed


def _by_ask(owners: Owners, slots: range) -> list[_Item]:
  """Returns what is left of each ask, by size."""
  found: dict[int, tuple[_Buffer, Order, list[Draft]]] = {}
  for slot in slots:
    for buffer, order in enumerate(owners[slot]):
      if order:
        at = found.setdefault(order.index, ((slot, buffer), order, []))
        at[2].extend(draft for draft in order.drafts if not draft.is_done)
  for _, _, drafts in found.values():
    drafts.sort(key=lambda draft: not draft.tokens)  # What has begun first.
  items = [(at, _order(order, drafts)) for at, order, drafts in found.values()]
  return sorted(items, key=_size)


def _size(item: _Item) -> int:
  return item[1].left


def _split(order: Order, samples: int, rows: int) -> tuple[Order, Order]:
  """Returns a part of an order, and the rest of it.

  Args:
    order: Its drafts that have begun come first; none is done.
    samples: Most drafts of the part.
    rows: Most of them that have begun: each needs a row.
  """
  begun = min(order.begun, rows, samples)
  waiting = min(order.waiting, samples - begun)
  first, then = order.drafts[: order.begun], order.drafts[order.begun :]
  return (
    _order(order, first[:begun] + then[:waiting]),
    _order(order, first[begun:] + then[waiting:]),
  )


def _order(order: Order, drafts: list[Draft]) -> Order:
  """Returns an order of some of an ask's drafts, none of which is done."""
  waiting = sum(not draft.tokens for draft in drafts)
  return Order(order.index, order.ask, drafts, len(drafts), waiting)
