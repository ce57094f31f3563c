"""The model of collectives by hand, and the reading of programs in the compiler's own words."""

import numpy as np
import pytest

from flexfas_jax.preflight import chips, collectives
from flexfas_jax.preflight.collectives import Collective

V5E, V5P = chips.CHIPS['v5e'], chips.CHIPS['v5p']
ALL = {n: (tuple(range(n)),) for n in (2, 4, 8, 16, 64, 256)}


def slice_of(*shape, chip=V5E):
  """The torus of a slice whose mesh goes through its last axis first."""
  return collectives.make_torus(
    np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), -1), chip
  )


# 1e9 bytes; v5e: 50 GB/s per link and direction, v5p: 100; a microsecond per hop.
@pytest.mark.parametrize(
  ('operation', 'groups', 'shape', 'expected'),
  [
    # Two neighbours: half of it there and half of it back, twice; one hop, twice.
    ('all-reduce', ALL[2], (1, 2), 2 * 0.5 / 50 + 2e-6),
    # 2 x 2, no axis closes: a ring along each of two axes.
    ('all-reduce', ALL[4], (2, 2), 2 * 3 / 4 / 100 + 2 * 2e-6),
    ('all-reduce', ALL[16], (4, 4), 2 * 15 / 16 / 100 + 2 * 6e-6),
    # 16 x 16 closes along both: rings both ways round.
    ('all-reduce', ALL[256], (16, 16), 2 * 255 / 256 / 200 + 2 * 30e-6),
    # 4 x 16 closes along one.
    ('all-reduce', ALL[64], (4, 16), 2 * 63 / 64 / 150 + 2 * 18e-6),
    ('all-gather', ALL[16], (4, 4), 15 / 16 / 100 + 6e-6),
    ('reduce-scatter', ALL[16], (4, 4), 15 / 16 / 100 + 6e-6),
    # Groups that are the rows of 4 x 4: one ring each.
    ('all-gather', tuple(map(tuple, np.arange(16).reshape(4, 4))), (4, 4), 3 / 4 / 50 + 3e-6),
    # Every fourth chip of a closed row of 16: four groups share two rings, four hops a step.
    (
      'all-reduce',
      tuple(map(tuple, np.arange(256).reshape(16, 4, 4).swapaxes(1, 2).reshape(64, 4))),
      (16, 16),
      2 * 3 / 4 / (50 * 2 / 4) + 2 * 12e-6,
    ),
    # Half of a closed row does not close: one ring.
    ('all-gather', (tuple(range(8)),), (16, 16), 7 / 8 / 50 + 7e-6),
    # Three of the four chips of a square are no grid: one ring, three quarters of the box's links.
    ('all-gather', ((0, 1, 3),), (2, 2), 2 / 3 / (50 * 3 / 4) + 2e-6),
    # The middle of a row of 4 is crossed by half of what two chips have.
    ('all-to-all', ALL[4], (1, 4), 1 / 50 + 3e-6),
    # To the neighbour; the first and last of a closed axis are neighbours, of an open one are not.
    ('collective-permute', ((0, 1), (1, 2)), (1, 4), 1 / 50 + 1e-6),
    ('collective-permute', ((3, 0),), (1, 4), 3 * (1 / 50 + 1e-6)),
    ('collective-permute', ((15, 0),), (16, 16), 1 / 50 + 1e-6),
    # A group of one sends nothing.
    ('all-reduce', ((0,), (1,)), (1, 2), 0.0),
  ],
)
def test_seconds_by_hand(operation, groups, shape, expected):
  one = Collective(operation, 'f32', 10**9, groups)
  assert collectives.estimate_seconds(one, slice_of(*shape), V5E) == pytest.approx(
    expected, rel=1e-9
  )


@pytest.mark.parametrize(
  ('shape', 'rate'), [((4, 4, 4), 600), ((2, 2, 4), 300), ((4, 4, 8), 600), ((2, 2, 1), 200)]
)
def test_a_3d_torus_closes_in_whole_cubes(shape, rate):
  n, hops = int(np.prod(shape)), sum(shape) - len(shape)
  one = Collective('all-reduce', 'f32', 10**9, (tuple(range(n)),))
  expected = 2 * (n - 1) / n / rate + 2e-6 * hops
  assert collectives.estimate_seconds(one, slice_of(*shape, chip=V5P), V5P) == pytest.approx(
    expected
  )


