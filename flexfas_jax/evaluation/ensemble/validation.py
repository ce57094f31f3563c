"""Do the members of an ensemble belong together: the same samples, and every member, whole."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import metrics, scales, score_files
from flexfas_jax.evaluation.ensemble.members import COORDINATES, Member, describe

_SHOWN = 5  # complaints of a kind that are listed


def align(members: Sequence[Member], subsets: Sequence[str] = ()) -> list[Member]:
  """The members with their samples in the first one's order.

  Args:
    members: from `members.read`.
    subsets: those that are averaged; all if empty.

  Returns:
    Members of those subsets alone, each with a score of some sample in each.

  Raises:
    ConfigError: a subset that a member lacks, by `subsets`.
    DataError: ids that one lacks; another label or other metadata; other subsets than the first's;
      a score that is nan, or that its scale cannot have; another scale; each by file and id.
  """
  first, found = members[0], []
  place = {id_: i for i, id_ in enumerate(first.scores.ids.tolist())}
  for member in members:
    member = _only(member, subsets)
    _check_scores(member)
    if not scales.compatible(member.scores.scale, first.scores.scale):
      raise DataError(
        f'{member.path} and {first.path} are on different scales '
        f'({member.scores.scale or "not stated"} and {first.scores.scale or "not stated"}): no '
        'mean is of both'
      )
    order = _order(first, member, place)
    scores = member.scores
    scores = dataclasses.replace(
      scores,
      ids=scores.ids[order],
      label=scores.label[order],
      scores={name: score[order] for name, score in scores.scores.items()},
      **{name: getattr(scores, name)[order] for name in schema.METADATA},
      extra={name: values[order] for name, values in scores.extra.items()},
    )
    found.append(dataclasses.replace(member, scores=scores))
    _check_samples(found[0], found[-1])
    _check_subsets(found[0], found[-1])
  return found


def merge_samples(members: Sequence[Member]) -> score_files.Scores:
  """The first member's samples; metadata that it does not know, from the next that does."""
  base = members[0].scores
  for field in schema.METADATA:
    for member in members[1:]:
      own = getattr(base, field)
      if (own != '').all():
        break
      other = getattr(member.scores, field)
      base = dataclasses.replace(base, **{field: np.where(own == '', other, own)})
  return base


def _only(member: Member, subsets: Sequence[str]) -> Member:
  if not subsets:
    return member
  if lacking := [s for s in subsets if s not in member.subsets]:
    raise ConfigError(f'--subsets: {member.path} has no {lacking[0]}, only {member.subsets}')
  keep = {n: s for n, s in member.scores.scores.items() if n.partition('@')[0] in subsets}
  faults = {n: at for n, at in member.scores.nan_samples.items() if n in keep}
  scores = dataclasses.replace(member.scores, scores=keep, nan_samples=faults)
  return dataclasses.replace(member, scores=scores)


def _check_scores(member: Member) -> None:
  scores = member.scores
  for name, samples in scores.nan_samples.items():
    raise DataError(
      f'{member.path}: {name} is nan for {len(samples)} samples (the first is id '
      f'{scores.ids[samples[0]]}): the model computed nan, and a mean with it is none. Leave the '
      'cell empty if it was a failure to acquire, which it then is for the whole ensemble'
    )
  score_files.require_scale(
    scores,
    'scores are averaged as probabilities',
    'State the scale: --scale=percent or --scale=logit',
  )


def _order(first: Member, member: Member, place: dict[str, int]) -> np.ndarray:
  """[N]: where the samples of `first` are in `member`."""
  ids = member.scores.ids.tolist()
  known = set(ids)
  lacks = [id_ for id_ in place if id_ not in known]
  extra = [id_ for id_ in ids if id_ not in place]
  for a, b, of in ((member, first, lacks), (first, member, extra)):
    if of:
      raise DataError(
        f'{a.path} lacks {len(of)} ids that {b.path} has (the first is {of[0]}): members are '
        'averaged over the same samples'
      )
  return np.argsort([place[id_] for id_ in ids])


