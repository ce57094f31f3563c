"""SIGTERM: the machine is wanted back. The run saves at the end of its step, and ends.

Clouds and clusters send it before they take a machine: TPU VMs and Kubernetes 30 seconds before,
SLURM as many as `--signal` says.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils


def restore_default_sigterm() -> None:
  """Lets SIGTERM end the process, where there is nothing to save: with several, JAX's service would
  swallow it."""
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Preemption:
  """While it is entered, SIGTERM is remembered and does not kill.

  Several processes agree on the step after which they stop, also if one alone is told; then it is
  JAX's coordination service that listens.
  """

  def __init__(self):
    self._told, self._stopping, self._asked = threading.Event(), False, 0
    self._several = jax.process_count() > 1
    self._before = None

  def __enter__(self):
    if not self._several and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, lambda *_: self._told.set())
    return self

  def __exit__(self, *exception):
    if self._several:
      restore_default_sigterm()
    elif self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self) -> bool:
    """Whether to stop here; asked by all processes, after the same steps and batches, and True from
    then on."""
    self._asked += 1
    if self._several and not self._stopping:
      # JAX's service fixes a place that nobody has passed, as a count of these questions.
      self._stopping = multihost_utils.reached_preemption_sync_point(self._asked)
    elif not self._several:
      self._stopping = self._told.is_set()
    return self._stopping
