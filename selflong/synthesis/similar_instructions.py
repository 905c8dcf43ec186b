"""Near-duplicate instructions among all kept samples, found when they are assembled.

The outcome depends on the instructions and their order alone: not on concurrency, and not on how many ranks made them.
"""

import collections
import itertools
from collections.abc import Sequence

from selflong.synthesis.words import ngram_hashes, split_words

SHINGLE_WORDS = 3


def similar_instructions(instructions: Sequence[str], max_similarity_percent: int) -> set[int]:
    """Return the positions to drop: those more similar than that to an earlier one which is kept.

    Similarity is the exact Jaccard index of the sets of three-word shingles. Only texts whose rarest shingles meet are
    compared: two sets can overlap enough only if they share one of them (prefix filter: Bayardo et al., WWW 2007).
    """
    percent = max_similarity_percent
    sets = [_shingles(text) for text in instructions]
    frequency = collections.Counter(itertools.chain.from_iterable(sets))
    # Of a pair, the larger set needs the long prefix and the smaller one the short prefix, whichever comes first. So
    # shingles that many instructions share are in the long prefixes alone, and those are never looked up in each other.
    by_long, by_short = collections.defaultdict[int, list[int]](list), collections.defaultdict[int, list[int]](list)
    dropped = set()
    for position, shingles in enumerate(sets):
        rarest_first = sorted(shingles, key=lambda shingle: (frequency[shingle], shingle))
        long = _prefix(rarest_first, percent, 100)
        short = _prefix(rarest_first, 2 * percent, 100 + percent)
        candidates = {earlier for shingle in long for earlier in by_short.get(shingle, ())}
        candidates.update(earlier for shingle in short for earlier in by_long.get(shingle, ()))
        if any(_exceeds(shingles, sets[earlier], percent) for earlier in candidates):
            dropped.add(position)
            continue
        for index, prefix in ((by_long, long), (by_short, short)):
            for shingle in prefix:
                index[shingle].append(position)
    return dropped


def _shingles(text: str) -> frozenset[int]:
    words = split_words(text)
    return frozenset(ngram_hashes(words, min(SHINGLE_WORDS, len(words))).tolist()) if words else frozenset()


def _prefix(rarest_first: list[int], numerator: int, denominator: int) -> list[int]:
    """As many as leave fewer than `numerator / denominator` of them: a set that shares so many has one among these."""
    must_share = -(-numerator * len(rarest_first) // denominator)
    return rarest_first[: len(rarest_first) - must_share + 1]


def _exceeds(one: frozenset[int], other: frozenset[int], percent: int) -> bool:
    smaller, larger = sorted((len(one), len(other)))
    if 100 * smaller <= percent * larger:
        return False
    shared = len(one & other)
    return 100 * shared > percent * (smaller + larger - shared)
