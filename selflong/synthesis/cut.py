"""STUB until merge."""

import re


def cut_to_tokens(text, max_tokens, count):
    if max_tokens <= 0:
        return ""
    if count(text) <= max_tokens:
        return text
    ends = [m.start() for m in re.finditer(r"\s+", text)]
    lo, hi = 0, len(ends) - 1
    best = ""
    while lo <= hi:
        mid = (lo + hi) // 2
        if count(text[: ends[mid]]) <= max_tokens:
            best = text[: ends[mid]]
            lo = mid + 1
        else:
            hi = mid - 1
    return best
