"""Box 2 of the arrow: `corpus/` → `index/`; and the search in it, which finds documents for an instruction.

    index/bm25/     words: needs no weights (the default)
    index/dense/    vectors: the paper retrieves with E5-mistral-7b
    both            hybrid: reciprocal-rank fusion of the two

Everything in `index/` is memory-mapped: neither building nor searching holds more than one shard of the corpus.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from selflong.recipe_synthesis import Retrieval
from selflong.synthesis.bm25_index import Bm25Retriever, build_bm25_index
from selflong.synthesis.dense_index import DenseRetriever, build_dense_index
from selflong.synthesis.documents import read_documents
from selflong.synthesis.ranking import fuse

# A document just below the end of both lists may beat one at the end of either.
FUSED_AT_LEAST = 100


class Retriever(Protocol):
    """Finds documents for an instruction."""

    @property
    def name(self) -> str:
        """What found them, for provenance: `bm25`, `dense:<model>` or `hybrid:bm25+<model>`."""
        ...

    def retrieve(self, instruction: str, count: int) -> list[int]:
        """Return the positions in the corpus of at most `count` documents, best first, equal ones by position."""
        ...


def build_index(retrieval: Retrieval, seed: int, corpus: Path, work: Path, facts: dict[str, Any]) -> None:
    """Write the index of the corpus folder into `work`; counts go into `facts`.

    Finished parts that a killed run left in `work` are kept. Raises UserError if the embedding model cannot be asked.
    """
    documents = read_documents(corpus / "documents.arrow")
    facts.update(method=retrieval.method, documents=len(documents))
    if retrieval.method != "dense":
        facts["bm25"] = build_bm25_index(documents, retrieval, seed, _made(work / "bm25"))
    if retrieval.embedding:
        facts["dense"] = {
            "model": retrieval.embedding.model,
            **build_dense_index(documents, retrieval.embedding, _made(work / "dense")),
        }
    facts["bytes"] = sum(path.stat().st_size for path in work.glob("*/**/*") if path.is_file())


def open_retriever(retrieval: Retrieval, index: Path) -> Retriever:
    """Open what `build_index` wrote for this section. Raises UserError if the embedding model cannot be asked."""
    retrievers: list[Retriever] = []
    if retrieval.method != "dense":
        retrievers.append(Bm25Retriever(index / "bm25", retrieval.max_document_percent))
    if retrieval.embedding:
        retrievers.append(DenseRetriever(index / "dense", retrieval.embedding))
    return HybridRetriever(retrievers) if len(retrievers) > 1 else retrievers[0]


class HybridRetriever:
    """Reciprocal-rank fusion of what several retrievers find."""

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self.name = "hybrid:" + "+".join(retriever.name.removeprefix("dense:") for retriever in retrievers)
        self._retrievers = retrievers

    def retrieve(self, instruction: str, count: int) -> list[int]:
        """`Retriever.retrieve`."""
        depth = max(count, FUSED_AT_LEAST)
        return fuse([retriever.retrieve(instruction, depth) for retriever in self._retrievers], count)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
