"""Memory of a training step beyond its state, by the compiler, and the cost of saving some."""

from experiments.performance import networks, timing

WAYS = {
  'remat': {'remat': True},
  'scan': {'scan': True},
  'scan and remat': {'scan': True, 'remat': True},
}


def case(name: str, ways):
  """The case of one network: options -> rows; 1 is the network that stores all activations."""

  def measure(options) -> list[dict]:
    peak, runs = {}, {}
    for way in ('plain', *ways):
      step, arguments = networks.training(name, **WAYS.get(way, {}))
      use = step.lower(*arguments).compile().memory_analysis()
      peak[way] = use.temp_size_in_bytes / networks.BATCH[name]
      runs[way] = networks.trainer(step, arguments)
    found, rows = timing.interleaved(runs, options.repeats), []
    for way in ways:
      title = f'{name} step, memory per image, {way} against plain'
      rows.append(timing.row(title, [peak['plain']], [peak[way]], 'MB', 1e-6))
      rows.append(timing.row(f'{name} step, {way} against plain', found['plain'], found[way]))
    return rows

  return measure


CASES = {
  'memory_vit_b': case('vit_b', ('remat', 'scan', 'scan and remat')),
  'memory_resnet50': case('resnet50', ('remat',)),
  'memory_cdcn': case('cdcn', ('remat',)),
}
