"""Renders a card as `CARD.md`."""

from typing import Any

from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.report import formatting

_RATES = ('apcer_max', 'bpcer', 'acer', 'apcer')


_USE = """\
**Intended**: to detect presentation attacks on images of one cropped face, from the sensors under
Inputs, by those who control these sensors.

**Not intended**: to decide about an individual without a right of appeal; identification;
surveillance. A score is about the presentation, not about whose face it is."""


def render(card: dict[str, Any]) -> str:
  """Markdown of a card, in the terms of the report: first what limits it, and the verdict."""
  parts = [
    f'# {card["name"]}',
    '\n>\n'.join(f'> **{line}**' for line in card['notes']),
    'Distinguishes bona fide faces from presentation attacks, from '
    f'{", ".join(card["modalities"])} or the subset of them that a device has. A score is the '
    'probability of bona fide; a face is accepted when its score reaches the threshold of the '
    'sensors that were present.',
    '## Verdict\n\n' + _verdicts(card['metrics']),
    '## Intended use\n\n' + _USE,
    '## Limits\n\n' + _limits(card),
    '## Results\n\n' + _metrics(card['metrics'], card['data']['rules']),
    '## Thresholds\n\n' + _thresholds(card),
    '## Models\n\n' + _models(card['models']),
    'Differences are from the checkpoint in float32, in the logit (float32 files are within 1e-4 '
    'in the score): the largest over fixed, random and masked inputs, one by one and in a batch, '
    'and over the val set under every subset. The loss is in ACER on val, in percentage points, at '
    'the thresholds above: the worst subset.',
    '## Inputs\n\n' + _inputs(card),
    '## Preprocessing\n\n' + '\n'.join(f'{i}. {s}' for i, s in enumerate(card['preprocessing'], 1)),
    'To check another implementation, use the images in `samples/`: `samples.json` has the hashes '
    'of the preprocessed arrays and the expected scores.',
    '## Origin\n\n' + _origin(card),
  ]
  return '\n\n'.join(p for p in parts if p) + '\n'


def _verdicts(metrics) -> str:
  """PASS or FAIL of each test, and the subsets that do not meet the requirement."""
  lines = []
  for test, subsets in metrics.items():
    stated = {name: of['pass_if'] for name, of in subsets.items() if 'pass_if' in of}
    if not stated:
      lines.append(f'- `{test}`: {formatting.NO_REQUIREMENT}')
      continue
    failed = [name for name, of in stated.items() if not of['passed']]
    word = formatting.FAIL if failed else formatting.PASS
    why = f'; not met by {", ".join(failed)}' if failed else ''
    requirement = next(iter(stated.values()))['requirement']
    lines.append(f'- `{test}`: **{word}** (`{requirement}`{why})')
  return '\n'.join(lines) or formatting.NO_REQUIREMENT


def _limits(card) -> str:
  """What the bundle does not do, and what its tests did not show."""
  refused = [name for name in card['subsets'] if name not in card['thresholds']]
  lines = [
    'An image that enters behind the sensor (a replayed depth or infrared stream) is not detected.',
    'A sensor that is given but unusable is a failure to acquire, and not accepted, unless the '
    'caller allows that sensor to be absent.',
    'The results are of one training run and of the species below; attacks of another species, '
    'camera or population were not tested.',
  ]
  if refused:
    lines.append(f'No threshold, so that prediction is refused: {", ".join(refused)}.')
  for test, subsets in card['metrics'].items():
    recorded = [name for name, values in subsets.items() if not values.get('not_recorded')]
    if lacking := {m for values in subsets.values() for m in values.get('not_recorded', ())}:
      lines.append(f'No sample of `{test}` has {" or ".join(sorted(lacking))}: not tested with it.')
    name = max(recorded, key=lambda name: name.count('+'), default=None)
    if species := _species(subsets[name]) if name else '':
      lines.append(f'PAI species of `{test}`, APCER under {name}: {species}.')
  return '\n'.join(f'- {line}' for line in lines)


def _species(values) -> str:
  """'paper 0.0 % of 30, ...', the largest APCER first."""
  found = []
  for key, rate in values.items():
    if not key.startswith('apcer_species/') or rate is None:
      continue
    n = values.get('intervals', {}).get(key, {}).get('n')
    text = _rate(values, key, brackets=False)
    of = f' of {n}' if n else ''
    sign = '' if text == formatting.TOO_SMALL else ' %'
    found.append((-rate, f'{key.removeprefix("apcer_species/")} {text}{sign}{of}'))
  return ', '.join(text for _, text in sorted(found))


def summarise(card: dict[str, Any]) -> str:
  """One line for each model, for a terminal."""
  lines = []
  for model in card['models']:
    loss = _acer_loss(model)
    difference = max(model['parity']['difference'].values())
    cost = (
      '' if loss is None or model['precision'] == 'float32' else f', ACER {100 * loss:+.2f} points'
    )
    size = model['bytes'] / 1e6
    lines.append(f'{model["file"]}: {size:.2f} MB, differs by {difference:.1e}{cost}')
  return '\n'.join(lines)


