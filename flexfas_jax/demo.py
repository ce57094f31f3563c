"""Serves a local web page to try a bundle: `python -m flexfas_jax.demo --help`."""

import argparse
import signal
import sys
import threading
import webbrowser

from flexfas_jax import command_line, errors
from flexfas_jax.errors import ConfigError

with errors.required_imports(__name__):
  from flexfas_jax import predict
  from flexfas_jax.prediction.page import backend, server

_DESCRIPTION = """\
Serves a web page on this computer (127.0.0.1). Drop images of a face (RGB, depth, infrared) or use
the webcam: the page shows the decision, the score against its threshold, and the effect of each
sensor. Nothing leaves the computer, and nothing is stored.

The model expects an image of a face, not of a room. With --crop=yunet --yunet=FILE the face is
detected; without it, drop cropped faces, and hold your face into the oval of the webcam."""

_EXAMPLES = ('bundle --open', 'bundle --crop=yunet --yunet=yunet.onnx --port=0')

_EXIT_CODES = {
  0: 'stopped by Ctrl-C or SIGTERM',
  2: 'wrong usage, or a library that is not installed',
  3: 'no such face detector',
  4: 'a bundle that is damaged, unsigned or of another version',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _serve, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('demo', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  parser.usage = '%(prog)s BUNDLE [--open] [option ...]'
  predict.add_model_options(parser)
  predict.add_image_options(parser)
  predict.add_decision_options(parser)
  predict.add_verification_options(parser)
  add = parser.add_argument_group('page').add_argument
  add('--open', action='store_true', help='open the page in the browser')
  add('--port', type=int, default=8008, help='0: any free port; default: %(default)s')
  add(
    '--request_timeout',
    metavar='S',
    type=float,
    default=server.REQUEST_TIMEOUT,
    help=f'seconds for a request to arrive, and for its turn; default: {server.REQUEST_TIMEOUT:g}',
  )
  return parser


def _serve(args: argparse.Namespace) -> None:
  if args.crop in ('box', 'landmarks'):
    raise ConfigError(f'--crop={args.crop}: the page cannot mark the face; use --crop=yunet')
  if not 0 <= args.port < 65536:
    raise ConfigError(f'--port={args.port} is not a port; --port=0 takes a free one')
  if not 0 < args.request_timeout <= 3600:
    raise ConfigError(f'--request_timeout={args.request_timeout:g}: expected up to 3600 seconds')
  predictor = predict.load(args)
  predictor.warm_up()
  made = server.make_server(backend.Backend(predictor), args.port, args.request_timeout, args.debug)
  with made as serving:
    # A handler, not KeyboardInterrupt: a shell ignores Ctrl-C for commands in the background, and
    # the exception could be raised in code that swallows it.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *_: stop.set())
    address = f'http://{server.HOST}:{serving.server_port}/'
    print(f'{predictor.card.name} ({predictor.entry["file"]}): {address}  Ctrl-C stops it.')
    sys.stdout.flush()
    if args.open:
      webbrowser.open(address)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    stop.wait()
    serving.shutdown()


if __name__ == '__main__':
  sys.exit(main())
