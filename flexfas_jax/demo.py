"""A local page to try a bundle on: `python -m flexfas_jax.demo --help`."""

import argparse
import signal
import sys
import threading
import webbrowser
from pathlib import Path

from flexfas_jax import errors
from flexfas_jax.errors import ConfigError, exit_code_of

with errors.required_imports(__name__):
  from flexfas_jax.predict import add_model_arguments, load, refuse_repeated
  from flexfas_jax.prediction.page import answers, server

_HELP = """\
Serves a page on this computer (127.0.0.1) where one drops pictures of a face, in RGB, depth and
infrared, or takes the webcam's, and sees the decision, the score against its threshold, and what
each sensor changes. Nothing leaves the computer, and nothing is kept.

Models look at faces, not at rooms: with --crop=yunet --yunet=FILE the face is found; without, drop
crops, and hold your face into the square before the webcam."""


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_args(argv)
  return exit_code_of(lambda: _serve(args), args.debug)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.demo',
    description=_HELP,
    epilog='exit codes: 0 ended by Ctrl-C or SIGTERM; 2 wrong usage, a library not installed; 3 no '
    'such detector; 4 a bundle that is damaged, unsigned or from another version',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  refuse_repeated(parser)
  add = parser.add_argument
  add('bundle', metavar='BUNDLE', type=Path, help='a folder that --mode=export made')
  add('--port', type=int, default=8008, help='default: 8008; 0: any that is free')
  add('--request_timeout', metavar='S', type=float, default=server.PATIENCE, help='seconds for a '
      f'request to arrive, and for its turn; default: {server.PATIENCE:g}')  # fmt: skip
  add('--open', action='store_true', help='open it in the browser')
  add_model_arguments(parser.add_argument_group('how').add_argument)
  add('--debug', action='store_true', help='show the traceback of an error')
  return parser


def _serve(args: argparse.Namespace) -> None:
  if args.crop in ('box', 'landmarks'):
    raise ConfigError(f'--crop={args.crop}: the page has no way to tell where the face is')
  if not 0 <= args.port < 65536:
    raise ConfigError(f'--port={args.port} is none; --port=0 takes one that is free')
  if not 0 < args.request_timeout <= 3600:
    raise ConfigError(f'--request_timeout={args.request_timeout:g}: give seconds, up to 3600')
  predictor = load(args)
  predictor.warm_up()
  made = server.make(answers.Answers(predictor), args.port, args.request_timeout, args.debug)
  with made as serving:
    # Not by KeyboardInterrupt, which can be raised where nothing passes it on; and also where a
    # shell started it in the background, which has Ctrl-C ignored.
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *_: ended.set())
    address = f'http://{server.HOST}:{serving.server_port}/'
    print(f'{predictor.card.name} ({predictor.entry["file"]}): {address}  Ctrl-C ends it.')
    sys.stdout.flush()
    if args.open:
      webbrowser.open(address)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    ended.wait()
    serving.shutdown()


if __name__ == '__main__':
  sys.exit(main())
