"""Words as index: documents → shards of bm25s, each a folder that bm25s itself can load; and the search over them.

    shard-00000-of-00002/    bm25s's own files, memory-mapped when searched
        positions.npy        row of the shard → position in the corpus, growing
        words.npy            hashes of the shard's words, growing …
        columns.npy          … and where each word's scores stand

bm25s bakes a shard's own document frequencies and mean length into its scores. Documents are therefore dealt to shards
at random: the shards' statistics then agree, and their scores compare.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from selflong.recipe_synthesis import Retrieval
from selflong.records import Document
from selflong.synthesis.ranking import Floats, Positions, best, merge

Ints = npt.NDArray[np.integer[Any]]
AddScores = Callable[[Floats, Floats, Ints, Ints, Ints], None]


def build_bm25_index(documents: Sequence[Document], retrieval: Retrieval, seed: int, folder: Path) -> dict[str, int]:
    """Write the shards into `folder`; return how many there are and how many different words they hold.

    Holds the token ids of one shard at a time: about 12 KB a document. Shards that stand there from an earlier run of
    the same recipe are kept.
    """
    count = -(-len(documents) // retrieval.shard_documents)
    dealt = np.array_split(np.random.default_rng([seed, 2]).permutation(len(documents)), count)
    for number, positions in enumerate(tqdm(dealt, desc="bm25", unit=" shards", leave=False)):
        shard = folder / f"shard-{number:05d}-of-{count:05d}"
        if not shard.exists():
            _write_shard(documents, np.sort(positions), retrieval, shard)
    words = [np.load(path) for path in sorted(folder.glob("shard-*/words.npy"))]
    return {"shards": count, "words": len(np.unique(np.concatenate(words))) - 1}  # bm25s adds the empty word


def _write_shard(documents: Sequence[Document], positions: Positions, retrieval: Retrieval, shard: Path) -> None:
    """A shard appears whole or not at all: it is written under another name and then renamed."""
    import bm25s

    temporary = shard.with_name(shard.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer = _new_tokenizer()
    texts = (documents[int(position)].text for position in positions)
    ids = tokenizer.tokenize(texts, length=len(positions), return_as="ids", show_progress=False)
    index = bm25s.BM25(method="lucene", k1=retrieval.k1, b=retrieval.b)
    vocabulary = tokenizer.get_vocab_dict()
    index.index((ids, vocabulary), show_progress=False)
    index.save(temporary, show_progress=False)
    hashes = _hashes(list(vocabulary))
    order = np.argsort(hashes)
    np.save(temporary / "positions.npy", positions)
    np.save(temporary / "words.npy", hashes[order])
    np.save(temporary / "columns.npy", np.array(list(vocabulary.values()), dtype=np.int32)[order])
    temporary.rename(shard)


class Bm25Retriever:
    """BM25 (lucene variant) with English stop words and stemming.

    Words of a question that stand in more than `max_document_percent` of the documents are ignored, unless all do.
    """

    name = "bm25"

    def __init__(self, folder: Path, max_document_percent: float) -> None:
        add_scores = _add_scores()
        self._shards = [_Shard(path, add_scores) for path in sorted(folder.glob("shard-*"))]
        self._tokenizer = _new_tokenizer()
        self._limit = sum(len(shard.positions) for shard in self._shards) * max_document_percent / 100

    def retrieve(self, instruction: str, count: int) -> list[int]:
        """Return the positions of the `count` best documents, best first; documents that share no word are left out."""
        words = _hashes(self._words(instruction))
        columns = [shard.columns_of(words) for shard in self._shards]
        frequencies = np.sum([shard.frequencies(c) for shard, c in zip(self._shards, columns, strict=True)], axis=0)
        known = frequencies > 0
        counted = known & (frequencies <= self._limit)
        if not counted.any():
            counted = known
        return merge((shard.search(c[counted], count) for shard, c in zip(self._shards, columns, strict=True)), count)

    def _words(self, text: str) -> list[str]:
        """The stems of a text in its order, repeated ones too. Forgets the last text, so that memory stays as it is."""
        self._tokenizer.reset_vocab()
        ids = self._tokenizer.tokenize([text], update_vocab=True, allow_empty=False, show_progress=False)[0]
        stems = list(self._tokenizer.get_vocab_dict())
        return [stems[i] for i in ids]


class _Shard:
    """One shard, memory-mapped. A word is a column: its documents, and what it adds to the score of each."""

    def __init__(self, folder: Path, add_scores: AddScores) -> None:
        import bm25s

        # A vocabulary as Python's dict takes 100 B a word in every shard; bm25s needs it for words, never for columns.
        loaded = bm25s.BM25.load(folder, mmap=True, load_vocab=False).scores
        # Plain views of the maps: `np.memmap` itself takes microseconds a slice.
        self._scores, self._rows, self._starts = (np.asarray(loaded[key]) for key in ("data", "indices", "indptr"))
        self._words, self._columns = _mapped(folder / "words.npy"), _mapped(folder / "columns.npy")
        self.positions = _mapped(folder / "positions.npy")
        self._add_scores = add_scores

    def columns_of(self, words: npt.NDArray[np.uint64]) -> Ints:
        """Columns of hashed words; -1 for a word that no document of this shard holds."""
        places = np.minimum(np.searchsorted(self._words, words), len(self._words) - 1)
        return np.where(self._words[places] == words, self._columns[places], -1)

    def frequencies(self, columns: Ints) -> Ints:
        """How many documents of this shard hold each word."""
        return np.where(columns >= 0, self._starts[columns + 1] - self._starts[columns], 0)

    def search(self, columns: Ints, count: int) -> tuple[Floats, Positions]:
        """Scores and positions of the `count` best documents; those that share no word are left out."""
        columns = columns[columns >= 0]
        scores = np.zeros(len(self.positions), dtype=np.float32)
        self._add_scores(scores, self._scores, self._rows, self._starts[columns], self._starts[columns + 1])
        rows = best(scores, count, above=0)
        return scores[rows], self.positions[rows]


def _add_scores() -> AddScores:
    """Compiled by numba where that is installed, ten times as fast; the sums are the same to the last bit."""
    try:
        import numba
    except ImportError:
        return _add_slices
    try:
        compiled: AddScores = numba.njit(cache=True)(_add_one_by_one)
    except RuntimeError:  # no folder to keep compiled code in: neither this package's, nor the user's, nor numba's own
        compiled = numba.njit(_add_one_by_one)
    return compiled


def _add_slices(scores: Floats, data: Floats, rows: Ints, starts: Ints, ends: Ints) -> None:
    for start, end in zip(starts, ends, strict=True):
        scores[rows[start:end]] += data[start:end]  # a document stands once in a column


def _add_one_by_one(scores: Floats, data: Floats, rows: Ints, starts: Ints, ends: Ints) -> None:
    for column in range(len(starts)):
        for i in range(starts[column], ends[column]):
            scores[rows[i]] += data[i]


def _new_tokenizer() -> Any:
    import bm25s
    import Stemmer

    return bm25s.tokenization.Tokenizer(stemmer=Stemmer.Stemmer("english"), stopwords="en")


def _hashes(words: list[str]) -> npt.NDArray[np.uint64]:
    """64 bits a word: among a shard's million words two agree once in 30 million shards, and then count as one word."""
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, dtype=np.uint64)


def _mapped(path: Path) -> Any:
    return np.asarray(np.load(path, mmap_mode="r"))
