"""Decontamination: which texts share a run of words with the evaluation rows in use.

Reads `out/evals/data` by path (one config a folder, listed in `tasks.json`). A document or a sample that shares a run
of `gates.decontaminate_words` words with a question, its haystack or its answers is not used. What was compared with:
`{"words": 13, "configs": {"needle_256": 55, ...}, "num_rows": 935, "num_ngrams": 812345, "ngram_share": 1.0}`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from selflong.errors import UserError
from selflong.synthesis.words import Hashes, ngram_hashes, split_words, stand_in

# 256 MiB of hashes. The 1B recipe's rows hold 365M tokens, most of them filler: all their runs would be over 2 GiB.
MAX_NGRAMS = 2**25
# Rows read at once: of a million tokens each, about 64 MB.
ROWS_PER_BATCH = 16
COLUMNS = ["input", "answer_prefix", "answers"]


class Ngrams:
    """The runs of `words` words of all evaluation rows, as sorted hashes in bounded memory.

    Beyond `max_ngrams`, those whose hash lies in the upper half are left out, again and again: the same ones for every
    text, so a document that shares a passage is still found, and a single shared run by the chance `ngram_share`.
    """

    def __init__(self, words: int, max_ngrams: int = MAX_NGRAMS) -> None:
        self.words, self.max_ngrams = words, max_ngrams
        self.rows: dict[str, int] = {}
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._halvings = 0

    def hits(self, text: str) -> int:
        """Return how many runs of `text` stand in the evaluation rows, repeated ones each time."""
        if not len(self._hashes):
            return 0
        found, _ = stand_in(ngram_hashes(split_words(text), self.words), self._hashes)
        return int(found.sum())

    def facts(self) -> dict[str, Any]:
        """What was compared with, for the manifest and the card."""
        return {
            "words": self.words,
            "configs": self.rows,
            "num_rows": sum(self.rows.values()),
            "num_ngrams": len(self._hashes),
            "ngram_share": 0.5**self._halvings,
        }

    def add(self, texts: list[str]) -> None:
        """Take in evaluation texts."""
        found = [self._thinned(ngram_hashes(split_words(text), self.words)) for text in texts]
        # Two sorted halves merge in one pass; np.unique takes a hundred times as long (numpy 2.4: 16 s for 10M).
        both = np.concatenate([self._hashes, np.sort(np.concatenate(found))])
        both.sort(kind="stable")
        first = np.ones(len(both), dtype=np.bool_)
        first[1:] = both[1:] != both[:-1]
        self._hashes = both[first]
        while len(self._hashes) > self.max_ngrams:
            self._halvings += 1
            self._hashes = self._thinned(self._hashes)

    def _thinned(self, hashes: Hashes) -> Hashes:
        return hashes[hashes <= np.uint64((2**64 - 1) >> self._halvings)]


def load_ngrams(folder: Path, words: int) -> Ngrams:
    """Read the evaluation rows below `folder`. Raises UserError if there are none."""
    tasks = folder / "tasks.json"
    configs = sorted(json.loads(tasks.read_text(encoding="utf-8"))) if tasks.is_file() else []
    ngrams = Ngrams(words)
    for config in configs:
        ngrams.rows[config] = 0
        for texts in _iter_texts(folder / config):
            ngrams.rows[config] += len(texts)
            ngrams.add(texts)
    if not any(ngrams.rows.values()):
        remedy = "run `selflong build-evals` first, or leave out gates.decontaminate_words"
        raise UserError(folder, "holds no evaluation rows to decontaminate against", remedy)
    return ngrams


def _iter_texts(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.glob("test-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=COLUMNS):
                rows = batch.to_pylist()
                yield [" ".join([row["input"], row["answer_prefix"], *row["answers"]]) for row in rows]
