"""Limits the open connections of a server, and the bytes of content that they hold in memory.

At the limit, a new connection replaces the one that the server has waited for longest. A client
that holds many connections open therefore cannot lock out the user's page.
"""

import contextlib
import socket
import threading

_GRACE = 1.0  # seconds for an evicted connection to end


class Connections:
  """The open connections of a server.

  Args:
    limit: maximum number of connections.
    room: bytes of content that they may hold in memory together.
  """

  def __init__(self, limit: int, room: int):
    self._limit, self._room = limit, room
    self._open: set[socket.socket] = set()
    self._waiting: dict[socket.socket, None] = {}  # for a request; the longest waiting first
    self._evicted: set[socket.socket] = set()
    self._changed = threading.Condition()

  def admit(self, connection: socket.socket) -> bool:
    """Adds a new connection; False if all others are being answered."""
    with self._changed:
      if len(self._open) >= self._limit:
        self._evict()
        if not self._changed.wait_for(lambda: len(self._open) < self._limit, _GRACE):
          return False
      self._open.add(connection)
      self._waiting[connection] = None
      return True

  def leave(self, connection: socket.socket) -> None:
    """Removes a connection that ends."""
    with self._changed:
      self._open.discard(connection)
      self._waiting.pop(connection, None)
      self._evicted.discard(connection)
      self._changed.notify_all()

  def set_waiting(self, connection: socket.socket) -> None:
    """Marks a connection as waiting for the client; it may be evicted."""
    with self._changed:
      self._waiting.pop(connection, None)
      self._waiting[connection] = None

  def set_working(self, connection: socket.socket) -> None:
    """Marks a connection whose request has arrived; it stays until it is answered."""
    with self._changed:
      self._waiting.pop(connection, None)

  def is_evicted(self, connection: socket.socket) -> bool:
    """Whether the connection was ended in favour of a new one."""
    with self._changed:
      return connection in self._evicted

  def reserve(self, size: int) -> bool:
    """Reserves `size` bytes for content; False if they are not available."""
    with self._changed:
      if size > self._room:
        return False
      self._room -= size
      return True

  def free(self, size: int) -> None:
    """Releases `size` bytes."""
    with self._changed:
      self._room += size

  def _evict(self) -> None:
    """Ends the longest waiting connection: its reader gets the end of the input."""
    for connection in self._waiting:
      del self._waiting[connection]
      self._evicted.add(connection)
      with contextlib.suppress(OSError):  # the client has closed it
        connection.shutdown(socket.SHUT_RD)
      return
