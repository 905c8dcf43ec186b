"""Synthetic facts: the words that form their keys, and how they come into documents.

Stands inside box 1. Where the text holds nothing that the generator could be asked, `FactInserter` puts in sentences
of one form. The words of keys are dealt to training and evaluation, so that needle keys of the two never meet.
"""

import collections
import itertools
import re
from collections.abc import Iterable

import numpy as np

from selflong.errors import UserError
from selflong.records import Document
from selflong.text_skills import NOTHING, fact

SKIPPED_WORDS = 400


def frequent_words(texts: Iterable[str], count: int) -> list[str]:
    """`count` frequent plain lower-case words of 4 to 8 letters, ties in alphabetical order.

    The `SKIPPED_WORDS` most frequent are left out where enough remain: they are function words ("that", "with"), which
    retrieval ignores.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(re.findall(r"(?<![\w.(])[a-z]{4,8}(?![\w.(])", text))
    del counts[NOTHING]  # a key must not look like a refusal
    ranked = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    skipped = max(0, min(SKIPPED_WORDS, len(ranked) - count))
    return ranked[skipped : skipped + count]


def split_names(words: list[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Deal words to training and evaluation, four to one: needle keys of the two never share a word."""
    order = rng.permutation(len(words))
    num_heldout = len(words) // 5
    return {
        "train": sorted(words[i] for i in order[num_heldout:]),
        "heldout": sorted(words[i] for i in order[:num_heldout]),
    }


class FactInserter:
    """Puts one fact, on a line of its own, into a share of the documents, which come to `insert` in their order.

    Every key (two words in alphabetical order) is used once in the whole corpus, so a fact has one true value.
    Raises UserError if the words form too few keys.
    """

    def __init__(self, num_documents: int, words: list[str], share_percent: int, rng: np.random.Generator) -> None:
        self.inserted: list[tuple[str, str, str]] = []
        """Document id, key and value of each fact; never more than there are keys."""
        chosen = rng.random(num_documents) * 100 < share_percent
        self._pairs = list(itertools.combinations(sorted(words), 2))
        if chosen.sum() > len(self._pairs):
            raise UserError(
                "corpus.facts",
                f"{chosen.sum()} facts want keys, {len(words)} words make {len(self._pairs)}",
                "raise corpus.num_name_words or lower facts.share_percent",
            )
        self._chosen, self._keys, self._rng = iter(chosen), iter(rng.permutation(len(self._pairs))), rng

    def insert(self, document: Document) -> Document:
        """Return the next document, with its fact if it gets one."""
        if not next(self._chosen):
            return document
        key, value = " ".join(self._pairs[next(self._keys)]), f"{self._rng.integers(0, 1_000_000):06d}"
        lines = document.text.split("\n")
        lines.insert(int(self._rng.integers(0, len(lines) + 1)), fact(key, value))
        self.inserted.append((document.id, key, value))
        return Document(document.id, "\n".join(lines), document.source, document.license)
