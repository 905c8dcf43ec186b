"""Cut a document into chunks that one call can read: at paragraph ends, then lines, then sentences, then words.

Joined chunks are the document, character for character.
"""

import itertools
import re
from collections.abc import Callable, Iterator

BORDERS = (r"(?<=\n)(?=\n*[^\n])(?<=\n\n)", r"(?<=\n)(?!\n)", r"(?<=[.!?]) (?=\S)", r"(?<=\s)(?=\S)")
"""Where a text may be cut, the best border first."""


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
    piece, piece_tokens = "", 0
    for part in _split(text, BORDERS[level]):
        part_tokens = count_tokens(part)
        # Counts of neighbours add up to within a token, so the joined piece is counted again before it is trusted.
        if piece and (piece_tokens + part_tokens > max_tokens or count_tokens(piece + part) > max_tokens):
            yield piece
            piece, piece_tokens = "", 0
        if part_tokens > max_tokens:
            yield from chunk(part, max_tokens, count_tokens, level + 1)
        else:
            piece, piece_tokens = piece + part, piece_tokens + part_tokens
    if piece:
        yield piece


def _split(text: str, border: str) -> list[str]:
    cuts = [0, *(match.end() for match in re.finditer(border, text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(cuts) if a < b]


def _cut_characters(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> Iterator[str]:
    while text:
        size = len(text)
        while size > 1 and count_tokens(text[:size]) > max_tokens:
            size //= 2
        yield text[:size]
        text = text[size:]
