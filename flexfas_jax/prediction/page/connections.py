"""At most so many connections at a time, and so many bytes of content, from all clients.

When all are taken, the connection that has kept the server waiting for longest gives way to the new
one. So a client that holds many connections open cannot lock the user's own page out.
"""

import contextlib
import socket
import threading

_GRACE = 1.0  # seconds within which a connection that gives way ends


class Connections:
  """The open connections of a server.

  Args:
    limit: how many there may be.
    room: bytes of content that all of them may hold in memory.
  """

  def __init__(self, limit: int, room: int):
    self._limit, self._room = limit, room
    self._open: set[socket.socket] = set()
    self._waiting: dict[socket.socket, None] = {}  # for a request; the longest first
    self._evicted: set[socket.socket] = set()
    self._changed = threading.Condition()

  def admit(self, connection: socket.socket) -> bool:
    """Takes a new connection in; False: all are busy with answers."""
    with self._changed:
      if len(self._open) >= self._limit:
        self._evict()
        if not self._changed.wait_for(lambda: len(self._open) < self._limit, _GRACE):
          return False
      self._open.add(connection)
      self._waiting[connection] = None
      return True

  def leave(self, connection: socket.socket) -> None:
    """The connection ends."""
    with self._changed:
      self._open.discard(connection)
      self._waiting.pop(connection, None)
      self._evicted.discard(connection)
      self._changed.notify_all()

  def waits(self, connection: socket.socket) -> None:
    """The server waits for what the client sends: from now on the connection may have to go."""
    with self._changed:
      self._waiting.pop(connection, None)
      self._waiting[connection] = None

  def works(self, connection: socket.socket) -> None:
    """The request has arrived: the connection stays until it has its answer."""
    with self._changed:
      self._waiting.pop(connection, None)

  def gave_way(self, connection: socket.socket) -> bool:
    """Whether the connection was ended for a new one."""
    with self._changed:
      return connection in self._evicted

  def reserve(self, size: int) -> bool:
    """Takes `size` bytes of the room for content; False: there are no more."""
    with self._changed:
      if size > self._room:
        return False
      self._room -= size
      return True

  def free(self, size: int) -> None:
    """Gives `size` bytes back."""
    with self._changed:
      self._room += size

  def _evict(self) -> None:
    """Ends the longest waiting connection: its reader finds the end."""
    for connection in self._waiting:
      del self._waiting[connection]
      self._evicted.add(connection)
      with contextlib.suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RD)
      return
