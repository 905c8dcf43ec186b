"""The beginning of a document that fits what is left of a sample: its last document is cut rather than left out.

Text in, its beginning out: to the end of a paragraph, else of a line, a sentence or a word.
"""

import re
from collections.abc import Callable

# What may be given up for a better border, so that a sample is still filled to 98 % with its other parts' rounding.
SLACK_PERCENT = 1
LONGEST_WORD_CHARS = 40
# English has about four characters a token; a wrong first guess costs one more count.
FIRST_GUESS_CHARS = 4
GOOD_BORDERS = (r"\n\s*\n", r"\n", r"(?<=[.!?])\s|(?<=[\u3002\uff01\uff1f])")
"""Where a text may end, the best first; else between words."""


def cut_to_tokens(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> str:
    """Return the longest beginning of `text` within `max_tokens`, up to 1 % shorter if it then ends on a better border.

    Without the whitespace at its end. Empty if nothing fits. Counts about ten texts, none much longer than the result.
    """
    fitting = _longest_fitting(text, max_tokens, count_tokens)
    if fitting == len(text):
        return text
    slack = fitting * SLACK_PERCENT // 100
    borders = [(border, slack) for border in GOOD_BORDERS] + [(r"\s", max(slack, LONGEST_WORD_CHARS))]
    for border, chars in borders:
        start = max(0, fitting - chars)
        for match in reversed(list(re.finditer(border, text[start : fitting + 1]))):
            piece = text[: start + match.start()].rstrip()
            # A beginning of a text can have a token more than the text.
            if piece and count_tokens(piece) <= max_tokens:
                return piece
    return text[:fitting]


def _longest_fitting(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> int:
    """Characters of the longest beginning of `text` within `max_tokens`, to within 0.2 % of them."""
    low, low_tokens, high, high_tokens = 0, 0, len(text) + 1, 0
    size, step = min(FIRST_GUESS_CHARS * max_tokens, len(text)), 0
    while high - low > 1 and max_tokens - low_tokens > max_tokens // 512:
        tokens, step = count_tokens(text[:size]), step + 1
        if tokens > max_tokens:
            high, high_tokens = size, tokens
        else:
            low, low_tokens = size, tokens
        if not high_tokens:
            size = min(2 * low, len(text))
        elif step % 3:  # in proportion to the tokens, but halved now and then: text is not of one density
            size = low + (high - low) * (max_tokens - low_tokens) // (high_tokens - low_tokens)
        else:
            size = (low + high) // 2
        size = min(max(size, low + 1), high - 1)
    return low
