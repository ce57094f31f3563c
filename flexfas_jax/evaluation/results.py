"""The figures of a set of scores under every subset of modalities.

Results are {subset: {metric: value}}, fractions throughout. The names of the metrics are those of
`results.json` and of `python -m flexfas_jax.score --json`; `metrics.METRICS` defines them.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np

from flexfas_jax import identity
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import grouping, metrics, scales, score_files, thresholds, unusable

Results = dict[str, dict[str, float]]
Kinds = tuple[metrics.Groups | None, metrics.Groups | None]  # categories, PAI species
# Keys of results that every table and report states.
ORACLE, RENDERED = MARKS = 'ORACLE', 'RENDERED'
NO_THRESHOLD = 'no_threshold'  # key of a subset whose scores the bundle has no threshold for
NOT_RECORDED = 'not_recorded'  # key of a subset with such modalities: their names


def compute(
  scores: score_files.Scores,
  rule: str | None = None,
  dev: score_files.Scores | None = None,
  oracle: bool = False,
  kinds: Kinds | None = None,
) -> Results:
  """The metrics of some scores, with a threshold of its own for every subset.

  Args:
    scores: test scores.
    rule: how the thresholds are found, as in `thresholds.RULES`; None: as `resolve_rule`.
    dev: the scores of the development set, under the same subsets; a `fixed` rule needs none.
    oracle: fit on the test scores if `dev` is them or missing. Every subset's results then have
      the key `ORACLE`, and every table and report is marked. So they are by `RENDERED`, if samples
      are rendered images.
    kinds: `attack_kinds` of the scores, where they are known already.

  Returns:
    By subset: those of `metrics.METRICS`, in that order; apcer/NAME and n_attack/NAME by attack
    category, or by species where no category is known; where both are, apcer_species/NAME besides.
    NaN is undefined. A subset without one score is not served by the model: all of its rates are
    NaN. So are those of a subset with a modality that no sample has, as the header states: its
    scores are of other modalities. `not_recorded` names these. With the rule `bundle`, a subset
    that the bundle has no threshold for has no rates either, and the key `no_threshold`. Where
    samples were given a modality of the subset that is unusable: n_unusable of them, and acer_fta,
    apcer_fta, bpcer_fta, which count these as failures to acquire; all other figures count that
    modality as absent.

  Raises:
    ConfigError: an unknown rule.
    StateError: no dev for a rule that needs it; dev of the same list of samples, or of other
      weights, or on another scale, or without such a subset; a threshold that its scores cannot
      give.
    DataError: as `resolve_rule`.
  """
  rule = resolve_rule(scores, rule, dev, oracle)
  # A fixed rule looks at nothing, and any scores will do.
  dev = development_scores(scores, rule, dev, oracle) if thresholds.needs_dev(rule) else scores

  bundle = _bundle_thresholds(scores) if rule == thresholds.BUNDLE else {}
  found, of_kinds = {}, kinds or attack_kinds(scores)
  for subset in scores.scores:
    if lacking := scores.not_recorded(subset):
      found[subset] = {**_not_served(scores, subset, of_kinds), NOT_RECORDED: list(lacking)}
    elif np.isnan(scores.scores[subset]).all():
      found[subset] = _not_served(scores, subset, of_kinds)
    elif bundle and subset not in bundle:
      n_fta = int(np.isnan(scores.scores[subset]).sum())
      found[subset] = {
        **_not_served(scores, subset, of_kinds), 'n_fta': n_fta, NO_THRESHOLD: True
      }  # fmt: skip
    else:
      threshold = bundle[subset] if bundle else _threshold(rule, dev, subset)
      found[subset] = _subset_metrics(scores, subset, threshold, of_kinds)
    if oracle:
      found[subset][ORACLE] = True
    if is_rendered(scores):
      found[subset][RENDERED] = True
  return found


def is_rendered(scores: score_files.Scores) -> bool:
  """Whether samples are rendered images, see `score_files.Scores.rendered`."""
  return scores.rendered


def resolve_rule(
  scores: score_files.Scores,
  rule: str | None,
  dev: score_files.Scores | None = None,
  oracle: bool = False,
) -> str:
  """The rule of the thresholds, and whether scores and a fixed threshold are on one scale.

  Args:
    scores, dev, oracle: as in `compute`.
    rule: None: `dev_eer` with dev or oracle, otherwise `thresholds.DEFAULT`, which is refused for
      scores outside [0, 1]: percentages, logits and cosines are on no scale that it is of.

  Raises:
    ConfigError: an unknown rule; a fixed threshold that is no probability, where all scores are.
    DataError: a score that its scale cannot have, with file and row.
  """
  if rule is None and (dev is not None or oracle):
    return 'dev_eer'
  if thresholds.needs_dev(rule or thresholds.DEFAULT):
    return rule or thresholds.DEFAULT
  if rule == thresholds.BUNDLE:
    return rule
  if rule is None:
    score_files.require_scale(scores, f'the threshold is the default, {thresholds.DEFAULT}')
  else:
    score_files.require_scale(scores, f'--threshold={rule}', if_stated=True)
    value = float(rule.partition('=')[2])
    unstated = [score for s, score in scores.scores.items() if not scores.scale_under(s)]
    beyond = any(scales.out_of_range(score, '').size for score in unstated)
    if unstated and not 0 <= value <= 1 and not beyond:
      raise ConfigError(
        f'--threshold={rule}: all scores of {scores.path or "the test"} are in [0, 1], so that a '
        f'threshold of {value:g} {"accepts" if value < 0 else "rejects"} everything'
      )
  return rule or thresholds.DEFAULT


def json_safe(found):
  """Results, or any dict of them, as JSON can hold them: NaN is null, numbers are Python's own."""
  if isinstance(found, dict):
    return {str(name): json_safe(value) for name, value in found.items()}
  if isinstance(found, list | tuple):
    return [json_safe(value) for value in found]
  if isinstance(found, np.generic):
    found = found.item()
  return None if isinstance(found, float) and math.isnan(found) else found


