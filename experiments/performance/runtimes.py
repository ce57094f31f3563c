"""Exported files against PyTorch's own ONNX export of the same network, in the same runtime.

  python -m experiments.performance.runtimes --torch_python=torch_env/bin/python [--only=vit_b]
    [--threads=1] [--rounds=12] [--torch_onnx=FILE] [--out=runtimes.csv]

The networks of `networks.py` with random weights, and FlexModal's for three sensors (ViT-B as
`flexmodal`, `resnets`, `cdcns`); batch 1. A figure is the ratio of two times of the same round.
With one thread a time is the process's CPU time, which other load on the machine changes less; with
more it is the clock's. int8 is calibrated on noise: of its speed alone.
"""

import argparse
import csv
import pathlib
import subprocess
import tempfile
import time

import jax
import numpy as np

from experiments.performance import exports, networks, timing
from flexfas_jax.export import graph, onnx_int8
from flexfas_jax.export.formats import onnx, tflite

TORCH = pathlib.Path(__file__).with_name('torch_onnx.py')
# Networks of RGB alone, and the config whose `flexmodal` recipe has all three sensors.
THREE = {'flexmodal': 'vit_fusion', 'resnets': 'resnet_fusion', 'cdcns': 'cdcn_fusion'}
NETWORKS = ('vit_b', 'resnet50', 'cdcn', *THREE)


def graph_of(name: str):
  """The graph of RGB alone, or of all three sensors."""
  if name in THREE:
    trained = exports.build(THREE[name])
    return graph.build(trained.model, trained.variables, trained.model.modalities)
  model, variables = networks.build(name)
  return graph.build(model, jax.tree.map(np.asarray, variables), ('rgb',))


def inputs_of(one, seed: int) -> dict[str, np.ndarray]:
  """Noise for a graph, batch 1."""
  rng = np.random.default_rng(seed)
  return {x['name']: rng.standard_normal(x['shape']).astype(np.float32) for x in one.inputs(1)}


def onnx_run(content: bytes, threads: int):
  """A function without arguments that runs an ONNX file on noise."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.log_severity_level = threads, 3
  session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])
  rng = np.random.default_rng(0)
  given = {x.name: rng.standard_normal(x.shape).astype(np.float32) for x in session.get_inputs()}
  return lambda: session.run(None, given)


def tflite_run(content: bytes, given, threads: int):
  """A function without arguments that runs a TFLite file."""
  from ai_edge_litert.interpreter import Interpreter

  call = Interpreter(model_content=content, num_threads=threads).get_signature_runner()
  return lambda: call(**given)


def rested_seconds(function) -> float:
  """Seconds of one call, after a pause in which the threads of the last session stop spinning."""
  time.sleep(0.3)
  return timing.seconds(function)


def cpu_seconds(function) -> float:
  """CPU seconds of one call, of all threads of this process."""
  start = time.process_time()
  function()
  return time.process_time() - start


def measure(name: str, args) -> list[dict]:
  """The rows of one network."""
  import onnx as library

  one = graph_of(name)
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    start = time.process_time()
    onnx.write(one, None, folder)
    print(f'{name}: ONNX written in {time.process_time() - start:.1f} s of CPU time', flush=True)
    start = time.process_time()
    tflite.write(one, None, folder)
    print(f'{name}: TFLite written in {time.process_time() - start:.1f} s of CPU time', flush=True)
    peer = args.torch_onnx or folder / 'torch.onnx'
    if not args.torch_onnx:
      command = [args.torch_python, '-W', 'ignore', str(TORCH), name, str(peer)]
      subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    path = folder / f'{one.stem}.onnx'
    samples = [inputs_of(one, seed) for seed in range(4)]
    print(f'{name}: {len(library.load(path).graph.node)} nodes', flush=True)
    small = onnx_int8.quantize(library.load(path), samples)
    runs = {
      'onnx': onnx_run(path.read_bytes(), args.threads),
      'torch': onnx_run(peer.read_bytes(), args.threads),
      'onnx_int8': onnx_run(small, args.threads),
    }
    for precision in ('float32', 'int8'):
      content = (folder / f'{one.stem}_{precision}.tflite').read_bytes()
      runs[f'tflite_{precision}'] = tflite_run(content, samples[0], args.threads)
  clock = cpu_seconds if args.threads == 1 else rested_seconds
  times = timing.interleaved(runs, args.rounds, clock)
  threads = f'{args.threads} thread{"s" if args.threads > 1 else ""}'
  pairs = {
    "ONNX, PyTorch's export": ('torch', 'onnx'),
    'ONNX int8, float32': ('onnx', 'onnx_int8'),
    'TFLite float32, ONNX': ('onnx', 'tflite_float32'),
    'TFLite int8, float32': ('tflite_float32', 'tflite_int8'),
  }
  return [
    {'case': name, **timing.row(f'{figure}, {threads}', times[other], times[ours])}
    for figure, (other, ours) in pairs.items()
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--torch_python', default='python', help='an interpreter with PyTorch')
  parser.add_argument('--torch_onnx', type=pathlib.Path, help="PyTorch's file, with --only")
  parser.add_argument('--only', choices=NETWORKS)
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=12)
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args()
  if args.torch_onnx and not args.only:
    parser.error('--torch_onnx is the file of one network: give --only')
  rows = []
  for name in [args.only] if args.only else NETWORKS:
    rows += measure(name, args)
    for row in rows[-4:]:
      print('  '.join(f'{k} {v}' for k, v in row.items()), flush=True)
  if args.out:
    with args.out.open('w', newline='') as file:
      writer = csv.DictWriter(file, timing.COLUMNS, lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