def _check_samples(first: Member, member: Member) -> None:
  """Both in the same order."""
  a, b = first.scores, member.scores
  for field in ('label', *schema.METADATA):
    mine, others = getattr(a, field), getattr(b, field)
    wrong = mine != others
    if field != 'label':
      wrong &= (mine != '') & (others != '')
    if wrong.any():
      i = int(np.argmax(wrong))
      values = [x[i] if field != 'label' else schema.LABELS[x[i]] for x in (others, mine)]
      raise DataError(
        f'{field} of id {a.ids[i]} is {values[0]} in {member.path} and {values[1]} in {first.path}'
      )


def _check_subsets(first: Member, member: Member) -> None:
  way_out = 'choose what all have: --subsets=...'
  if set(first.subsets) != set(member.subsets):
    raise DataError(
      f'{member.path} has scores of {", ".join(member.subsets)}, and {first.path} of '
      f'{", ".join(first.subsets)}; {way_out}'
    )
  for name, score in member.scores.scores.items():
    subset = name.partition('@')[0]
    for view, other in first.views(subset).items():
      if np.isnan(score).all() != np.isnan(other).all():
        # All members may lack a subset; if only some do, the mean would lack it without notice.
        lacking = member if np.isnan(score).all() else first
        raise DataError(
          f'{lacking.path} has no score at all of {subset}, which others serve'
          f'{f" (view {view})" if view else ""}; {way_out}'
        )


def find_missing(members: Sequence[Member]) -> list[str]:
  """What is missing from the grid of the members, or not trained to the end; a line each.

  Every seed must have the folds that any other has, every member the views that any other has, of
  each subset. A run is trained to the end where its header's `trained_steps` reach its config's
  `steps`; where a header has `step` alone, no member of a network may be behind its siblings.
  """
  complaints = []
  folds = {m.at[2] for m in members}
  of_seed = {}
  for member in members:
    of_seed.setdefault(member.at[:2], set()).add(member.at[2])
  for seed, own in sorted(of_seed.items()):
    # A network without folds beside others with some: it lacks all of theirs.
    for fold in sorted(folds - own - {''}):
      complaints.append(f'{describe((*seed, fold))} is missing; other seeds have it')
  for subset in members[0].subsets:
    of_fold = {}
    for member in members:
      of_fold.setdefault(member.at[:3], set()).update(member.views(subset))
    views = set().union(*of_fold.values())
    for fold, own in sorted(of_fold.items()):
      for view in sorted(views - own):
        name = f'view {view}' if view else 'the view without a name'
        complaints.append(f'{describe(fold)} lacks {name} of {subset}; others have it')
  return complaints + _half_trained(members)


def _half_trained(members: Sequence[Member]) -> list[str]:
  complaints, newest = [], {}
  for member in members:
    header = member.scores.header
    done, config = header.get('trained_steps'), header.get('config')
    steps = config.get('steps') if isinstance(config, dict) else None
    if isinstance(done, int) and isinstance(steps, int):
      if done < steps:
        complaints.append(f'{member.path} is half trained: {done} of {steps} steps')
    elif isinstance(header.get('step'), int):
      newest.setdefault(member.at[0], []).append((header['step'], member))
  for of in newest.values():
    most = max(step for step, _ in of)
    complaints += [
      f'{member.path} is of step {step}, and others of its network of step {most}'
      for step, member in of
      if step < most
    ]
  return complaints


def require_complete(members: Sequence[Member]) -> None:
  """Raises StateError if `find_missing` returns complaints."""
  if complaints := find_missing(members):
    more = [f'... and {len(complaints) - _SHOWN} more'] if len(complaints) > _SHOWN else []
    raise StateError(
      '\n'.join(
        ['the ensemble is not whole:', *complaints[:_SHOWN], *more]
        + ['Add what is missing, or average what there is: --allow_incomplete']
      )
    )