def test_the_order_of_the_mesh_does_not_matter_to_a_group_of_all():
  snake = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
  one = Collective('all-reduce', 'f32', 1000, ALL[4])
  there = collectives.estimate_seconds(one, collectives.make_torus(snake, V5E), V5E)
  assert there == collectives.estimate_seconds(one, slice_of(2, 2), V5E)


# N = 1e9 bytes of each of a slice's chips; v5e: 3.125 GB/s for each, 25 Gb/s.
@pytest.mark.parametrize(
  ('operation', 'slices', 'expected'),
  [
    ('all-reduce', 2, 1 / 3.125),  # half is sent to be summed, and half of the sums
    ('all-reduce', 4, 2 * 3 / 4 / 3.125),
    ('all-gather', 2, 1 / 2 / 3.125),  # half of the whole is a chip's own
    ('reduce-scatter', 4, 3 / 3.125),  # a part for each of the others
    ('all-to-all', 4, 3 / 4 / 3.125),
    ('one-to-one', 2, 1 / 3.125),
  ],
)
def test_seconds_between_slices_by_hand(operation, slices, expected):
  one = collectives.Transfer(operation, 'f32', 10**9, slices)
  assert collectives.transfer_seconds(one, V5E) == pytest.approx(expected, rel=1e-9)


def test_the_network_is_as_published():
  """v5e: two cards of 100 Gb/s for eight chips; v6e: four of 200; v5p: 50 Gb/s for a chip."""
  rates = {kind: chip.network for kind, chip in chips.CHIPS.items()}
  assert rates == {'v4': None, 'v5e': 3.125e9, 'v5p': 6.25e9, 'v6e': 12.5e9}


PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y), backend_config={"estimated_cycles":"1000000"}
}

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %double = f32[8,128]{1,0} add(%p, %p), backend_config={"estimated_cycles":"1000000"}
}

%all-reduce-scatter.1 (input: f32[8,128]) -> f32[2,128] {
  %input = f32[8,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[8,128]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %part = f32[2,128]{1,0} dynamic-slice(%all-reduce.9)
}

%start_fusion (input: bf16[2,128]) -> bf16[8,128] {
  %all-gather.1 = bf16[8,128]{1,0} all-gather(%input), replica_groups=[1,4]<=[4], \
frontend_attributes={chain_id="7"}
}

%done_fusion (input: bf16[2,128]) -> bf16[8,128] {
  %all-gather.2 = bf16[8,128]{1,0} all-gather(%input), replica_groups=[1,4]<=[4], \
frontend_attributes={chain_id="7"}
}

%body (c: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %c = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.1 = f32[8,128]{1,0} get-tuple-element(%c), index=1
  %fusion.1 = f32[8,128]{1,0} fusion(%get-tuple-element.1), kind=kLoop, calls=%fused, \
backend_config={"window_config":{"estimated_cycles":"10"}}
  %all-reduce.1 = (f32[8,128]{1,0:T(8,128)S(1)}, bf16[4]{0:T(128)(2,1)}) all-reduce(%fusion.1, \
/*index=1*/%other), channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0'}, \
to_apply=%add
}

%condition (c.1: (s32[], f32[8,128])) -> pred[] {
  %c.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.2 = s32[]{:T(128)} get-tuple-element(%c.1), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[]{:T(512)} compare(%get-tuple-element.2, %limit), direction=LT
}

ENTRY %main (param: f32[8,128]) -> f32[8,128] {
  %param = f32[8,128]{1,0:T(8,128)} parameter(0)
  %first = s32[]{:T(128)} constant(2)
  %copy.1 = s32[]{:T(128)} copy(%first)
  %tuple.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%copy.1, %param)
  %while.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%tuple.1), condition=%condition, \
body=%body
  %fusion.2 = f32[2,128]{1,0} fusion(%param), kind=kCustom, calls=%all-reduce-scatter.1, \
backend_config={"estimated_cycles":"3"}
  %async-collective-start = bf16[8,128]{1,0} fusion(%param), kind=kCustom, calls=%start_fusion
  %async-collective-done = bf16[8,128]{1,0} fusion(%param), kind=kCustom, calls=%done_fusion
  %permute = (f32[2]{0}, f32[2]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%param), \
