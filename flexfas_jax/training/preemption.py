"""Preemption: after SIGTERM a run finishes its step, saves and ends.

Clouds and clusters send SIGTERM before they take a machine back: TPU VMs and Kubernetes 30 seconds
before, SLURM as long before as `--signal` states.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils


def restore_default_sigterm() -> None:
  """Lets SIGTERM end the process, for code that has nothing to save.

  With several processes, JAX's coordination service would otherwise intercept it.
  """
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Preemption:
  """A context in which SIGTERM is recorded instead of ending the process.

  Several processes agree on the step to stop after, even if only one gets the signal; JAX's
  coordination service then handles it.
  """

  def __init__(self):
    self._signalled, self._stopping, self._calls = threading.Event(), False, 0
    self._is_distributed = jax.process_count() > 1
    self._old_handler = None

  def __enter__(self):
    if not self._is_distributed and threading.current_thread() is threading.main_thread():
      self._old_handler = signal.signal(signal.SIGTERM, lambda *_: self._signalled.set())
    return self

  def __exit__(self, *exception):
    if self._is_distributed:
      restore_default_sigterm()
    elif self._old_handler is not None:
      signal.signal(signal.SIGTERM, self._old_handler)

  def reached(self) -> bool:
    """Whether to stop now; once True, it stays True.

    All processes call it after the same steps and batches.
    """
    self._calls += 1
    if self._is_distributed and not self._stopping:
      # JAX's service picks a number of calls that no process has exceeded.
      self._stopping = multihost_utils.reached_preemption_sync_point(self._calls)
    elif not self._is_distributed:
      self._stopping = self._signalled.is_set()
    return self._stopping
