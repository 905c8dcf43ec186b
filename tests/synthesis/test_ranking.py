"""Rankings: exactly the best, equal ones by position, whatever the sizes."""

import numpy as np
import pytest

from selflong.synthesis.ranking import best, fuse, merge


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1_000, 10_000])
@pytest.mark.parametrize("count", [1, 7, 64, 2_000])
def test_the_best_are_those_of_a_full_sort(size: int, count: int) -> None:
    rng = np.random.default_rng([size, count])
    for levels in (2, 10, 1_000_000):  # few levels: most scores are equal
        scores = rng.integers(-1, levels, size).astype(np.float32)
        everything = sorted(range(size), key=lambda i: (-scores[i], i))
        assert best(scores, count).tolist() == everything[:count]
        positive = [i for i in everything if scores[i] > 0]
        assert best(scores, count, above=0).tolist() == positive[:count]


def test_merged_lists_go_by_score_and_then_by_position() -> None:
    first = np.array([3, 1], dtype=np.float32), np.array([8, 2])
    second = np.array([3, 2], dtype=np.float32), np.array([5, 9])
    nothing = np.array([], dtype=np.float32), np.array([], dtype=np.int64)
    assert merge([first, nothing, second], 3) == [5, 8, 9]
    assert merge([nothing], 3) == []


def test_fusion_adds_reciprocal_ranks() -> None:
    # 1/62 + 1/61 for 4, 1/61 + 1/63 for 1, 1/62 for 7, 1/63 for 9: both lists count, and 1 / (60 + rank) is the weight.
    assert fuse([[1, 4, 9], [4, 7, 1]], 10) == [4, 1, 7, 9]
    assert fuse([[1, 4, 9], [4, 7, 1]], 2) == [4, 1]
    assert fuse([[3], [2]], 2) == [2, 3], "equal scores go by position"
    # 62nd of both lists is worth as much as first of one, 2/122 = 1/61: ranks start at 1.
    both, single = 100, 200
    fillers = range(1_000, 1_060), range(2_000, 2_060)
    assert fuse([[single, *fillers[0], both], [3_000, *fillers[1], both]], 2) == [both, single]
    # Third of both lists (2/63) beats the first of one (1/61).
    assert fuse([[1, 2, 3], [4, 5, 3]], 1) == [3]
