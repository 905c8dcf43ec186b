"""Box 1 of the arrow: any document collection → `corpus/`, split once into a training and a held-out part.

Writes `documents.parquet` (what synthesis retrieves from), `passages.parquet` (the same without synthetic facts; the
demo's base model is trained on it), `heldout.parquet` (evaluation's haystacks; nobody else reads it), `names.json`
(words that form needle keys, a fifth of them held out from facts) and, where facts were inserted,
`inserted_facts.jsonl`, which is no part of the product: it is read by `synthesis/agreement.py` alone, after synthesis
is done.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from selflong.errors import UserError
from selflong.recipe_synthesis import Corpus
from selflong.records import Document
from selflong.sources import pinned_dataset
from selflong.synthesis.python_docs import iter_python_docs
from selflong.text_skills import NOTHING, fact

SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("license", pa.string()), ("text", pa.large_string())]
)
FACTS_FILE = "inserted_facts.jsonl"
SKIPPED_WORDS = 400


def build_corpus(corpus: Corpus, seed: int, work: Path, facts: dict[str, Any]) -> None:
    """Write the corpus folder described above into `work`; counts go into `facts`.

    Raises UserError if the source is missing or holds no document within the length bounds.
    """
    if corpus.source.startswith("hub:"):
        corpus = dataclasses.replace(corpus, source="hub:" + pinned_dataset(corpus.source.removeprefix("hub:")))
    documents = list(deduplicated(iter_documents(corpus)))
    if len(documents) < 2:
        raise UserError(
            f"corpus.source {corpus.source}",
            f"has {len(documents)} documents of {corpus.min_document_chars} to {corpus.max_document_chars} characters",
            "point it at more text or widen the bounds",
        )
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(documents))
    num_heldout = max(1, len(documents) * corpus.heldout_percent // 100)
    heldout = [documents[i] for i in sorted(order[:num_heldout])]
    train = [documents[i] for i in sorted(order[num_heldout:])]
    names = split_names(frequent_words((d.text for d in documents), corpus.num_name_words), rng)
    write_documents(work / "passages.parquet", train)
    write_documents(work / "heldout.parquet", heldout)
    (work / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
    num_facts = 0
    if corpus.facts:
        train, inserted = insert_facts(train, names["train"], corpus.facts.share_percent, rng)
        lines = (json.dumps(dict(zip(("document_id", "key", "value"), row, strict=True))) for row in inserted)
        (work / FACTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        num_facts = len(inserted)
    write_documents(work / "documents.parquet", train)
    facts.update(
        documents=len(train),
        heldout_documents=len(heldout),
        chars=sum(len(d.text) for d in train),
        facts=num_facts,
        source=corpus.source,
        license=corpus.license,
    )


def iter_documents(corpus: Corpus) -> Iterator[Document]:
    """Yield the source's documents in its own order, each within the length bounds (longer texts are cut at lines)."""
    count = 0
    for name, text in tqdm(_iter_texts(corpus), desc="corpus", unit=" texts", leave=False):
        for number, piece in enumerate(cut_at_lines(text, corpus.max_document_chars)):
            if len(piece) < corpus.min_document_chars:
                continue
            yield Document(f"{name}#{number}", piece, name, corpus.license)
            count += 1
            if corpus.max_documents and count >= corpus.max_documents:
                return


def _iter_texts(corpus: Corpus) -> Iterator[tuple[str, str]]:
    if corpus.source == "python-docs":
        yield from iter_python_docs()
        return
    from datasets import load_dataset

    kind, _, where = corpus.source.partition(":")
    try:
        if kind == "folder":
            yield from _iter_folder(Path(where), corpus.text_column)
            return
        repo_id, _, revision = where.partition("@")
        rows = load_dataset(repo_id, revision=revision or "main", split="train", streaming=True)
        for number, row in enumerate(rows):
            yield str(row.get("id", number)), row[corpus.text_column]
    except (FileNotFoundError, ConnectionError, KeyError) as error:
        raise UserError(
            f"corpus.source {corpus.source}", f"cannot be read ({error})", "check path or login, and text_column"
        ) from error


def _iter_folder(folder: Path, text_column: str) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix in {".txt", ".md"}:
            yield name, path.read_text(encoding="utf-8")
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    yield f"{name}:{number}", json.loads(line)[text_column]
        elif path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                for number, text in enumerate(file.read_row_group(group, columns=[text_column])[text_column]):
                    yield f"{name}:{group}.{number}", text.as_py()


def cut_at_lines(text: str, max_chars: int) -> Iterator[str]:
    """Cut a text into pieces of at most `max_chars`, at paragraph ends, else line ends, else anywhere."""
    piece = ""
    for paragraph in re.split(r"(?<=\n)\n+", text.strip() + "\n"):
        if len(piece) + len(paragraph) > max_chars and piece:
            yield piece.strip("\n")
            piece = ""
        for line in paragraph.splitlines(keepends=True) if len(paragraph) > max_chars else [paragraph]:
            for start in range(0, len(line), max_chars):
                part = line[start : start + max_chars]
                if len(piece) + len(part) > max_chars and piece:
                    yield piece.strip("\n")
                    piece = ""
                piece += part
    if piece.strip():
        yield piece.strip("\n")


def deduplicated(documents: Iterable[Document]) -> Iterator[Document]:
    """Drop exact duplicates (after whitespace is collapsed), keeping the first."""
    seen: set[bytes] = set()
    for document in documents:
        digest = hashlib.sha256(" ".join(document.text.split()).encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield document


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


def insert_facts(
    documents: list[Document], words: list[str], share_percent: int, rng: np.random.Generator
) -> tuple[list[Document], list[tuple[str, str, str]]]:
    """Put one fact, on a line of its own, into a share of the documents; return them and (document id, key, value).

    Every key (two words in alphabetical order) is used once in the whole corpus, so a fact has one true value.
    """
    chosen = rng.random(len(documents)) * 100 < share_percent
    pairs = list(itertools.combinations(sorted(words), 2))
    if chosen.sum() > len(pairs):
        raise UserError(
            "corpus.facts",
            f"{chosen.sum()} facts want keys, {len(words)} words make {len(pairs)}",
            "raise corpus.num_name_words or lower facts.share_percent",
        )
    keys = iter(rng.permutation(len(pairs)))
    result, inserted = [], []
    for document, gets_fact in zip(documents, chosen, strict=True):
        if gets_fact:
            key, value = " ".join(pairs[next(keys)]), f"{rng.integers(0, 1_000_000):06d}"
            lines = document.text.split("\n")
            lines.insert(int(rng.integers(0, len(lines) + 1)), fact(key, value))
            document = Document(document.id, "\n".join(lines), document.source, document.license)
            inserted.append((document.id, key, value))
        result.append(document)
    return result, inserted


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write documents as one Parquet file."""
    rows = [{"id": d.id, "source": d.source, "license": d.license, "text": d.text} for d in documents]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")


def read_documents(path: Path) -> list[Document]:
    """Read what `write_documents` wrote."""
    return [Document(r["id"], r["text"], r["source"], r["license"]) for r in pq.read_table(path).to_pylist()]
