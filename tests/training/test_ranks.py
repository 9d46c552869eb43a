"""Several ranks train as one process does, by every method. `python -m benchmarks ranks` is the long form."""

import pytest

from benchmarks import lost_rank, ranks
from kdhelpers.methods import METHODS

CASES = {case.name: case for case in ranks.cases()}
COMPARE_IMAGES = "rkd pkt sp dist luminet mlkd crd crd_inbatch supcon supcrd conkd cocord".split()


@pytest.fixture(scope="module")
def of_three():
    return ranks.differences(list(CASES.values()), world=3, epochs=1)


@pytest.fixture(scope="module")
def of_two():
    chosen = ["si", "hints", "lm_unlabelled", *COMPARE_IMAGES, *(set(CASES) - set(METHODS))]
    return ranks.differences([CASES[name] for name in chosen], world=2, epochs=1)


@pytest.mark.parametrize("name", CASES)
def test_three_ranks_end_with_the_weights_of_one_process(of_three, name):
    assert of_three[name] <= ranks.TOLERANCE


def test_two_ranks_do_too(of_two):
    assert max(of_two.values()) <= ranks.TOLERANCE, of_two


def test_a_lost_rank_ends_the_others_and_a_restart_reaches_the_same_bits():
    differing, seconds = lost_rank.after_kills(2, [(1, lost_rank.STEPS + 3)])  # in the second epoch
    assert differing == 0
    assert max(seconds) < lost_rank.SECONDS
