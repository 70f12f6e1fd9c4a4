"""An object store, asked directly: by paths, it would take more requests.

A path is written in two requests and read in up to three, and its folder is
listed from memory, which does not know what other processes wrote since.
"""

from etils import epath


def write(path: epath.PathLike, data: bytes) -> None:
  """Writes an object, whole or not at all."""
  from fsspec.core import url_to_fs  # Comes with the extra 'gcs'.

  store, name = url_to_fs(str(path))
  store.pipe_file(name, data)


def read(path: epath.PathLike) -> bytes:
  """Returns what is in an object."""
  from fsspec.core import url_to_fs

  store, name = url_to_fs(str(path))
  return store.cat_file(name)


def names(folder: epath.PathLike) -> list[str]:
  """Returns the names in a folder; none where it is not there."""
  from fsspec.core import url_to_fs

  store, name = url_to_fs(str(folder))
  store.invalidate_cache(name)
  try:
    return [found.rpartition('/')[2] for found in store.ls(name, detail=False)]
  except FileNotFoundError:
    return []
