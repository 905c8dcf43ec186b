"""Haystacks: held-out documents in a seeded order, cut to the token budget of an evaluation row.

Stands between `corpus/heldout.parquet` and the rows of `needle.py` (paper, section 4: needle test). Nothing of the text
was used for synthesis or training.
"""

from collections.abc import Callable, Sequence
from random import Random

MAX_DOUBLINGS = 40
"""A thousand times the units of a context of a billion tokens: only a `render` that stops growing gets there."""


class Haystack:
    """Text without end: whole documents, separated by empty lines, in a new random order on every pass."""

    def __init__(self, documents: Sequence[str], rng: Random) -> None:
        if not any(document.strip() for document in documents):
            raise ValueError("no held-out document holds text")
        self._documents = [document.strip("\n") for document in documents if document.strip()]
        self._rng = rng
        self._text = ""

    def cut(self, num_chars: int) -> str:
        """Return the first `num_chars` characters. A cut may split a word: that is what fills a row to the token."""
        while len(self._text) < num_chars:
            order = self._rng.sample(self._documents, len(self._documents))
            self._text += "\n\n".join(order) + "\n\n"
        return self._text[:num_chars]


def largest_fitting(render: Callable[[int], str], count_tokens: Callable[[str], int], budget: int) -> int:
    """Return the most filler units for which `render(units)` stays within `budget` tokens.

    Assumes that more units never give fewer tokens; where that fails by a token or two (merges at the cut), the result
    still fits, it is only not the very largest. Raises ValueError if even zero units do not fit.
    """
    tokens = count_tokens(render(0))
    if tokens > budget:
        raise ValueError(f"{tokens} tokens without any filler exceed the budget of {budget}")
    low, low_tokens, high = 0, tokens, 1
    for _ in range(MAX_DOUBLINGS):
        high_tokens = count_tokens(render(high))
        if high_tokens > budget:
            break
        low, low_tokens, high = high, high_tokens, 2 * high
    else:
        raise ValueError(f"{low} units still fit {budget} tokens: render does not grow with its units")
    interpolate = True  # Tokens grow almost linearly, so every second probe guesses; the others halve what is left.
    while high - low > 1:
        share = (budget - low_tokens) / (high_tokens - low_tokens) if interpolate else 0.5
        middle = min(max(low + 1, low + int((high - low) * share)), high - 1)
        tokens = count_tokens(render(middle))
        if tokens <= budget:
            low, low_tokens = middle, tokens
        else:
            high, high_tokens = middle, tokens
        interpolate = not interpolate
    return low
