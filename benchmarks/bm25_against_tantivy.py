"""Claim: our index by words answers three times the queries a second of tantivy, and building it takes memory by shard.

    pip install 'selflong[fast]' tantivy==0.27.0
    python benchmarks/bm25_against_tantivy.py [--documents 100_000]

One corpus for both: 400k word types by Zipf's law, 220 words a document on average, the same on every machine. Every
step runs in a process of its own, on one thread; its peak memory is Linux's VmHWM, which counts the pages of mapped
files that were touched. Queries are runs of words from the corpus, ten documents wanted. The first query is timed in
two processes, one after the other: numba compiles in the first and finds that on disk in the second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORD_TYPES = 400_000
MEAN_WORDS = 220
QUERY_WORDS = {8: 400, 32: 200, 256: 60}
"""Words of a query → queries."""
WANTED = 10
TANTIVY_HEAP_BYTES = 256 * 2**20


def write_corpus(path: Path, num_documents: int) -> None:
    """One document after the other, and where each ends. Zipf's law with Mandelbrot's shift: no word is everywhere."""
    rng = np.random.default_rng(0)
    shares = 1 / (np.arange(WORD_TYPES) + 2.7)
    cumulative = np.cumsum(shares / shares.sum())
    words = [f"w{number}" for number in range(WORD_TYPES)]
    ends = [0]
    with path.open("wb") as file:
        for _ in range(num_documents):
            length = max(20, int(rng.lognormal(np.log(MEAN_WORDS) - 0.125, 0.5)))
            drawn = np.minimum(np.searchsorted(cumulative, rng.random(length)), WORD_TYPES - 1)
            file.write(" ".join(words[i] for i in drawn).encode())
            ends.append(file.tell())
    np.save(path.with_suffix(".npy"), ends)


class Texts(Sequence[Any]):
    """The corpus as documents, each read when asked for."""

    def __init__(self, path: Path) -> None:
        self._file, self._ends = path.open("rb"), np.load(path.with_suffix(".npy"))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: Any) -> Any:
        from selflong.records import Document

        start, end = int(self._ends[position]), int(self._ends[position + 1])
        return Document(str(position), os.pread(self._file.fileno(), end - start, start).decode(), "", "")


def queries(corpus: Texts, num_words: int) -> Iterator[str]:
    """Runs of `num_words` words, the same for both engines."""
    rng = np.random.default_rng(num_words)
    for _ in range(QUERY_WORDS[num_words]):
        position, words = int(rng.integers(len(corpus) - 20)), []
        while len(words) < num_words:
            words += corpus[position].text.split()
            position += 1
        yield " ".join(words[:num_words])


def build_ours(corpus: Path, index: Path, shard_documents: int) -> None:
    from selflong.recipe_synthesis import Retrieval
    from selflong.synthesis.bm25_index import build_bm25_index

    build_bm25_index(Texts(corpus), Retrieval(WANTED, shard_documents=shard_documents), 0, index)


def build_tantivy(corpus: Path, index: Path) -> None:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", index_option="freq")
    # Not `add_unsigned_field`: Python's integers arrive signed and stop its writer.
    builder.add_integer_field("position", stored=True)
    writer = tantivy.Index(builder.build(), path=str(index)).writer(TANTIVY_HEAP_BYTES, num_threads=1)
    for position, document in enumerate(Texts(corpus)):
        writer.add_document(tantivy.Document(text=document.text, position=position))
    writer.commit()
    writer.wait_merging_threads()


def open_ours(index: Path) -> Any:
    from selflong.synthesis.bm25_index import Bm25Retriever

    retriever = Bm25Retriever(index, 100)
    return lambda query: retriever.retrieve(query, WANTED)


def open_tantivy(index: Path) -> Any:
    import tantivy

    opened = tantivy.Index.open(str(index))
    searcher = opened.searcher()

    def search(query: str) -> list[int]:
        hits = searcher.search(opened.parse_query(query, ["text"]), WANTED).hits
        return [searcher.doc(address)["position"][0] for _, address in hits]

    return search


def measure(step: str, corpus: Path, index: Path, shard_documents: int) -> dict[str, Any]:
    """One step in this process: seconds, peak memory and, for a search, the time of every query in milliseconds."""
    found: dict[str, Any] = {}
    started = time.perf_counter()
    if step == "build ours":
        build_ours(corpus, index, shard_documents)
    elif step == "build tantivy":
        build_tantivy(corpus, index)
    else:
        search = open_ours(index) if step == "search ours" else open_tantivy(index)
        texts = Texts(corpus)
        first = time.perf_counter()
        search(texts[0].text[:100])
        found["first_query_seconds"] = time.perf_counter() - first
        for num_words in QUERY_WORDS:
            found[str(num_words)] = [timed(search, query) for query in queries(texts, num_words)]
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    return {"seconds": time.perf_counter() - started, "peak_mib": peak_kib / 1024, **found}


def timed(search: Any, query: str) -> float:
    started = time.perf_counter()
    assert search(query)
    return (time.perf_counter() - started) * 1000


def in_a_process(folder: Path, step: str, index: Path, shard_documents: int) -> dict[str, Any]:
    arguments = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--index", str(index)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(folder / "numba")}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    index.mkdir(exist_ok=True)
    done = subprocess.run(
        [*arguments, "--shard-documents", str(shard_documents)], env=environment, check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--shard-documents", type=int, default=25_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(measure(given.step, given.folder / "corpus.txt", given.index, given.shard_documents)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus.txt", given.documents)
        compare(folder, given.documents, given.shard_documents)


def compare(folder: Path, num_documents: int, shard_documents: int) -> None:
    """Build and search three indexes; print a table and the ratio."""
    engines = {
        f"ours, shards of {shard_documents:,}": ("ours", "dealt", shard_documents),
        "ours, one shard": ("ours", "whole", num_documents),
        "tantivy, one thread": ("tantivy", "tantivy", 0),
    }
    print(f"{num_documents:,} documents, numpy {np.__version__}, {os.cpu_count()} cores")
    rates: dict[str, dict[int, float]] = {}
    for label, (engine, index, size) in engines.items():
        built = in_a_process(folder, f"build {engine}", folder / index, size)
        cold = in_a_process(folder, f"search {engine}", folder / index, size)
        warm = in_a_process(folder, f"search {engine}", folder / index, size)
        first, second = (run["first_query_seconds"] for run in (cold, warm))
        size_mib = sum(path.stat().st_size for path in (folder / index).rglob("*") if path.is_file()) / 2**20
        print(
            f"\n{label}: index {built['seconds']:.0f} s, peak {built['peak_mib']:,.0f} MiB, {size_mib:,.0f} MiB on disk"
        )
        print(f"  first query {first:.3f} s, in a second process {second:.3f} s")
        print(f"  peak while searching {warm['peak_mib']:,.0f} MiB")
        rates[label] = {}
        for num_words in QUERY_WORDS:
            times = np.array(warm[str(num_words)])
            rates[label][num_words] = 1000 / times.mean()
            p50, p99 = np.percentile(times, [50, 99])
            rate = rates[label][num_words]
            print(f"  {num_words:>3} words: p50 {p50:6.2f} ms, p99 {p99:6.2f} ms, {rate:7.0f} queries/s")
    *ours, peer = rates
    for label in ours:
        ratios = ", ".join(f"{n} words {rates[label][n] / rates[peer][n]:.1f} x" for n in QUERY_WORDS)
        print(f"\nqueries/s of {label} against tantivy: {ratios}")


if __name__ == "__main__":
    main()