def notes(found: Results, insufficient: Mapping[str, Collection[str]] | None = None) -> list[str]:
  """Notes that a reader of the figures needs, one line each.

  Args:
    found: the figures.
    insufficient: of those, the metrics that are not stated, by subset, see `sufficiency`.
  """
  lines = []
  for subset, values in found.items():
    few = (insufficient or {}).get(subset, ())
    if lacking := values.get(NOT_RECORDED):
      lines.append(
        f'{subset}: not recorded: no sample has {" or ".join(lacking)}, and scores without it are '
        'of another subset'
      )
    if is_served(values) and values['n_fta']:
      lines.append(
        f'{subset}: {values["n_fta"]} of {_n(values)} samples have no score (failure to acquire); '
        'they count as not accepted'
      )
    if is_served(values) and 'n_unusable' in values:
      scored, as_fta = (
        ', '.join(
          'n too small' if name in few else f'{100 * values[name + end]:.2f}'
          for name in ('acer', 'apcer', 'bpcer')
        )
        for end in ('', '_fta')
      )
      lines.append(
        f'{subset}: {values["n_unusable"]} of {_n(values)} samples were given an unusable '
        f'modality; ACER, APCER, BPCER at {values["threshold"]:.6g}: {scored} as scored, {as_fta} '
        "as failures to acquire (prediction's default)"
      )
    if values['auc'] < 0.3:
      lines.append(
        f'{subset}: polarity? AUC is {values["auc"]:.4f}; a high score must mean bona fide'
      )
  return lines


