"""What the calls of a run were, took and cost: for the manifest and for one live line in a terminal.

Stands beside `llm/engine.py`, which tells it of every answer. Counts of answers and their tokens are a function of the
recipe alone; what was paid anew, latencies, retries and costs belong to this very run, and are kept apart.
"""

import collections
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from selflong.rates import UNKNOWN, Rates

BUCKET_GROWTH = 1.05  # latencies are known to 5 percent, in a few hundred numbers however many calls there are


@dataclass
class Traffic:
    """What a model's server is busy with now, and the causes for which it was asked again. Kept by the model."""

    in_flight: int = 0
    retries: collections.Counter[str] = field(default_factory=collections.Counter)


class Latencies:
    """A histogram of seconds with buckets that grow by `BUCKET_GROWTH`."""

    def __init__(self) -> None:
        self.buckets: collections.Counter[int] = collections.Counter()

    def add(self, seconds: float) -> None:
        self.buckets[math.ceil(math.log(max(seconds, 1e-6), BUCKET_GROWTH))] += 1

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the calls did not exceed; 0 if there were none."""
        rank, seen = percent / 100 * self.buckets.total(), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return float(BUCKET_GROWTH**bucket)
        return 0.0


@dataclass
class StepStats:
    """One step's answers. Those that were not paid anew came from the journal or from a call already under way."""

    answers: int = 0
    reused: int = 0
    coalesced: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    paid_prompt_tokens: int = 0
    paid_completion_tokens: int = 0
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: Latencies = field(default_factory=Latencies)


class Stats:
    """Counts of one run, by step."""

    def __init__(self, traffic: Traffic, rates: Rates = UNKNOWN, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps: collections.defaultdict[str, StepStats] = collections.defaultdict(StepStats)
        self.traffic, self.rates = traffic, rates
        self.longest_call_tokens = 0
        self._clock, self._started = clock, clock()

    def reused(self, step: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer that the journal held."""
        self._answered(step, prompt_tokens, completion_tokens).reused += 1

    def coalesced(self, step: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer that an equal call under way brought."""
        self._answered(step, prompt_tokens, completion_tokens).coalesced += 1

    def paid(self, step: str, prompt_tokens: int, completion_tokens: int, seconds: float) -> None:
        """Count an answer that the model gave in `seconds`."""
        counts = self._answered(step, prompt_tokens, completion_tokens)
        counts.paid_prompt_tokens += prompt_tokens
        counts.paid_completion_tokens += completion_tokens
        counts.latencies.add(seconds)

    def failed(self, step: str, cause: str) -> None:
        """Count a call that was given up."""
        self.steps[step].failed[cause] += 1

    @property
    def cost_usd(self) -> float | None:
        """What this run's answers cost, or None without prices; refused and cut attempts are not known to cost."""
        tokens = [(s.paid_prompt_tokens, s.paid_completion_tokens) for s in self.steps.values()]
        return self.rates.usd(sum(p for p, _ in tokens), sum(c for _, c in tokens))

    def as_facts(self) -> dict[str, Any]:
        """For the manifest: `calls` and tokens by step are the same in every run; `timings` is about this one."""
        steps = {name: self.steps[name] for name in sorted(self.steps)}
        return {
            "calls": {name: step.answers for name, step in steps.items()},
            "prompt_tokens": {name: step.prompt_tokens for name, step in steps.items()},
            "completion_tokens": {name: step.completion_tokens for name, step in steps.items()},
            "longest_call_tokens": self.longest_call_tokens,
            "timings": {
                "seconds": round(self._clock() - self._started, 1),
                "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 4),
                "completion_tokens_per_second": round(self._tokens_per_second(), 1),
                "retries": dict(sorted(self.traffic.retries.items())),
                "steps": {name: _run_facts(step) for name, step in steps.items()},
            },
        }

    def live_line(self) -> str:
        """Answers by step, speed, latency, load, cost and reuse in one line."""
        everything = Latencies()
        for step in self.steps.values():
            everything.buckets.update(step.latencies.buckets)
        retries, reused = self.traffic.retries.total(), sum(step.reused for step in self.steps.values())
        parts = [
            " ".join(f"{name} {step.answers:,}" for name, step in self.steps.items()) + " calls",
            f"{self._tokens_per_second():,.0f} tok/s"
            f" p50 {everything.percentile(50):.1f} s p99 {everything.percentile(99):.1f} s",
            f"{self.traffic.in_flight} in flight, {retries:,} retries",
        ]
        if self.cost_usd is not None:
            parts.append(f"${self.cost_usd:,.2f}")
        return " | ".join([*parts, f"reused {reused:,}"])

    def _answered(self, step: str, prompt_tokens: int, completion_tokens: int) -> StepStats:
        counts = self.steps[step]
        counts.answers += 1
        counts.prompt_tokens += prompt_tokens
        counts.completion_tokens += completion_tokens
        self.longest_call_tokens = max(self.longest_call_tokens, prompt_tokens + completion_tokens)
        return counts

    def _tokens_per_second(self) -> float:
        seconds = self._clock() - self._started
        return sum(step.paid_completion_tokens for step in self.steps.values()) / seconds if seconds > 0 else 0.0


def _run_facts(step: StepStats) -> dict[str, Any]:
    return {
        "paid": step.answers - step.reused - step.coalesced,
        "reused": step.reused,
        "coalesced": step.coalesced,
        "failed": dict(sorted(step.failed.items())),
        "p50_seconds": round(step.latencies.percentile(50), 3),
        "p99_seconds": round(step.latencies.percentile(99), 3),
    }
