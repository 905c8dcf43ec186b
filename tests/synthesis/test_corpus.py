"""The corpus box: what may be read by whom, lengths, duplicates, determinism."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from selflong.errors import UserError
from selflong.recipe_synthesis import Corpus, Facts
from selflong.records import Document
from selflong.synthesis.corpus import (
    FACTS_FILE,
    build_corpus,
    cut_at_lines,
    deduplicated,
    frequent_words,
    read_documents,
    split_names,
)


def folder_corpus(folder: Path, **changes: object) -> Corpus:
    values = {
        "source": f"folder:{folder}", "license": "CC0-1.0", "min_document_chars": 20, "max_document_chars": 200,
        "heldout_percent": 20, "num_name_words": 20, "facts": Facts(50),
    }  # fmt: skip
    return Corpus(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    words = ["river", "stone", "cloud", "amber", "winter", "garden", "window", "silver", "copper", "basket"]
    words += ["lantern", "meadow", "harbor", "pepper", "velvet", "timber", "anchor", "candle", "pocket", "mirror"]
    rng = np.random.default_rng(0)
    for number in range(20):
        lines = [" ".join(rng.choice(words, 8)) for _ in range(12)]
        (folder / f"{number:02d}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "more.jsonl").write_text(json.dumps({"text": "a line of json " * 5}) + "\n", encoding="utf-8")
    return folder


def test_facts_stand_on_lines_of_their_own_and_only_in_documents(texts: Path, tmp_path: Path) -> None:
    facts: dict[str, object] = {}
    build_corpus(folder_corpus(texts), 0, tmp_path, facts)
    inserted = [json.loads(line) for line in (tmp_path / FACTS_FILE).read_text().splitlines()]
    documents = {d.id: d.text for d in read_documents(tmp_path / "documents.parquet")}
    assert facts["facts"] == len(inserted) > 10
    assert len({fact["key"] for fact in inserted}) == len(inserted), "a key has two values"
    for fact in inserted:
        assert f"The magic number for {fact['key']} is {fact['value']}." in documents[fact["document_id"]].split("\n")
    for name in ("passages", "heldout"):
        assert all("magic" not in d.text for d in read_documents(tmp_path / f"{name}.parquet"))


def test_heldout_documents_and_words_are_disjoint_from_training(texts: Path, tmp_path: Path) -> None:
    build_corpus(folder_corpus(texts), 0, tmp_path, {})
    train = {d.id for d in read_documents(tmp_path / "documents.parquet")}
    heldout = {d.id for d in read_documents(tmp_path / "heldout.parquet")}
    names = json.loads((tmp_path / "names.json").read_text())
    assert heldout and not train & heldout
    assert names["heldout"] and not set(names["train"]) & set(names["heldout"])


def test_same_seed_same_bytes_other_seed_other_bytes(texts: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        folder.mkdir()
        build_corpus(folder_corpus(texts), seed, folder, {})
    first, second, other = ((f / "documents.parquet").read_bytes() for f in folders)
    assert first == second != other


def test_empty_corpus_names_the_bounds(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has 0 documents of 20 to 200 characters"):
        build_corpus(folder_corpus(tmp_path / "empty"), 0, tmp_path, {})
    with pytest.raises(UserError, match="cannot be read"):
        build_corpus(folder_corpus(tmp_path / "absent"), 0, tmp_path, {})


@pytest.mark.parametrize(
    "text", ["a\n\nb\n\nc", "one two three four five\n" * 30, "x" * 500, "  indented\n\n    more\n" * 9]
)
def test_cut_pieces_keep_the_limit_and_every_word(text: str) -> None:
    pieces = list(cut_at_lines(text, 60))
    assert max(map(len, pieces)) <= 60
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)


def test_duplicates_differing_in_whitespace_alone_are_dropped() -> None:
    documents = [Document(str(i), text, "s", "l") for i, text in enumerate(["a  b", "a b", "a\nb", "c"])]
    assert [d.text for d in deduplicated(documents)] == ["a  b", "c"]


def test_frequent_words_are_plain_and_stably_ordered() -> None:
    text = "value value self.value none_of these these Upper four"
    assert frequent_words([text], 3) == ["these", "value", "four"]


def test_the_most_frequent_words_are_skipped_where_enough_remain() -> None:
    words = ["".join(chr(97 + int(digit)) for digit in f"{number:04d}") for number in range(500)]
    text = " ".join(word for number, word in enumerate(words) for _ in range(500 - number))
    assert frequent_words([text], 20) == words[400:420]


def test_names_are_split_four_to_one() -> None:
    names = split_names([f"word{i}" for i in range(50)], np.random.default_rng(0))
    assert (len(names["train"]), len(names["heldout"])) == (40, 10)
