"""Shards of rows of any length stream in and out: order, splits, sizes, bytes."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from selflong.recipe_synthesis import Shards
from selflong.records import PREVIEW, Example, example_features
from selflong.synthesis import shards as shards_module
from selflong.synthesis.preview import write_preview
from selflong.synthesis.shards import ROW_GROUP_BYTES, write_config

MB = 1_000_000


def example(index: int, chars: int = 40, kind: str = "long_input") -> Example:
    """A sample whose text is its own, of so many characters."""
    words = random.Random(index)
    text = "".join(f"{words.getrandbits(40)} is a number\n" for _ in range(chars // 20))[:chars]
    prompt = {"role": "user", "content": text.ljust(chars, ".")}
    return Example(
        index=index,
        attempt=0,
        kind=kind,
        target_length=chars // 4 + 99,
        prompt=(prompt,),
        completion=f"{index}.",
        instructions=("Which?",),
        task_types=("question",),
        document_ids=("a", "b"),
        document_spans=((0, 1), (2, 3)),
        relevant_documents=(1,),
        relevant_depths_percent=(50.0,),
        readings=(),
        num_tokens=chars // 4,
        num_completion_tokens=2,
        generator="stage:base",
        retriever="bm25",
        prompt_version="1",
        seed=0,
    )


def contents(rows: Any) -> list[tuple[int, str]]:
    return [(row["index"], row["prompt"][0]["content"]) for row in rows]


def written(folder: Path, split: str = "train", name: str = "c") -> list[Path]:
    return sorted((folder / name).glob(f"{split}-*"))


def test_rows_keep_their_order_and_the_last_are_the_validation_split(tmp_path: Path) -> None:
    examples = [example(i) for i in range(23)]
    assert write_config(tmp_path, "c", iter(examples), 23, Shards(4, 25)) == {"train": 18, "validation": 5}
    names = [f"train-{i:05}-of-00005.parquet" for i in range(5)] + [
        f"validation-{i:05}-of-00002.parquet" for i in (0, 1)
    ]
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == names
    rows = load_dataset("parquet", data_dir=str(tmp_path / "c"), cache_dir=str(tmp_path / "cache"))
    assert contents(rows["train"]) + contents(rows["validation"]) == [
        (e.index, e.prompt[0]["content"]) for e in examples
    ]
    assert [pq.read_metadata(p).num_rows for p in written(tmp_path)] == [4, 4, 4, 4, 2]


def test_one_row_group_is_held_at_a_time(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shards_module, "ROW_GROUP_BYTES", 3000)
    monkeypatch.setattr(shards_module, "SHARD_BYTES", 9000)
    ahead: list[int] = []

    def stream() -> Iterator[Example]:
        for i in range(40):
            # What is neither on disk nor in this group is held; files are closed when their shard is full.
            on_disk = sum(pq.read_metadata(p).num_rows for p in written(tmp_path)[:-1])
            ahead.append(i - on_disk)
            yield example(i, chars=1000 if i != 20 else 5000)

    write_config(tmp_path, "c", stream(), 40, Shards(1000, 0))
    assert max(ahead) <= 12, "rows of more than a shard and a group were drawn before the shard was written"
    for path in written(tmp_path):
        metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        assert max(sizes) <= 2 and sum(sizes) <= 8


def test_same_rows_same_bytes_and_a_killed_runs_rest_is_replaced(tmp_path: Path) -> None:
    examples = [example(i, 2000) for i in range(30)]

    def dying() -> Iterator[Example]:
        yield from examples[:17]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_config(tmp_path / "killed", "c", dying(), 30, Shards(5, 10))
    assert not list((tmp_path / "killed").rglob("*.parquet")), (
        "a shard has its name before it is known how many there are"
    )
    for folder in ("killed", "again"):  # the rerun keeps fewer samples
        write_config(tmp_path / folder, "c", iter(examples[:8]), 8, Shards(5, 10))
    killed, again = ({p.name: p.read_bytes() for p in (tmp_path / f / "c").iterdir()} for f in ("killed", "again"))
    assert killed == again and len(killed) == 2


@pytest.mark.parametrize("announced", [7, 9])
def test_another_number_of_examples_than_announced_raises(tmp_path: Path, announced: int) -> None:
    with pytest.raises(ValueError, match="announced"):
        write_config(tmp_path, "c", (example(i) for i in range(8)), announced, Shards(4, 0))


def check_layout(path: Path) -> None:
    """The first row can be read without the others: few rows a group, a page a row, an index of the pages."""
    metadata, prompt = pq.read_metadata(path), pq.read_schema(path).field("prompt").type
    assert prompt.value_type.field("content").type == pa.large_string()
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        text = group.column(metadata.num_columns - 1)
        assert text.path_in_schema == "prompt.list.element.content" and text.compression == "ZSTD"
        assert text.has_offset_index and text.dictionary_page_offset is None
        assert text.total_uncompressed_size <= ROW_GROUP_BYTES + MB
        assert group.num_rows == 1 or text.total_uncompressed_size <= ROW_GROUP_BYTES


def test_rows_of_a_million_tokens_load_and_stream_unmodified(tmp_path: Path) -> None:
    examples = [example(0, 4 * MB), example(1, 4 * MB), example(2, 16 * MB), example(3, 4 * MB), example(4, 16 * MB)]
    write_config(tmp_path, "c", iter(examples), 5, Shards(1000, 0))
    (path,) = written(tmp_path)
    check_layout(path)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [4, 1]
    files, wanted = str(path), [(e.index, e.prompt[0]["content"]) for e in examples]
    assert contents(load_dataset("parquet", data_files=files, split="train", streaming=True)) == wanted
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert contents(rows) == wanted and rows.features == example_features()


@pytest.mark.slow
def test_forty_rows_of_four_megabytes_map_without_overflow(tmp_path: Path) -> None:
    write_config(tmp_path, "c", (example(i, 4 * MB) for i in range(40)), 40, Shards(1000, 10))
    train = written(tmp_path)
    for path in train:
        check_layout(path)
    rows = load_dataset("parquet", data_files=list(map(str, train)), split="train", cache_dir=str(tmp_path / "cache"))
    # 560 such rows overflow 32-bit offsets with plain strings; the type is what keeps them apart.
    mapped = rows.map(lambda row: {"chars": len(row["prompt"][0]["content"])}, writer_batch_size=8)
    assert mapped["chars"] == [4 * MB] * 36
    assert mapped.features["prompt"] == example_features()["prompt"]


def test_the_preview_has_cut_texts_and_every_column(tmp_path: Path) -> None:
    write_config(tmp_path, "long", (example(i, 40_000) for i in range(30)), 30, Shards(8, 10))
    several = [dataclasses.replace(example(i, kind="short_replay"), completion="y" * 5000) for i in range(3)]
    write_config(tmp_path, "short", iter(several), 3, Shards(8, 0))
    write_preview(tmp_path, ["long", "short"])
    assert [p.name for p in (tmp_path / PREVIEW).iterdir()] == ["preview-00000-of-00001.parquet"]
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / PREVIEW / "*"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [(r["kind"], r["index"]) for r in rows] == [("long_input", i) for i in range(20)] + [
        ("short_replay", i) for i in range(3)
    ]
    whole = example(3, 40_000).as_row()
    text, cut = whole["prompt"][0]["content"], rows[3]["prompt"][0]["content"]
    assert len(cut) < 2100 and cut.startswith(text[:1000]) and cut.endswith(text[-500:])
    assert "[… 38,000 characters left out …]" in cut
    assert "[… 3,000 characters left out …]" in rows[20]["completion"][0]["content"]
    assert rows[20]["prompt"][0]["content"] == several[0].prompt[0]["content"]
    for column in set(whole) - {"prompt"}:
        assert rows[3][column] == json.loads(json.dumps(whole[column])), column