def _acer_loss(model: dict[str, Any]) -> float | None:
  """The largest over the subsets; None if no subset has a threshold."""
  losses = [v['acer_loss'] for v in model['parity']['val'].values() if 'acer_loss' in v]
  return max(losses) if losses else None


def _table(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _models(models) -> str:
  rows = []
  for model in models:
    val = model['parity']['val'].values()
    loss = _acer_loss(model)
    rows.append(
      [
        f'`{model["file"]}`',
        model['precision'],
        ', '.join(i['name'] for i in model['inputs']),
        f'{model["bytes"] / 1e6:.2f}',
        f'{max(model["parity"]["difference"].values()):.1e}',
        f'{sum(v["changed_decisions"] for v in val)} of {sum(v["n"] for v in val)}',
        'unknown' if loss is None else f'{100 * loss:+.2f}',
      ]
    )
  header = ['file', 'precision', 'inputs', 'MB', 'difference', 'decisions changed']
  return _table([*header, 'ACER loss, points'], rows)


def _thresholds(card) -> str:
  header = ['subset', 'threshold', 'rule', 'fitted on (samples)']
  header += [f'{label} scores (subjects)' for label in ('attack', 'bona fide')]
  header += ['list']
  rows = []
  for name in card['subsets']:
    threshold = card['thresholds'].get(name)
    if threshold is None:
      rows.append([name, 'none: refused', *[''] * (len(header) - 2)])
      continue
    row = [name, f'{threshold["value"]:.6f}', threshold['rule']]
    row += [f'{threshold["val"]} ({threshold["n"]})']
    row += [f'{n["scores"]} ({n["subjects"]})' for n in threshold['counts'].values()]
    rows.append([*row, threshold['list_hash'][:12]])
  minimum = card['evidence']
  return (
    f'{_table(header, rows)}\n\nA subset has a threshold if each class has at least '
    f'{minimum["min_scores"]} scores of {minimum["min_subjects"]} subjects on val, in which all '
    'its modalities carry signal. With any other subset, prediction is refused.'
  )


def _inputs(card) -> str:
  rows = []
  for name, one in card['inputs'].items():
    bits = ' or '.join(f'{b} bits' for b in one['bits'])
    rows.append(
      [
        name,
        f'[B, {one["size"]}, {one["size"]}, {one["channels"]}] {one["dtype"]}',
        f'[{one["range"][0]:.4f}, {one["range"][1]:.4f}]',
        f'{bits}, {one["unit"]}' if 'unit' in one else bits,
      ]
    )
  M = len(card['modalities'])
  rows.append(['present', f'[B, {M}] bool', '', ', '.join(card['modalities'])])
  return _table(['name', 'array', 'range', 'images'], rows)


def _metrics(metrics, rules) -> str:
  parts = []
  for test, subsets in metrics.items():
    stated = any('pass_if' in values for values in subsets.values())
    rows = [
      [
        f'{name} ({formatting.NOT_RECORDED})' if values.get('not_recorded') else name,
        *(_rate(values, m) for m in _RATES),
        f'{values.get("n_bona_fide")} / {values.get("n_attack")}',
        *([_word(values.get('pass_if'))] if stated else []),
      ]
      for name, values in subsets.items()
    ]
    header = ['subset', *(formatting.metric(name) for name in _RATES), 'bona fide / attacks']
    table = _table(header + ['verdict'] * stated, rows)
    parts.append(f'`{test}`, threshold {rules.get(test, "?")}, in percent:\n\n{table}')
  if any('intervals' in values for subsets in metrics.values() for values in subsets.values()):
    parts.append('In brackets: 95 % intervals, bootstrapped over subjects, or over samples.')
  return '\n\n'.join(parts)


def _word(stated) -> str:
  if stated is None:
    return ''
  return formatting.PASS if stated['passed'] else formatting.FAIL


def _rate(values, name: str, brackets: bool = True) -> str:
  if values.get(name) is None:
    return ''
  found = values.get('intervals', {}).get(name, {})
  if found.get('insufficient_samples'):
    return formatting.TOO_SMALL
  limits = found.get('bootstrap') or found.get('clopper_pearson')
  span = formatting.span(Interval(*limits)) if limits and brackets else ''
  return f'{formatting.percent(values[name])} {span}'.rstrip()


def _origin(card) -> str:
  data = card['data']
  lines = [
    f'- training data: {data["train"]}',
    f'- step chosen and thresholds fitted on: {data["val"]}',
    *(f'- tested on, as `{name}`: {selection}' for name, selection in data['test'].items()),
    f'- licence: {card["licence"]}',
    f'- weights: step {card["step"]}, SHA-256 `{card["weights_hash"]}`',
    f'- made {card["made"]} by flexfas_jax {card["version"]}; '
    + ', '.join(f'{name} {version}' for name, version in card['libraries'].items()),
    f'- absent modalities: {card["absent"]}; the architecture: `model` in card.json',
    f'- sequence number: {card["sequence"]}; a later export has a larger one',
    '- hashes of all files: card.json; its signature, if there is one: card.json.sig',
  ]
  return '\n'.join(lines)
