"""Processes that run a module of this project without the seconds of importing JAX.

One process for each worker of pytest imports the libraries, starts nothing of JAX, and forks for
each process that a test starts. A fork gets the arguments, environment, folder and pipes that
`python -m` would get, and its exit code is reported.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).parents[1]
IMPORTED = (
  *('cv2', 'flax.linen', 'grain', 'jax', 'optax', 'orbax.checkpoint', 'scipy.special'),
  *('tensorboardX', 'tensorflow_datasets', 'ml_collections.config_flags'),
)
_READ_AT_IMPORT = ('JAX_', 'PYTHON', 'ENABLE_PJRT', 'CUDA_')
_SIZE = 1 << 20  # of a request, at most


def _at_import(environment):
  names = {name for name in environment if name.startswith(_READ_AT_IMPORT)} - {'PYTHONPATH'}
  return {name: environment[name] for name in names}


@functools.cache
def environment():
  """Of the process that forks: what the libraries read when they are imported."""
  return _at_import(os.environ)


class Process:
  """What subprocess.Popen gives, as far as tests use it; the texts of its pipes are str."""

  def __init__(self, module, arguments, cwd, env, **pipes):
    self.args = [sys.executable, '-m', module, *map(str, arguments)]
    self.returncode = None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = []
    for name, descriptor in (('stdin', 0), ('stdout', 1), ('stderr', 2)):
      setattr(self, name, None)
      if pipes.get(name) == subprocess.PIPE:
        reader, writer = os.pipe()
        mine, descriptor = (writer, reader) if name == 'stdin' else (reader, writer)
        setattr(self, name, os.fdopen(mine, 'w' if name == 'stdin' else 'r', encoding='utf-8'))
        given.append(descriptor)
      pipes[name] = descriptor
    descriptors = [theirs.fileno(), pipes['stdin'], pipes['stdout'], pipes['stderr']]
    request = {'args': self.args[2:], 'cwd': str(cwd), 'env': dict(env)}
    socket.send_fds(_template(), [json.dumps(request).encode()], descriptors)
    theirs.close()
    for descriptor in given:
      os.close(descriptor)
    self._answers = ours
    self.pid = int(ours.recv(100))

  def poll(self):
    try:
      return self.wait(0)
    except subprocess.TimeoutExpired:
      return None

  def wait(self, timeout=None):
    if self.returncode is None:
      self._answers.settimeout(timeout)
      try:
        self.returncode = int(self._answers.recv(100))
      except (TimeoutError, BlockingIOError):
        raise subprocess.TimeoutExpired(self.args, timeout) from None
      self._answers.close()
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self.pid, number)

  def terminate(self):
    self.send_signal(signal.SIGTERM)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    """(stdout, stderr), after its end."""
    found = {}
    pipes = {name: getattr(self, name) for name in ('stdout', 'stderr') if getattr(self, name)}

    def read(name, pipe):
      with pipe:
        found[name] = pipe.read()

    readers = [threading.Thread(target=read, args=item, daemon=True) for item in pipes.items()]
    for reader in readers:
      reader.start()
    if self.stdin:
      self.stdin.close()
    self.wait(timeout)
    for reader in readers:
      reader.join()
    return found.get('stdout'), found.get('stderr')


def start(module, *arguments, cwd=ROOT, env=None, **pipes):
  """Starts `python -m module arguments`; `pipes` are those of Popen, or none.

  It is no fork where `env` has other values than the libraries read when they were imported.
  """
  env = {**os.environ} if env is None else env
  if _at_import(env) != environment():
    command = [sys.executable, '-m', module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, **pipes)
  return Process(module, arguments, cwd, env, **pipes)


def run(module, *arguments, timeout=300, **more):
  """Its subprocess.CompletedProcess, with the texts of both pipes."""
  process = start(module, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
  try:
    stdout, stderr = process.communicate(timeout=timeout)
  except BaseException:
    process.kill()
    raise
  return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@functools.cache
def _template():
  """The socket that takes requests, until this process ends."""
  ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  others = {k: v for k, v in os.environ.items() if not k.startswith(_READ_AT_IMPORT)}
  process = subprocess.Popen(
    [sys.executable, __file__, str(theirs.fileno())],
    cwd=ROOT,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    pass_fds=[theirs.fileno()],
    start_new_session=True,
    # Threads do not survive a fork.
    env={**others, **environment(), 'OPENBLAS_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
  )
  theirs.close()

  @atexit.register
  def end():
    ours.close()
    process.wait()

  return ours


def _serve(requests):
  """Returns in a new process for each request, with its arguments."""
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a waiting process ends by itself
  while True:
    data, descriptors, *_ = socket.recv_fds(requests, _SIZE, 4)
    if not data:
      os._exit(0)
    if os.fork():
      for descriptor in descriptors:
        os.close(descriptor)
      continue
    # This process waits, and reports the exit code of the one that it forks.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.close()
    answers = socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid:
      for descriptor in descriptors[1:]:
        os.close(descriptor)
      answers.send(str(pid).encode())
      answers.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
      os._exit(0)
    answers.close()
    for number, descriptor in enumerate(descriptors[1:]):
      os.dup2(descriptor, number)
      os.close(descriptor)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, 'w')
    sys.stderr = os.fdopen(2, 'w', buffering=1, errors='backslashreplace')
    request = json.loads(data)
    os.environ.clear()
    os.environ.update(request['env'])
    os.chdir(request['cwd'])
    return request['args']


if __name__ == '__main__':
  import importlib
  import warnings

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for name in IMPORTED:
      importlib.import_module(name)
  gc.freeze()  # no process visits, and thereby copies, what all of them share
  module, *arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
  sys.argv = [module, *arguments]
  # As `-m` makes it: the folder, and what the environment names; not that of this process.
  given = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
  sys.path[:2] = [os.getcwd(), *given]
  runpy.run_module(module, run_name='__main__', alter_sys=True)
