"""Cut a document into chunks that one call can read: at paragraph ends, then lines, then sentences, then words.

Joined chunks are the document, character for character. Every level counts its text about three times, whatever the
length: as a whole, in parts, and in the chunks made of them.
"""

import bisect
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial

BORDERS = (
    r"(?<=\n)(?=\n*[^\n])(?<=\n\n)|(?<=\n\r\n)(?=[^\r\n])",
    r"(?<=\n)(?!\n)",
    r"(?<=[.!?]) (?=\S)|(?<=[\u3002\uff01\uff1f])(?=[^\s\u3002\uff01\uff1f])",
    r"(?<=\s)(?=\S)",
)
"""Where a text may be cut, the best border first. Chinese and Japanese sentences end without a space."""


def chunk(text: str, max_tokens: int, count_tokens: Callable[[str], int], level: int = 0) -> Iterator[str]:
    """Yield pieces of at most `max_tokens` by `count_tokens`, as long as the borders of this level allow.

    A single word longer than `max_tokens` is cut between characters.
    """
    if count_tokens(text) <= max_tokens:
        if text:
            yield text
        return
    if level == len(BORDERS):
        yield from _cut_characters(text, max_tokens, count_tokens)
        return
    cuts = sorted({0, *(match.end() for match in re.finditer(BORDERS[level], text)), len(text)})
    part_tokens = (count_tokens(text[a:b]) for a, b in itertools.pairwise(cuts))
    sums = list(itertools.accumulate(part_tokens, initial=0))

    # Counts of neighbours add up to within a token, so a joined piece is counted again before it is trusted.
    def is_too_long(first: int, end: int) -> bool:
        return count_tokens(text[cuts[first] : cuts[end]]) > max_tokens

    first = 0
    while first < len(cuts) - 1:
        end = bisect.bisect_right(sums, sums[first] + max_tokens) - 1
        if end == first:
            yield from chunk(text[cuts[first] : cuts[first + 1]], max_tokens, count_tokens, level + 1)
            first += 1
            continue
        if end > first + 1 and is_too_long(first, end):
            end = bisect.bisect_left(range(end), True, lo=first + 2, key=partial(is_too_long, first)) - 1
        yield text[cuts[first] : cuts[end]]
        first = end


def _cut_characters(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> Iterator[str]:
    """Cut off halves of halves of what is left, each the largest that fits, if only one character."""

    def fits(halvings: int) -> bool:
        return count_tokens(text[: len(text) >> halvings]) <= max_tokens

    while text:
        # From small to large: a character is seldom more than a token, and to count all that is left would be slow.
        halvings = (len(text) // max_tokens).bit_length()
        while halvings and fits(halvings - 1):
            halvings -= 1
        while len(text) >> halvings > 1 and not fits(halvings):
            halvings += 1
        size = max(1, len(text) >> halvings)
        yield text[:size]
        text = text[size:]