source_target_pairs={{0,1},{1,0}}
  %permuted = f32[2]{0} collective-permute-done(%permute)
  %gather = (f32[2]{0}, f32[8]{0}) all-gather-start(%param), replica_groups={}, dimensions={0}
  %gathered = f32[8]{0} all-gather-done(%gather)
  %sent = (f32[2,4]{1,0}, u32[], token[]) send(%param, %token), channel_id=1, \
is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name=\
"xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type=\
"ALL_GATHER"}
  %received = (f32[4,4]{1,0}, u32[], token[]) recv(%token), channel_id=1, \
is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name=\
"xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type=\
"ALL_GATHER"}
  %done = (f32[4,4]{1,0}, token[]) recv-done(%received), channel_id=1
  %scatter = f32[2]{0} reduce-scatter(%param), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %copy.2 = f32[8,128]{1,0} copy(%param), backend_config={"estimated_cycles":"20"}
}
"""


def test_a_program_is_read_with_its_loop_its_fusions_and_its_pairs():
  program = collectives.parse_program(PROGRAM, 4)
  assert program.unknown_loops == 0
  assert program.cycles == 5 * 10 + 3 + 20  # not what is inside fusions and reductions
  assert program.transfers == {collectives.Transfer('all-gather', 'f32', 64, 2): 1}
  everyone = ((0, 1, 2, 3),)
  assert program.collectives == {
    Collective('all-reduce', 'f32', 4096 + 8, everyone): 5,
    Collective('reduce-scatter', 'f32', 4096, everyone): 1,  # an all-reduce, of which a part stays
    Collective('all-gather', 'bf16', 2048, everyone): 1,  # once, in two fusions of one chain
    Collective('collective-permute', 'f32', 8, ((0, 1), (1, 0))): 1,
    Collective('all-gather', 'f32', 32, everyone): 1,
    Collective('reduce-scatter', 'f32', 16, ((0, 1), (2, 3))): 1,
  }


@pytest.mark.parametrize(
  ('old', 'new', 'trips', 'unknown'),
  [
    ('body=%body\n', 'body=%body, backend_config={"known_trip_count":{"n":"11"}}\n', 11, 0),
    ('constant(7)', 'constant(1)', 0, 0),
    ('direction=LT', 'direction=NE', 1, 1),
    ('constant(2)', 'parameter(1)', 1, 1),
  ],
)
def test_how_often_a_loop_runs(old, new, trips, unknown):
  program = collectives.parse_program(PROGRAM.replace(old, new), 4)
  assert program.cycles == trips * 10 + 3 + 20
  assert program.unknown_loops == unknown


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('replica_groups={{0,1},{2,3}}, use', [[0, 1], [2, 3]]),
    ('replica_groups={}, use', [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ('replica_groups=[2,4]<=[8], use', [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ('replica_groups=[4,2]<=[2,4]T(1,0), use', [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("replica_groups=mesh['a'=8,'b'=1] {'a'}, use", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}, use", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}, use", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    # A mesh whose devices are 0 2 4 6 / 1 3 5 7: its axis 'b' steps by two.
    (
      "replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}, use",
      [[0, 2, 4, 6], [1, 3, 5, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}, use",
      [[3, 2], [1, 0]],
    ),
    # Of an axis of 8 the last 4, and the first 2.
    ("replica_groups=mesh['a'=8] {'a':(2)4}, use", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("replica_groups=mesh['a'=8] {'a':(1)2}, use", [[0, 4], [1, 5], [2, 6], [3, 7]]),
  ],
)
def test_groups_in_every_notation(text, expected):
  program = PROGRAM.replace('replica_groups={{0,1,2,3}}', text.removesuffix(', use'))
  groups = next(
    one.groups
    for one in collectives.parse_program(program, 8).collectives
    if one.operation == 'reduce-scatter' and one.bytes == 4096
  )
  assert groups == tuple(map(tuple, expected))


def test_groups_in_an_unknown_notation_are_an_error():
  with pytest.raises(ValueError, match='unknown notation'):
    collectives.parse_program(PROGRAM.replace('replica_groups=[1,4]<=[4]', 'replica_groups=new'), 4)
