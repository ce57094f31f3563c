"""The card's Markdown: limits and verdict first, in the terms of the report."""

from flexfas_jax.export import card_markdown


def rates(passed, few=False):
  of = {'n': 20 if few else 200, 'insufficient_samples': few, 'bootstrap': [0.01, 0.09]}
  stated = {} if passed is None else {'requirement': 'bpcer<=3%', 'passed': passed, 'checks': []}
  return {
    'acer': 0.05,
    'apcer_max': 0.1,
    'apcer_species/paper': 0.1,
    'apcer_species/mask': 0.5,
    'n_bona_fide': 100,
    'n_attack': 200,
    'intervals': {'acer': of, 'apcer_max': of, 'apcer_species/paper': of},
    **({'pass_if': stated} if stated else {}),
  }


def card(metrics):
  counts = {label: {'scores': 60, 'subjects': 20} for label in ('attack', 'bona_fide')}
  threshold = {'value': 0.4, 'rule': 'dev_eer', 'val': 'a:val', 'n': 120, 'counts': counts}
  return {
    'name': 'door',
    'notes': ['Trained on RENDERED faces', 'A leak was accepted'],
    'modalities': ['rgb', 'ir'],
    'subsets': ['rgb', 'rgb+ir'],
    'metrics': metrics,
    'thresholds': {'rgb': {**threshold, 'list_hash': 'f' * 64}},
    'evidence': {'min_scores': 30, 'min_subjects': 10},
    'models': [],
    'inputs': {},
    'preprocessing': ['Decode'],
    'data': {'rules': {'x': 'dev_eer'}, 'train': 'a', 'val': 'b', 'test': {}},
    'licence': 'Apache-2.0',
    'step': 3,
    'weights_hash': 'w',
    'made': '2026-11-29',
    'version': '0',
    'libraries': {},
    'absent': 'token',
    'sequence': 1,
  }


def test_what_is_not_recorded_is_stated():
  lacking = {'acer': None, 'n_bona_fide': 100, 'n_attack': 200, 'not_recorded': ['ir']}
  text = card_markdown.render(card({'x': {'rgb': rates(None), 'rgb+ir': lacking}}))
  assert '| rgb+ir (not recorded) |  |  |  |  | 100 / 200 |' in text
  assert '- No sample of `x` has ir: not tested with it.' in text
  assert 'APCER under rgb: mask 50.0 %' in text


def test_a_loss_is_in_percentage_points():
  val = {'rgb': {'n': 200, 'changed_decisions': 3, 'acer': 0.06, 'acer_loss': 0.0125}}
  int8 = {
    'file': 'model_int8.onnx',
    'precision': 'int8',
    'inputs': [],
    'bytes': 2_000_000,
    'parity': {'difference': {'val': 0.02}, 'val': val},
  }
  found = card({}) | {'models': [int8]}
  assert card_markdown.summarise(found) == (
    'model_int8.onnx: 2.00 MB, differs by 2.0e-02, ACER +1.25 points'
  )
  text = card_markdown.render(found)
  assert '| decisions changed | ACER loss, points |' in text and '| 3 of 200 | +1.25 |' in text


def test_limits_and_verdict_come_first():
  text = card_markdown.render(card({'x': {'rgb': rates(True), 'rgb+ir': rates(False, few=True)}}))
  assert text.startswith(
    '# door\n\n> **Trained on RENDERED faces**\n>\n> **A leak was accepted**\n\nDistinguishes'
  )
  assert '- `x`: **FAIL** (`bpcer<=3%`; not met by rgb+ir)' in text
  assert '- No threshold, so that prediction is refused: rgb+ir.' in text
  # The largest APCER first, of the subset with most sensors; too few samples state none.
  assert 'APCER under rgb+ir: mask 50.0 %, paper n too small of 20.' in text
  assert '| rgb | 10.0 [1.0, 9.0] |  | 5.0 [1.0, 9.0] |  | 100 / 200 | PASS |' in text
  assert '| rgb+ir | n too small |  | n too small |' in text
  for heading in ('Intended use', 'Limits', 'Thresholds', 'Origin'):
    assert f'\n## {heading}\n' in text
  assert '| rgb | 0.400000 | dev_eer | a:val (120) | 60 (20) | 60 (20) |' in text


def test_without_a_requirement():
  text = card_markdown.render(card({'x': {'rgb': rates(None)}}))
  assert '- `x`: no requirement given' in text and '| verdict |' not in text
  assert 'no requirement given' in card_markdown.render(card({}))
