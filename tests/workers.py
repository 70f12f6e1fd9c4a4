"""The processes of a pool, for tests that stop, kill or look into them."""

from rest.verify import Pool


def worker_pids(pool: Pool) -> list[int]:
  """Returns the process ids of the workers, each the leader of its group."""
  return [child.pid for child in list(pool._children.values())]
