"""A network's training step and inference on this machine's GPU, compared with PyTorch's.

  python -m experiments.performance.gpu vit_b|resnet50|cdcn --torch_python=PATH

RGB alone, bfloat16 (PyTorch: autocast, channels last, stock and with torch.compile), SGD. Both
alternate, ten steps at a time; a ratio compares the same round. Memory is the allocator's peak
since the process started; inference runs first. ViT-B has `fused_attention`. New rows replace
earlier ones in gpu.csv.
"""

import argparse
import contextlib
import os
import pathlib
import sys

from experiments.performance import results, timing
from experiments.performance.torch_process import torch_process
from flexfas_jax.errors import ConfigError, exit_code_of

HERE = pathlib.Path(__file__).parent
IMAGES = {'vit_b': 128, 'resnet50': 256, 'cdcn': 32}  # of a batch
WAYS = {'vit_b': 'stock', 'resnet50': 'stock', 'cdcn': 'folded'}
TURNS = 10
TITLE = {'train': 'training step', 'infer': 'inference'}
KEY = ('network', 'what', 'device', 'pytorch')
COLUMNS = (
  *KEY,
  *('images', 'ratio', 'low', 'high', 'repeats'),
  *('images_per_second', 'theirs', 'GiB', 'theirs_GiB'),
)


def measure(name: str, options, device) -> list[dict]:
  """Rows with `COLUMNS`, one for each task and each form of PyTorch."""
  from experiments.performance import networks

  B, rows = IMAGES[name], []
  fused = {'fused_attention': True} if name == 'vit_b' and not options.plain_attention else {}
  ours = networks.runs(name, TURNS, B, dtype='bfloat16', **fused)
  with contextlib.ExitStack() as stack:
    sides = {}
    for way in (WAYS[name], f'{WAYS[name]}+compiled') if options.torch_python else ():
      side = torch_process(options.torch_python, name, way, options.threads, B, TURNS)
      sides[way] = stack.enter_context(side)
    for what in ('infer', 'train'):
      runs = {'ours': (timing.seconds, ours[what])}
      runs |= {way: (ask, what) for way, ask in sides.items()}
      found = timing.interleaved(runs, options.repeats, lambda pair: pair[0](pair[1]))
      gib = device.memory_stats()['peak_bytes_in_use'] / 2**30
      for way in sides or ('',):
        row = timing.row(what, found[way or 'ours'], found['ours'], scale=1)
        rows.append(
          {
            'network': name,
            'what': TITLE[what],
            'device': device.device_kind,
            'pytorch': way,
            'images': B,
            'repeats': row['repeats'],
            **{k: row[k] if way else '' for k in ('ratio', 'low', 'high')},
            'images_per_second': f'{TURNS * B / float(row["ours"]):.0f}',
            'theirs': f'{TURNS * B / float(row["other"]):.0f}' if way else '',
            'GiB': f'{gib:.2f}',
            'theirs_GiB': f'{sides[way]("memory") / 2**30:.2f}' if way else '',
          }
        )
  return rows


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.performance.gpu',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('network', choices=IMAGES)
  parser.add_argument('--repeats', type=int, default=5, help='rounds that count (5)')
  parser.add_argument('--torch_python', default='', metavar='PATH', help='interpreter with PyTorch')
  parser.add_argument('--plain_attention', action='store_true', help='without fused_attention')
  parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument('--out', type=pathlib.Path, default=HERE / 'gpu.csv')
  parser.add_argument('--debug', action='store_true', help='tracebacks instead of messages')
  options = parser.parse_args()

  def command():
    # Leave memory for PyTorch's processes, and let the allocator report what it uses.
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
    import jax

    device = jax.devices()[0]
    if device.platform != 'gpu':
      raise ConfigError(f'no GPU: jax found {device.device_kind}; install the extra `cuda`')
    rows = measure(options.network, options, device)
    results.replace(options.out, rows, COLUMNS, KEY)
    for row in rows:
      print('  '.join(f'{k} {v}' for k, v in row.items()), flush=True)

  return exit_code_of(command, options.debug)


if __name__ == '__main__':
  sys.exit(main())
