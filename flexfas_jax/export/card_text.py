"""`CARD.md`: the card, to be read."""

from typing import Any


def text(card: dict[str, Any]) -> str:
  """Markdown of a card."""
  parts = [
    f'# {card["name"]}\n\nTells bona fide faces from presentation attacks, from '
    f'{", ".join(card["modalities"])} or what of them is there. A score is the probability of bona '
    'fide; a face is accepted when it reaches the threshold of the sensors that were there.',
    '\n'.join(f'**{line}**' for line in card['remarks']),
    '## Models\n\n' + _models(card['models']),
    'Differences are from the checkpoint in float32, in the logit (float32 files are within 1e-4 '
    'in the score): the largest over fixed, random and masked inputs, one by one and in a batch, '
    'and over the val set under every subset. The loss is in ACER on val, at the thresholds below: '
    'the worst subset.',
    '## Thresholds\n\n' + _thresholds(card),
    '## Inputs\n\n' + _inputs(card),
    '## Preprocessing\n\n' + '\n'.join(f'{i}. {s}' for i, s in enumerate(card['preprocessing'], 1)),
    'The pictures in `samples/`, with the hashes of what becomes of them and the scores that are '
    'due, say whether it was done right.',
    '## How good it is\n\n' + _metrics(card['metrics'], card['data']['rules']),
    '## Where it comes from\n\n' + _origin(card),
  ]
  return '\n\n'.join(p for p in parts if p) + '\n'


def summary(card: dict[str, Any]) -> str:
  """The models in lines, for a terminal."""
  lines = []
  for one in card['models']:
    told, loss = one['parity'], _loss(one)
    apart = max(told['difference'].values())
    cost = '' if loss is None or one['precision'] == 'float32' else f', ACER {100 * loss:+.2f} %'
    lines.append(f'{one["file"]}: {one["bytes"] / 1e6:.2f} MB, differs by {apart:.1e}{cost}')
  return '\n'.join(lines)


def _loss(entry: dict[str, Any]) -> float | None:
  losses = [of['acer_loss'] for of in entry['parity']['val'].values() if 'acer_loss' in of]
  return max(losses) if losses else None


def _table(names: list[str], rows: list[list[str]]) -> str:
  lines = [names, ['---'] * len(names), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _models(entries) -> str:
  rows = []
  for one in entries:
    of_val = one['parity']['val'].values()
    loss = _loss(one)
    rows.append(
      [
        f'`{one["file"]}`',
        one['precision'],
        ', '.join(i['name'] for i in one['inputs']),
        f'{one["bytes"] / 1e6:.2f}',
        f'{max(one["parity"]["difference"].values()):.1e}',
        f'{sum(v["changed_decisions"] for v in of_val)} of {sum(v["n"] for v in of_val)}',
        'unknown' if loss is None else f'{100 * loss:+.2f}',
      ]
    )
  names = ['file', 'precision', 'inputs', 'MB', 'difference', 'decisions changed', 'ACER loss, %']
  return _table(names, rows)


def _thresholds(card) -> str:
  rows = []
  for name in card['subsets']:
    one = card['thresholds'].get(name)
    if one is None:
      rows.append([name, 'none: refused', *[''] * 5])
      continue
    counts = [f'{of["scores"]} ({of["subjects"]})' for of in one['counts'].values()]
    fitted_on = f'{one["val"]} ({one["n"]})'
    rows.append(
      [name, f'{one["value"]:.6f}', one['rule'], fitted_on, *counts, one['list_hash'][:12]]
    )
  classes = [f'{name} scores (subjects)' for name in ('attack', 'bona fide')]
  names = ['sensors', 'threshold', 'rule', 'fitted on (samples)', *classes, 'list']
  least = card['evidence']
  return (
    f'{_table(names, rows)}\n\nA subset has a threshold if each class has at least '
    f'{least["min_scores"]} scores of {least["min_subjects"]} subjects on val, in which all its '
    'modalities carry signal. With any other subset, prediction is refused.'
  )


def _inputs(card) -> str:
  rows = [
    [
      name,
      f'[B, {one["size"]}, {one["size"]}, {one["channels"]}] {one["dtype"]}',
      f'[{one["range"][0]:.4f}, {one["range"][1]:.4f}]',
      ' or '.join(f'{b} bits' for b in one['bits']) + (f', {one["unit"]}' if 'unit' in one else ''),
    ]
    for name, one in card['inputs'].items()
  ]
  M = len(card['modalities'])
  rows.append(['present', f'[B, {M}] bool', '', ', '.join(card['modalities'])])
  return _table(['name', 'array', 'range', 'pictures'], rows)


def _metrics(metrics, rules) -> str:
  parts = []
  for test, subsets in metrics.items():
    rows = [
      [
        name,
        *(_rate(of, m) for m in ('acer', 'apcer_max', 'apcer', 'bpcer')),
        f'{of.get("n_attack")} / {of.get("n_bona_fide")}',
      ]
      for name, of in subsets.items()
    ]
    names = ['sensors', 'ACER', 'APCER, worst species', 'APCER', 'BPCER', 'attacks / bona fide']
    parts.append(
      f'`{test}`, threshold {rules.get(test, "?")}, in percent:\n\n{_table(names, rows)}'
    )
  if any('intervals' in of for subsets in metrics.values() for of in subsets.values()):
    parts.append('In brackets: 95 % intervals over people (bootstrap), or over samples.')
  return '\n\n'.join(parts)


def _rate(of, name: str) -> str:
  if of.get(name) is None:
    return ''
  interval = of.get('intervals', {}).get(name, {})
  span = interval.get('bootstrap') or interval.get('clopper_pearson')
  within = f' [{100 * span[0]:.1f}, {100 * span[1]:.1f}]' if span else ''
  return f'{100 * of[name]:.1f}{within}'


def _origin(card) -> str:
  data = card['data']
  lines = [
    f'- training data: {data["train"]}',
    f'- chosen and thresholds fitted on: {data["val"]}',
    *(f'- tested on, as `{name}`: {of}' for name, of in data['test'].items()),
    f'- licence: {card["licence"]}',
    f'- weights: step {card["step"]}, SHA-256 `{card["weights_hash"]}`',
    f'- made {card["made"]} by flexfas_jax {card["version"]}; '
    + ', '.join(f'{name} {version}' for name, version in card['libraries'].items()),
    f'- absent modalities: {card["absent"]}; what was trained, under `model` in card.json',
    f'- sequence number: {card["sequence"]}; a later export has a larger one',
    '- hashes of all files: card.json; its signature, where it was signed: card.json.sig',
  ]
  return '\n'.join(lines)
