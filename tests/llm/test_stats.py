"""Statistics: what is the same in every run is kept apart from what this run took; memory is bounded."""

import random

import pytest

from selflong.llm.stats import Latencies, Stats, Traffic
from selflong.rates import Rates, TokenRates


def counted(paid: int, reused: int) -> Stats:
    now = iter([0.0, *[10.0] * 9])
    stats = Stats(Traffic(), Rates(TokenRates(1.0, 10.0)), clock=lambda: next(now))
    for _ in range(paid):
        stats.paid("reading", 1000, 100, 0.5)
    for _ in range(reused):
        stats.reused("reading", 1000, 100)
    return stats


def test_facts_are_those_of_a_resumed_run_but_for_the_timings() -> None:
    whole, resumed = counted(8, 0).as_facts(), counted(3, 5).as_facts()
    timings, resumed_timings = whole.pop("timings"), resumed.pop("timings")
    assert whole == resumed
    assert whole["calls"] == {"reading": 8}
    assert (timings["cost_usd"], resumed_timings["cost_usd"]) == (0.016, 0.006)
    assert resumed_timings["steps"]["reading"] == {
        "paid": 3, "reused": 5, "coalesced": 0, "failed": {}, "p50_seconds": 0.505, "p99_seconds": 0.505,
    }  # fmt: skip


def test_the_live_line() -> None:
    stats = counted(1204, 512)
    stats.coalesced("response", 10, 10)
    stats.traffic.in_flight = 128
    stats.traffic.retries.update({"HTTP 429": 2, "timed out": 1})
    assert stats.live_line() == (
        "reading 1,716 response 1 calls | 12,040 tok/s p50 0.5 s p99 0.5 s | 128 in flight, 3 retries | $2.41"
        " | reused 512"
    )


@pytest.mark.parametrize("percent", [50, 99])
def test_percentiles_are_right_to_a_twentieth_in_bounded_memory(percent: int) -> None:
    rng, latencies = random.Random(0), Latencies()
    seconds = sorted(rng.lognormvariate(0, 1) for _ in range(20_000))
    for value in seconds:
        latencies.add(value)
    exact = seconds[len(seconds) * percent // 100]
    assert exact <= latencies.percentile(percent) * 1.001 <= exact * 1.06
    assert len(latencies.buckets) < 300
    assert Latencies().percentile(50) == 0