def match_dev(members: Sequence[Member], devs: Sequence[Member], known: bool) -> list[Member]:
  """Development scores in the members' order, under their coordinates.

  Args:
    members, devs: each from `align`.
    known: whether both sides' coordinates are; otherwise the files are taken in the order given.

  Raises:
    ConfigError: a member without development scores, or development scores without a member.
    StateError: the same list of samples; other weights.
    DataError: other subsets or views; another scale.
  """
  test, dev = members[0].scores, devs[0].scores
  if score_files.list_hash(test.ids, test.label) == score_files.list_hash(dev.ids, dev.label):
    raise StateError(
      f'{devs[0].path} and {members[0].path} are the same list of samples: nothing may be '
      'fitted on the scores it is evaluated on'
    )
  if known:
    of, mine = {m.at: m for m in devs}, {m.at for m in members}
    if lacking := [m for m in members if m.at not in of]:
      raise ConfigError(
        f'--dev: no file of {describe(lacking[0].at)} ({lacking[0].path}); the files are of '
        + '; '.join(describe(m.at) for m in devs[:_SHOWN])
      )
    if extra := [m for m in devs if m.at not in mine]:
      raise ConfigError(f'--dev: {extra[0].path} is of {describe(extra[0].at)}, which is no member')
    devs = [of[m.at] for m in members]
  elif len(members) != len(devs):
    raise ConfigError(
      f'--dev: {len(devs)} files for {len(members)} members; one for each, in their order'
    )
  for member, dev in zip(members, devs, strict=True):
    hashes = [m.scores.header.get('weights_hash') for m in (dev, member)]
    if all(hashes) and hashes[0] != hashes[1]:
      raise StateError(
        f'{dev.path} was scored by weights {hashes[0]}, {member.path} by {hashes[1]}: a '
        'fit on one does not apply to the other'
      )
    if not scales.compatible(dev.scores.scale, member.scores.scale):
      raise DataError(f'{dev.path} and {member.path} are on different scales')
    if set(dev.scores.scores) != set(member.scores.scores):
      raise DataError(
        f'{dev.path} has scores of {", ".join(dev.scores.scores)}, and {member.path} of '
        f'{", ".join(member.scores.scores)}'
      )
  return [dataclasses.replace(dev, at=member.at) for dev, member in zip(devs, members, strict=True)]


def notes(members: Sequence[Member]) -> list[str]:
  """Notes to report on members that are averaged nevertheless."""
  lines = []
  for member in members:
    for subset in member.subsets:
      views = list(member.views(subset).items())
      for view, score in views:
        if (auc := metrics.auc(metrics.curve(member.scores.label, score))) < 0.3:
          lines.append(
            f'{member.path}: polarity? The AUC of {f"{subset}@{view}" if view else subset} is '
            f'{auc:.4f}; a high score must mean bona fide in every member'
          )
      for k, (b, score) in enumerate(views):
        for a, other in views[:k]:
          if np.array_equal(score, other) and not np.isnan(score).any():
            lines.append(
              f'{member.path}: the views {a} and {b} of {subset} are equal in every score; does '
              'the view change the image?'
            )
  for subset in members[0].subsets:
    missing = [np.isnan([*m.views(subset).values()]).any(0) for m in members]  # [members][N]
    n, anywhere = [int(x.sum()) for x in missing], int(np.any(missing, 0).sum())
    if anywhere and anywhere < missing[0].size:
      most = members[int(np.argmax(n))]
      lines.append(
        f'{subset}: {anywhere} samples have no score in some member (most, {max(n)}, in '
        f'{most.path}), and so none in the ensemble: failures to acquire'
      )
  return lines


def scores_by_key(members: Sequence[Member], subset: str) -> dict[tuple[str, ...], np.ndarray]:
  """{(network, seed, fold, view): [N]} of a subset, as `ensembles.means` takes it."""
  found = {}
  for member in members:
    for view, score in member.views(subset).items():
      key = (*member.at[: len(COORDINATES) - 1], view)
      if key in found:
        raise ConfigError(f'{member.path}: the view {view} of {describe(key[:3])} is given twice')
      found[key] = score
  return found
