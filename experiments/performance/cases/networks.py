"""Training steps and inference of full-size networks, compared with PyTorch's fastest form."""

import contextlib
import statistics

from experiments.performance import networks, timing
from experiments.performance.torch_process import torch_process

WAYS = {  # {network: {form of PyTorch's network: its title}}
  'resnet50': {'stock': 'stock'},
  'cdcn': {'stock': 'as published', 'folded': 'kernel folded'},
  'vit_b': {'stock': 'stock', 'onednn': 'oneDNN'},
}


def case(name: str):
  """The case of one network: options -> rows."""

  def measure(options) -> list[dict]:
    ours, rows = networks.runs(name), []
    with contextlib.ExitStack() as stack:
      sides = {
        way: stack.enter_context(torch_process(options.torch_python, name, way, options.threads))
        for way in WAYS[name]
      }
      for what in ours:
        # PyTorch's process measures itself, so that the pipe does not count.
        runs = {'ours': (timing.seconds, ours[what])}
        runs |= {way: (measure_torch, what) for way, measure_torch in sides.items()}
        found = timing.interleaved(runs, options.repeats, lambda pair: pair[0](pair[1]))
        title = {'train': 'training step', 'infer': 'inference'}[what]
        best = min(sides, key=lambda way: statistics.median(found[way]))
        for way in sides:
          note = ', its best' if way == best and len(sides) > 1 else ''
          figure = f'{name} {title}, PyTorch {WAYS[name][way]}{note}'
          rows.append(timing.row(figure, found[way], found['ours']))
    return rows

  measure.needs_torch = True
  return measure


CASES = {name: case(name) for name in networks.BACKBONE}
