"""What one sample cost and lost: counted beside the sample, so the sums are the same whatever ran beside it."""

import collections
from dataclasses import dataclass, field, fields
from typing import Any

Counts = collections.Counter[str]


@dataclass
class Tally:
    """Counts over all attempts at a sample, those that failed a gate included; sums of them go into the manifest."""

    tried: int = 0
    kept: int = 0
    dropped: Counts = field(default_factory=collections.Counter)
    """Attempts that failed a gate, by reason."""
    failed: dict[str, str] = field(default_factory=dict)
    """Rows that are missing in the end: index → cause."""
    ignored: Counts = field(default_factory=collections.Counter)
    """Replies that were not used, by reason."""
    calls: Counts = field(default_factory=collections.Counter)
    prompt_tokens: Counts = field(default_factory=collections.Counter)
    completion_tokens: Counts = field(default_factory=collections.Counter)
    longest_call_tokens: int = 0

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name == "longest_call_tokens":
                self.longest_call_tokens = max(mine, theirs)
            elif isinstance(mine, int):
                setattr(self, f.name, mine + theirs)
            else:
                mine.update(theirs)

    def as_facts(self) -> dict[str, Any]:
        """Plain data with sorted keys."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(sorted(v.items())) if isinstance(v, dict) else v for name, v in values.items()}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "Tally":
        """Read what `as_facts` wrote."""
        counters = {"dropped", "ignored", "calls", "prompt_tokens", "completion_tokens"}
        values: dict[str, Any] = {n: collections.Counter(v) if n in counters else v for n, v in facts.items()}
        return cls(**values)