def scale_notes(scores: score_files.Scores, found: Results, rule: str) -> list[str]:
  """The scale of scores and thresholds, where it is stated; a fixed threshold beyond all scores."""
  of = {subset: scales.NOTES.get(scores.scale_under(subset), '') for subset in found}
  lines = sorted(set(of.values()) - {''})
  if len(set(of.values())) > 1:
    lines = [f'{subset}: {note}' for subset, note in of.items() if note]
  for subset, values in found.items():
    if thresholds.needs_dev(rule) or not is_served(values):
      continue
    low, high = np.nanmin(scores.scores[subset]), np.nanmax(scores.scores[subset])
    for beyond, what in ((values['threshold'] <= low, 'all'), (values['threshold'] > high, 'none')):
      if beyond and low < high:
        lines.append(
          f'{subset}: the threshold {values["threshold"]:.6g} accepts {what} of the scores, which '
          f'are from {low:.6g} to {high:.6g}; is it on their scale?'
        )
  return lines


def development_scores(
  scores: score_files.Scores, rule: str, dev: score_files.Scores | None, oracle: bool
) -> score_files.Scores:
  """The scores that thresholds may be fitted on; see `compute`."""
  if dev is None and oracle:
    return scores
  if dev is None:
    raise StateError(f'{rule} is fitted on development scores, and there are none (--dev)')
  names = [str(x.path or what) for x, what in ((dev, 'dev'), (scores, 'test'))]
  if not oracle and _are_one_list(dev, scores):
    raise StateError(
      f'{names[0]} and {names[1]} are the same list of samples: a threshold is never fitted on '
      'the test samples (--oracle allows it, and marks every output)'
    )
  for subset in scores.scores:
    pair = [x.scale_under(subset) for x in (dev, scores)]
    if not scales.compatible(*pair):
      stated = ' and '.join(scale or 'not stated' for scale in pair)
      raise StateError(
        f'{names[0]} and {names[1]} are on different scales ({stated}): a threshold is valid on '
        'its own scale'
      )
  weights = [x.header.get('weights_hash') for x in (dev, scores)]
  if all(weights) and weights[0] != weights[1]:
    raise StateError(
      f'{names[0]} was scored by weights {weights[0]}, {names[1]} by {weights[1]}: a threshold is '
      'a property of the model that it was fitted for'
    )
  return dev


def _are_one_list(dev, scores) -> bool:
  """Whether two lists are of the same samples: their ids and labels, and their subjects.

  Videos that are called 1, 2, 3 have the same ids, and are not the same where no subject is.
  """
  if dev.ids.size != scores.ids.size:  # hashing millions takes seconds
    return False
  if score_files.list_hash(dev.ids, dev.label) != score_files.list_hash(scores.ids, scores.label):
    return False
  of = [set(identity.subjects(x.dataset.tolist(), x.subject.tolist())) for x in (dev, scores)]
  return '' in of[0] | of[1] or bool(of[0] & of[1])


def _bundle_thresholds(scores: score_files.Scores) -> dict[str, float]:
  """By subset, as the header states them; a bundle refuses the others."""
  stated = scores.header.get('thresholds')
  stated = stated if isinstance(stated, Mapping) else {}
  with_thresholds = {subset.rpartition(': ')[0] for subset in stated}
  for system in dict.fromkeys(subset.rpartition(': ')[0] for subset in scores.scores):
    if system not in with_thresholds:
      raise StateError(
        f'{system or scores.path or "the scores"}: the header states no thresholds, as that of a '
        'file of `flexfas predict --out` does; choose another rule than --threshold=bundle'
      )
  found = {}
  for subset, value in stated.items():
    if not isinstance(value, int | float) or not math.isfinite(value):
      raise StateError(
        f'{scores.path or "the scores"}: the threshold of {subset} in its header is {value!r}, not '
        'a number; restore the header'
      )
    found[subset] = float(value)
  return found


