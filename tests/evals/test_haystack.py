"""Haystacks and the search for the largest that fits."""

from random import Random

import pytest

from selflong.evals.haystack import Haystack, largest_fitting


def test_the_largest_fitting_is_exact_and_cheap() -> None:
    probes: list[int] = []

    def render(units: int) -> str:
        probes.append(units)
        return "x" * (7 + 3 * units)

    for budget in range(7, 400):
        probes.clear()
        units = largest_fitting(render, len, budget)
        assert 7 + 3 * units <= budget < 7 + 3 * (units + 1)
        assert len(probes) <= 24, "bisection, not a walk"


def test_an_irregular_count_never_exceeds_the_budget() -> None:
    rng = Random(0)
    wiggle = [rng.randrange(4) for _ in range(5000)]
    for budget in (10, 100, 999):
        units = largest_fitting(lambda n: "x" * (2 * n + wiggle[n % 5000]), len, budget)
        assert 2 * units + wiggle[units % 5000] <= budget
        assert 2 * (units + 4) > budget


def test_too_small_a_budget_raises() -> None:
    with pytest.raises(ValueError, match="8 tokens without any filler exceed the budget of 7"):
        largest_fitting(lambda units: "x" * (8 + units), len, 7)


def test_a_render_that_stops_growing_raises_instead_of_looping() -> None:
    with pytest.raises(ValueError, match="does not grow"):
        largest_fitting(lambda units: "x" * min(units, 10), len, 50)


def test_a_haystack_is_endless_seeded_and_uses_every_document_once_per_pass() -> None:
    documents = [f"document {number}" for number in range(9)]
    first = Haystack(documents, Random(1)).cut(2_000)
    assert first == Haystack(documents, Random(1)).cut(2_000)
    assert first != Haystack(documents, Random(2)).cut(2_000)
    assert sorted(first.split("\n\n")[:9]) == documents
    with pytest.raises(ValueError, match="no held-out document"):
        Haystack([" \n"], Random(1))
