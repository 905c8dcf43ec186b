"""Vectors as index: documents → `vectors-00000-of-00003.npy`, float16 of unit length; and the flat search over them.

Row i of file n belongs to the document at n x ROWS_PER_FILE + i of the corpus. Flat, so that what is found is exactly
what the model thinks nearest, as in the paper.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from selflong.errors import UserError
from selflong.recipe_synthesis import Embedding
from selflong.records import Document
from selflong.synthesis.embedding import Embedder, open_embedder
from selflong.synthesis.ranking import Floats, Positions, best, merge

# What a kill may cost, and what a search holds in memory as float32: 64 MiB of E5-mistral's 4,096 numbers a vector.
ROWS_PER_FILE = 4_096


def build_dense_index(documents: Sequence[Document], embedding: Embedding, folder: Path) -> dict[str, int]:
    """Write the vectors into `folder`; return how many files there are and how many numbers a vector has.

    Files that stand there from an earlier run of the same recipe are kept, so no vector of theirs is paid for twice.
    """
    count = -(-len(documents) // ROWS_PER_FILE)
    paths = [folder / f"vectors-{number:05d}-of-{count:05d}.npy" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    embedder = open_embedder(embedding) if missing else None
    dimensions = {np.load(path, mmap_mode="r").shape[1] for path in paths if path.exists()}
    for number in tqdm(missing, desc="vectors", unit=" files", leave=False):
        assert embedder is not None
        rows = range(number * ROWS_PER_FILE, min((number + 1) * ROWS_PER_FILE, len(documents)))
        vectors = unit_vectors(embedder, [documents[row].text[: embedding.max_document_chars] for row in rows])
        dimensions.add(vectors.shape[1])
        _check_dimensions(dimensions, embedding)
        temporary = paths[number].with_name(paths[number].name + ".tmp")
        with temporary.open("wb") as file:
            np.save(file, vectors.astype(np.float16))
        temporary.rename(paths[number])
    return {"files": count, "dimension": dimensions.pop()}


class DenseRetriever:
    """Cosine similarity between the instruction, after the model's query prefix, and every document."""

    def __init__(self, folder: Path, embedding: Embedding) -> None:
        self.name = f"dense:{embedding.model}"
        self._paths = sorted(folder.glob("vectors-*.npy"))
        self._embedding, self._embedder = embedding, open_embedder(embedding)

    def retrieve(self, instruction: str, count: int) -> list[int]:
        """Return the positions of the `count` nearest documents, nearest first."""
        query = unit_vectors(self._embedder, [self._embedding.query_prefix + instruction])[0]
        return merge((self._search(number, query, count) for number in range(len(self._paths))), count)

    def _search(self, number: int, query: Floats, count: int) -> tuple[Floats, Positions]:
        # Opened anew each time, a tenth of a millisecond: 10M documents are more files than a process may hold open.
        vectors = np.load(self._paths[number], mmap_mode="r")
        _check_dimensions({vectors.shape[1], len(query)}, self._embedding)
        # Not `@`: BLAS adds a row's products in an order that depends on where the row stands, so that equal vectors
        # would not tie. Reading float16 takes nine tenths of the time either way.
        scores: Floats = np.einsum("ij,j->i", vectors.astype(np.float32), query)
        rows = best(scores, count)
        return scores[rows], rows + number * ROWS_PER_FILE


def unit_vectors(embedder: Embedder, texts: Sequence[str]) -> Floats:
    """Vectors of length 1. Raises UserError for a vector without direction."""
    vectors = embedder.embed(texts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise UserError("retrieval.embedding", "the model gives vectors of zeros or no numbers", "check the model")
    units: Floats = vectors / lengths
    return units


def _check_dimensions(dimensions: set[int], embedding: Embedding) -> None:
    if len(dimensions) > 1:
        raise UserError(
            f"retrieval.embedding.model {embedding.model}",
            f"vectors of {' and of '.join(map(str, sorted(dimensions)))} numbers",
            "serve the model that the index was built with, or build anew: selflong run --force index",
        )
