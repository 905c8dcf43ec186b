"""Near-duplicate instructions among all kept samples, found when they are assembled.

The outcome depends on the instructions and their order alone: not on concurrency, and not on how many ranks made them.
"""

import collections
import itertools
from collections.abc import Sequence

from selflong.synthesis.words import ngram_hashes, split_words

SHINGLE_WORDS = 3


def near_duplicates(instructions: Sequence[str], max_similarity_percent: int) -> set[int]:
    """Return the positions to drop: those more similar than that to an earlier one which is kept.

    Similarity is the exact Jaccard index of the sets of three-word shingles. Texts are compared only if their rarest
    shingles meet (prefix filter of Bayardo et al., WWW 2007): two sets that overlap enough share one of them.
    """
    sets = [_shingles(text) for text in instructions]
    frequency = collections.Counter(itertools.chain.from_iterable(sets))
    kept: dict[int, list[int]] = collections.defaultdict(list)
    dropped = set()
    for position, shingles in enumerate(sets):
        rarest_first = sorted(shingles, key=lambda shingle: (frequency[shingle], shingle))
        must_share = -(-max_similarity_percent * len(shingles) // 100)
        prefix = rarest_first[: len(shingles) - must_share + 1]
        candidates = {earlier for shingle in prefix for earlier in kept[shingle]}
        if any(_exceeds(shingles, sets[earlier], max_similarity_percent) for earlier in candidates):
            dropped.add(position)
            continue
        for shingle in prefix:
            kept[shingle].append(position)
    return dropped


def _shingles(text: str) -> frozenset[int]:
    words = split_words(text)
    return frozenset(ngram_hashes(words, min(SHINGLE_WORDS, len(words))).tolist()) if words else frozenset()


def _exceeds(one: frozenset[int], other: frozenset[int], percent: int) -> bool:
    smaller, larger = sorted((len(one), len(other)))
    if 100 * smaller <= percent * larger:
        return False
    shared = len(one & other)
    return 100 * shared > percent * (smaller + larger - shared)