def _threshold(rule, dev, subset) -> float:
  if subset not in dev.scores:
    raise StateError(
      f'{dev.path or "dev"} has no scores under {subset}, only {list(dev.scores)}: every subset of '
      'modalities has a threshold of its own'
    )
  try:
    return thresholds.fit(rule, dev.label, dev.scores[subset], dev.scale_under(subset))
  except StateError as error:
    raise StateError(f'{dev.path or "dev"}, {subset}: {error}') from error


def attack_kinds(scores: score_files.Scores) -> Kinds:
  """The attacks' (categories, PAI species); None where no attack has one.

  A species is called DATASET:NAME where attacks of that name are in several data sets: each data
  set names its own.
  """
  attack = scores.label == 0
  category = species = None
  if (scores.attack_category[attack] != '').any():
    category = metrics.groups(scores.attack_category)
  if (scores.attack_type[attack] != '').any():
    species = metrics.groups(scores.attack_type)
    home = metrics.groups(scores.dataset)
    if len(home.names) > 1:
      species = _apart(species, home, attack)
  return category, species


def _apart(species: metrics.Groups, home: metrics.Groups, attack: np.ndarray) -> metrics.Groups:
  n_pairs = len(species.names) * len(home.names)
  pair = species.index * len(home.names) + home.index  # [N]
  found, index = grouping.unique(pair, n_pairs)
  homes = {}  # of a species, among attacks
  for one in grouping.unique(pair[attack], n_pairs)[0].tolist():
    homes.setdefault(one // len(home.names), set()).add(one % len(home.names))
  names = []
  for one in found.tolist():
    name, set_ = species.names[one // len(home.names)], home.names[one % len(home.names)]
    several = len(homes.get(one // len(home.names), ())) > 1
    names.append(f'{set_}:{name}' if name and several else name)
  order = sorted(set(names))
  place = np.array([order.index(name) for name in names])
  return metrics.Groups(tuple(order), place[index])


def _subset_metrics(scores, subset, threshold, of_kinds) -> dict[str, float]:
  """One subset's metrics at a threshold."""
  score = scores.scores[subset]
  category, species = of_kinds
  rates = metrics.error_rates(scores.label, score, threshold, category, species)
  points = metrics.curve(scores.label, score)
  by_name = {f'apcer/{name}': count.rate for name, count in accepted_by_kind(rates).items()}
  if category and species:
    by_name |= {f'apcer_species/{n}': c.rate for n, c in rates.accepted_of_species.items()}
  return {
    **{metric.name: metric.value(rates, points) for metric in metrics.METRICS},
    **by_name,
    **{f'n_attack/{name}': count.n for name, count in accepted_by_kind(rates).items()},
    **unusable.fta_metrics(scores, subset, threshold),
  }


def rates_by_attack(scores: score_files.Scores) -> list[str]:
  """The names of the APCERs of single attacks, as `compute` has them."""
  category, species = attack_kinds(scores)
  found, attack = [], scores.label == 0
  kinds_of = {'apcer/': category or species, 'apcer_species/': species if category else None}
  for prefix, kinds in kinds_of.items():
    if kinds:
      present = np.unique(kinds.index[attack]).tolist()
      found += [f'{prefix}{kinds.names[i] or metrics.UNKNOWN}' for i in present]
  return found


def accepted_by_kind(rates: metrics.ErrorRates) -> dict[str, metrics.Count]:
  """Accepted attacks by category, or by species where no category is known."""
  return rates.accepted_of or rates.accepted_of_species


def _not_served(scores, subset, of_kinds) -> dict[str, float]:
  """The same names, their rates undefined: nothing was decided, rightly or wrongly."""
  none = {subset: np.full(scores.label.size, math.nan)}
  values = _subset_metrics(dataclasses.replace(scores, scores=none), subset, math.inf, of_kinds)
  return {name: x if name.startswith('n_') else math.nan for name, x in values.items()}


def is_served(values) -> bool:
  return NO_THRESHOLD not in values and values['n_fta'] < _n(values)


def _n(values) -> int:
  return values['n_bona_fide'] + values['n_attack']
