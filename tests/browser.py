"""A real browser that tests drive: Chromium, over the pipe of its DevTools protocol."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
_PATIENCE = 60


class Browser:
  """One page in a headless Chromium; a context manager."""

  def __init__(self, folder, *arguments):
    (read, their_write), (their_read, write) = os.pipe(), os.pipe()
    # The protocol's pipes are 3 and 4 there, whatever numbers they have here.
    shell = f'exec "$@" 3<&{their_read} 4>&{their_write}'
    command = [
      'bash', '-c', shell, 'bash', CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
      '--no-first-run', '--disable-dev-shm-usage', '--remote-debugging-pipe',
      f'--user-data-dir={folder}', *arguments, 'about:blank',
    ]  # fmt: skip
    self._process = subprocess.Popen(
      command, pass_fds=(their_read, their_write),
      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_read)
    os.close(their_write)
    self._in, self._out, self._rest = write, read, b''
    self._numbers, self._session = itertools.count(1), None
    self.console = []  # errors and warnings of the page
    target = next(t for t in self.call('Target.getTargets')['targetInfos'] if t['type'] == 'page')[
      'targetId'
    ]
    attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'DOM'):
      self.call(f'{domain}.enable')

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._process.kill()
    self._process.wait()
    os.close(self._in)
    os.close(self._out)

  def call(self, method, **parameters):
    """What a method of the protocol answers."""
    number = next(self._numbers)
    asked = {'id': number, 'method': method, 'params': parameters}
    if self._session:
      asked['sessionId'] = self._session
    os.write(self._in, json.dumps(asked).encode() + b'\0')
    while True:
      message = self._next()
      if message.get('id') == number:
        assert 'error' not in message, message
        return message['result']
      event, what = message.get('method'), message.get('params', {})
      if event == 'Log.entryAdded' and what['entry']['level'] in ('error', 'warning'):
        self.console.append(what['entry']['text'])
      if event == 'Runtime.exceptionThrown':
        self.console.append(what['exceptionDetails']['exception']['description'])

  def _next(self):
    while b'\0' not in self._rest:
      ready, _, _ = select.select([self._out], [], [], _PATIENCE)
      part = os.read(self._out, 1 << 20) if ready else b''
      assert part, 'the browser has nothing to say'
      self._rest += part
    message, _, self._rest = self._rest.partition(b'\0')
    return json.loads(message)

  def open(self, address):
    self.call('Page.navigate', url=address)
    self.until('document.documentElement?.dataset.ready == "yes"')

  def run(self, script):
    """The value of a script, awaited."""
    found = self.call(
      'Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True, userGesture=True
    )
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def until(self, script):
    """Waits for a script to be true."""
    end = time.monotonic() + _PATIENCE
    while not self.run(script):
      assert time.monotonic() < end, script
      time.sleep(0.05)

  def choose(self, selector, path):
    """Chooses a file, as a user does in the dialogue."""
    root = self.call('DOM.getDocument')['root']['nodeId']
    node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
    self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

  def look(self, width, height, dark=False, phone=False):
    """Sets the size of the window, and day or night."""
    self.call(
      'Emulation.setDeviceMetricsOverride', width=width, height=height,
      deviceScaleFactor=1, mobile=phone,
    )  # fmt: skip
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    self.call('Emulation.setEmulatedMedia', features=[scheme])

  def picture(self):
    """The page as a PNG."""
    shot = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
    return base64.b64decode(shot['data'])
