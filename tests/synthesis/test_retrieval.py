"""The index box and what opens it: every method from one recipe section, fused lists, wrong sections refused."""

from pathlib import Path
from typing import Any

import pytest

from selflong.errors import UserError
from selflong.recipe import load_recipe
from selflong.recipe_synthesis import Embedding, Retrieval
from selflong.records import Document
from selflong.strict import build
from selflong.synthesis.documents import write_documents
from selflong.synthesis.retrieval import HybridRetriever, build_index, open_retriever
from tests.embeddings_server import EmbeddingsServer
from tests.test_run import edit, recipe_dir  # noqa: F401

TEXTS = ["the harbor at night", "a lantern by the river", "copper and tin", "river, harbor, lantern"]


def embed(text: str) -> list[float]:
    """Counts of a few letters: near where letters agree, whatever the words."""
    return [1.0 + text.count(letter) for letter in "aeioptr"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_documents(tmp_path / "documents.arrow", [Document(str(i), text, "", "") for i, text in enumerate(TEXTS)])
    return tmp_path


@pytest.mark.parametrize("method", ["bm25", "dense", "hybrid"])
def test_each_method_builds_what_it_opens(method: Any, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = None if method == "bm25" else Embedding("org/model", "endpoint")
    retrieval = Retrieval(4, method=method, embedding=embedding)
    facts: dict[str, Any] = {}
    (corpus / "work").mkdir()
    with EmbeddingsServer(embed) as server:
        monkeypatch.setenv("SELFLONG_EMBEDDINGS_URL", server.base_url)
        build_index(retrieval, 0, corpus, corpus / "work", facts)
        retriever = open_retriever(retrieval, corpus / "work")
        found = retriever.retrieve("a lantern", 4)
    assert retriever.name == {"bm25": "bm25", "dense": "dense:org/model", "hybrid": "hybrid:bm25+org/model"}[method]
    assert found[0] == 1 and (set(found) == {1, 3} if method == "bm25" else set(found) == {0, 1, 2, 3})
    assert {p.name for p in (corpus / "work").iterdir()} == ({"bm25", "dense"} if method == "hybrid" else {method})
    assert facts["method"] == method and facts["documents"] == 4
    assert facts["bytes"] == sum(p.stat().st_size for p in (corpus / "work").rglob("*") if p.is_file()) > 0
    assert facts.get("bm25") == (None if method == "dense" else {"shards": 1, "words": 6})
    assert facts.get("dense") == (None if method == "bm25" else {"model": "org/model", "files": 1, "dimension": 7})


def test_hybrid_looks_deeper_than_what_is_asked_for() -> None:
    class Listed:
        name = "listed"

        def __init__(self, ranking: list[int]) -> None:
            self.ranking = ranking

        def retrieve(self, instruction: str, count: int) -> list[int]:
            return self.ranking[:count]

    # 9 is second of both lists: 2/62 beats 1/61, though neither list of one holds it.
    assert HybridRetriever([Listed([1, 9]), Listed([2, 9])]).retrieve("", 1) == [9]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"method": "dense"}, "method dense needs vectors; add embedding"),
    ({"method": "hybrid"}, "method hybrid needs vectors; add embedding"),
    ({"embedding": {"model": "a/b", "backend": "endpoint"}}, "method bm25 reads no embedding; remove it"),
    ({"method": "dence"}, "did you mean dense"),
    ({"k1": -1}, "k1 is at least 0"),
    ({"shard_documents": 0}, "shard_documents must be positive"),
    ({"method": "dense", "embedding": {"model": "stage:base", "backend": "endpoint"}}, "name an embedding model"),
    ({"method": "dense", "embedding": {"model": "a/b", "backend": "endpoint", "prefix": ""}}, "prefix is not a key"),
]


@pytest.mark.parametrize(("keys", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_section_is_refused_at_load(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(Retrieval, {"candidates": 4, **keys}, "synthesis.yaml: retrieval")


def test_a_model_in_this_process_wants_its_library_at_load(
    recipe_dir: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selflong.recipe_checks._is_installed", lambda module: False)
    vectors = {"model": "a/b", "backend": "sentence-transformers"}
    edit(recipe_dir, "synthesis", lambda c: c["retrieval"].update(method="hybrid", embedding=vectors))
    with pytest.raises(UserError, match=r"sentence-transformers is not installed; pip install 'selflong\[dense\]'"):
        load_recipe(recipe_dir)
    edit(recipe_dir, "synthesis", lambda c: c["retrieval"]["embedding"].update(backend="endpoint"))
    assert load_recipe(recipe_dir).synthesis.retrieval.method == "hybrid"
