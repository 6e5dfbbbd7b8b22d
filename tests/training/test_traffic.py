"""What the updates of the five papers move between eight devices, read from the compiled programs."""

import math

import pytest

from faceattr_jax.training import distributed, traffic
from faceattr_jax.training.traffic import Array, Collective
from tests.training import programs

HLO = """
  %all-reduce.1 = (f32[4,4,3,2]{3,2,1,0}, bf16[8]{0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  ROOT %p = f32[2,8,8,3]{3,2,1,0} collective-permute(%all-reduce.1), channel_id=2
  %start = u8[16]{0} all-reduce-start(%c), channel_id=3
  %done = u8[16]{0} all-reduce-done(%start)
  %scalar = pred[] all-gather(%d)
"""


def test_collectives_are_read_with_their_sizes():
    found = traffic.collectives(HLO)
    assert found == [
        Collective("all-reduce", (Array(32, (4, 4, 3, 2)), Array(16, (8,)))),
        Collective("collective-permute", (Array(32, (2, 8, 8, 3)),)),
        Collective("all-reduce", (Array(8, (16,)),)),
        Collective("all-gather", (Array(8, ()),)),
    ]
    assert [collective.bytes for collective in found] == [4 * 96 + 16, 4 * 384, 16, 1]
    assert traffic.summary(found)["all-reduce"] == {"operations": 2, "bytes": 4 * 96 + 32}


QUICK = ("attgan",)  # a critic with a penalty on gradients, and a generator; the others' programs take minutes


@pytest.mark.parametrize(
    "paper", [pytest.param(paper, marks=() if paper in QUICK else pytest.mark.slow) for paper in programs.PAPERS]
)
def test_gradients_are_summed_at_once_and_no_image_moves(paper, capsys):
    method = programs.method(paper)
    for stage in method.stages:
        for phase, update, (state, *_) in programs.updates(method, stage, distributed.mesh(), compiled=True):
            found = traffic.collectives(update.as_text())
            parameters = 4 * sum(leaf.size for leaf in programs.trained(method, phase, state))
            # A kernel's gradient has two axes or four. A batch norm's sums, vectors, go layer by layer, in every pass
            # and its gradient, and where a gradient waits for some of them XLA sends those along that are ready.
            sums = [c for c in found if c.kind == "all-reduce"]
            gradients = [c for c in sums if any(sum(side > 1 for side in a.shape) > 1 for a in c.arrays)]
            with capsys.disabled():
                print(f"\n{paper} {phase.name}: {parameters} bytes of parameters, {traffic.summary(found)}", end="")
                print(f", {len(gradients)} of {len(sums)} sums hold gradients, the others vectors", end="")
            assert len(gradients) <= 4
            assert bool(gradients) == bool(phase.trains)
            # What a network's passes on real, fake and mixed images add to a gradient is summed over devices before it
            # is summed over passes, so that there may be several times the parameters.
            assert sum(c.bytes for c in gradients) <= 6 * parameters
            # The labels of the whole batch, which are shuffled, move. So does, of DIAT's blurred mask of one channel, a
            # block of zeros beside it, by XLA's own choice. One picture or feature map has many more numbers.
            others = [a.shape for c in found if c.kind != "all-reduce" for a in c.arrays]
            assert not [shape for shape in others if len(shape) == 4 and shape[-1] > 1]
            size, labels = method.config.image_size, len(method.attributes) * method.config.batch_size
            assert sum(map(math.prod, others)) <= 8 * labels + size**2
