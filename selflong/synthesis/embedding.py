"""Texts → vectors, for dense retrieval: a server that speaks OpenAI's embeddings protocol (TEI, vLLM, SGLang,
llama.cpp), or a sentence-transformers model in this process.

The address and the secret come from the environment ($SELFLONG_EMBEDDINGS_URL, $SELFLONG_EMBEDDINGS_KEY) and never
reach a file; the model's name comes from the recipe.
"""

import http.client
import json
import os
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from selflong.errors import UserError
from selflong.recipe_synthesis import Embedding
from selflong.sources import model_path
from selflong.synthesis.ranking import Floats

URL_VARIABLE = "SELFLONG_EMBEDDINGS_URL"
KEY_VARIABLE = "SELFLONG_EMBEDDINGS_KEY"

# A server that joins requests into batches of its own is kept busy by a few.
REQUESTS_IN_FLIGHT = 8
# Waits 0.5, 1, 2, … 30, 30 s: about four minutes in all, enough for a server to be restarted.
MAX_ATTEMPTS = 14
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# A server that asks for longer is out of quota rather than busy.
LONGEST_RETRY_AFTER_SECONDS = 600.0
TIMEOUT_SECONDS = 300.0


class Embedder(Protocol):
    """Makes vectors of texts."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return one vector a text, in the order of the texts: [N, D], finite, of any length."""
        ...


def open_embedder(embedding: Embedding) -> Embedder:
    """Open the recipe's back end. Raises UserError if the server's address or the model is missing."""
    if embedding.backend == "sentence-transformers":
        return SentenceTransformersModel(embedding)
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise UserError(
            f"retrieval.embedding.model {embedding.model}",
            f"${URL_VARIABLE} is not set, so no embeddings server is known",
            f"start one and export {URL_VARIABLE}=http://127.0.0.1:8080/v1",
        )
    return EmbeddingsEndpoint(url, embedding)


class SentenceTransformersModel:
    """A model in this process, with weights as precise as they are stored. Cuts texts at its own limit."""

    def __init__(self, embedding: Embedding) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(model_path(embedding.model, Path()), model_kwargs={"dtype": "auto"})
        self._batch_size = embedding.batch_size

    def embed(self, texts: Sequence[str]) -> Floats:
        """`Embedder.embed`. The model's own prompts stay unused: the recipe's prefix takes their place."""
        vectors: Floats = self._model.encode(
            list(texts), prompt="", batch_size=self._batch_size, convert_to_numpy=True, show_progress_bar=False
        )
        return vectors.astype(np.float32)


class EmbeddingsEndpoint:
    """A server: batches of `batch_size` texts, a few in flight; one that is busy or fails is asked again."""

    def __init__(self, url: str, embedding: Embedding, sleep: Callable[[float], object] | None = None) -> None:
        self._address = urllib.parse.urlsplit(url.rstrip("/") + "/embeddings")
        if "@" in self._address.netloc:
            raise UserError(f"${URL_VARIABLE}", "holds a user name or password", f"export the secret as {KEY_VARIABLE}")
        if self._address.scheme not in ("http", "https") or not self._address.hostname:
            raise UserError(f"${URL_VARIABLE}", "is no http address", "write it like http://127.0.0.1:8080/v1")
        # A server knows the model by its id; the revision is what it was started with.
        self._model, self._batch_size = embedding.model.partition("@")[0], embedding.batch_size
        self._secret = os.environ.get(KEY_VARIABLE, "")
        self._given_up = threading.Event()
        self._sleep = sleep or self._given_up.wait

    def embed(self, texts: Sequence[str]) -> Floats:
        """`Embedder.embed`. Raises UserError if the server refuses a batch or stays unable to answer."""
        batches = [texts[i : i + self._batch_size] for i in range(0, len(texts), self._batch_size)]
        pool = ThreadPoolExecutor(REQUESTS_IN_FLIGHT)
        try:
            vectors = list(pool.map(self._embed_batch, batches))
        except BaseException:  # Ctrl-C too: batches that wait for the server must not keep the process for minutes
            self._given_up.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if len({part.shape[1] for part in vectors}) > 1:
            found = ", ".join(map(str, sorted({part.shape[1] for part in vectors})))
            raise self._failure(f"vectors of different dimensions ({found})", "let one server serve one model")
        return np.concatenate(vectors)

    def _embed_batch(self, texts: Sequence[str]) -> Floats:
        body = json.dumps({"model": self._model, "input": list(texts), "encoding_format": "float"}).encode()
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return _read_vectors(self._ask(body), len(texts))
            except _TryAgainError as error:
                if attempt == MAX_ATTEMPTS or self._given_up.is_set():
                    raise self._failure(f"{error} ({attempt} attempts)", "see the server's log, then rerun") from error
                self._sleep(max(wait, error.retry_after_seconds))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _ask(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        connect = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        connection = connect(str(self._address.hostname), self._address.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", self._address.path, body, headers)
            response = connection.getresponse()
            content, status = response.read(), response.status
        except (OSError, http.client.HTTPException) as error:  # timeouts are OSErrors
            raise _TryAgainError(f"no answer ({type(error).__name__})") from error
        finally:
            connection.close()
        if status in (408, 429) or status >= 500:
            raise _TryAgainError(f"HTTP {status}", _seconds(response.headers.get("Retry-After", "")))
        if status != 200:
            words = " ".join(content.decode(errors="replace").split())[:300]
            words = words.replace(self._secret, "***") if self._secret else words
            raise self._failure(f"HTTP {status}: {words}", _remedy(status))
        return content

    def _failure(self, what: str, remedy: str) -> UserError:
        return UserError(f"embeddings server {self._address.netloc}", what, remedy)


class _TryAgainError(Exception):
    """The server may answer later; `retry_after_seconds` is what it asked for."""

    def __init__(self, what: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after_seconds = retry_after_seconds


def _read_vectors(content: bytes, count: int) -> Floats:
    """Read one answer, whose vectors may stand in any order. One that is not whole is the server's failure."""
    try:
        entries = {int(entry["index"]): entry["embedding"] for entry in json.loads(content)["data"]}
        vectors = np.array([entries[i] for i in range(count)], dtype=np.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise _TryAgainError(f"reply holds no {count} vectors ({type(error).__name__}: {error})") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise _TryAgainError("reply holds vectors that are empty or not finite")
    return vectors


def _seconds(retry_after: str) -> float:
    """Seconds that a Retry-After header asks for; a date counts as none, for back-off waits as long."""
    return min(float(retry_after), LONGEST_RETRY_AFTER_SECONDS) if retry_after.isdecimal() else 0.0


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f"export {KEY_VARIABLE} with a token that the server accepts"
    if status == 404:
        return f"check that ${URL_VARIABLE} ends in /v1 and that the server serves retrieval.embedding.model"
    return "lower retrieval.embedding.batch_size or max_document_chars, or raise the server's own limits"
