"""SIGTERM: the machine is wanted back. The run saves at the end of its step, and ends.

Clouds and clusters send it before they take a machine: TPU VMs and Kubernetes 30 seconds before,
SLURM as many as `--signal` says.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
  """While it is entered, SIGTERM is remembered and does not kill.

  Several processes agree on the step after which they stop, also if one alone is told; then it is
  JAX's coordination service that listens.
  """

  def __init__(self):
    self._told = threading.Event()
    self._several = jax.process_count() > 1
    self._before = None

  def __enter__(self):
    if not self._several and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, lambda *_: self._told.set())
    return self

  def __exit__(self, *exception):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; asked by all processes, once or more at each step."""
    if self._several:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._told.is_set()

  def told(self) -> bool:
    """Whether this process, alone, may stop now; always False with several."""
    return not self._several and self._told.is_set()
