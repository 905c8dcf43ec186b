"""Examples → Parquet shards of one dataset config: `<config>/<split>-00000-of-000NN.parquet`.

Zstandard, content-defined chunking, row groups of 32 MiB and a page index, so that a Hub's viewer can read the first
rows alone and a changed row re-uploads little (huggingface_hub's Xet deduplicates by content). Rows of a million tokens
are 4 MB each: they pass through one row group at a time.
"""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selflong.recipe_synthesis import Shards
from selflong.records import Example, example_schema

# Rows of about a page deduplicate only with chunks smaller than a row: 4.3 MB re-uploaded of 25 MB after one insertion,
# against 38.0 of 37.6 MB with the library's default of 256 kB to 1 MB.
CHUNKING = {"min_chunk_size": 32_768, "max_chunk_size": 131_072, "norm_level": 0}
# The first row of a file reads in 4 ms with few rows a group, in 490 ms with all in one.
ROW_GROUP_BYTES = 32 * 1024 * 1024
# What `datasets` itself takes for a shard; the Hub asks for less than 200 GB.
SHARD_BYTES = 512 * 1024 * 1024

Row = dict[str, Any]


def write_config(
    folder: Path, name: str, examples: Iterable[Example], num_examples: int, shards: Shards
) -> dict[str, int]:
    """Write one config's splits below `folder`; return rows a split. The last rows are the validation split.

    Holds no more than about one row group. What a killed run left of this config goes first; shards get their names
    when their number is known. Raises ValueError if `examples` are not `num_examples`.
    """
    shutil.rmtree(folder / name, ignore_errors=True)
    num_validation = num_examples * shards.validation_percent // 100
    rows = (example.as_row() for example in examples)
    splits = {"train": num_examples - num_validation, "validation": num_validation}
    written = {
        split: write_split(folder / name, split, itertools.islice(rows, count), shards.rows_per_shard)
        for split, count in splits.items()
        if count
    }
    if sum(written.values()) != num_examples or next(rows, None) is not None:
        raise ValueError(f"config {name}: {sum(written.values())} examples or more came, {num_examples} were announced")
    return written


def write_split(folder: Path, split: str, rows: Iterable[Row], rows_per_shard: int) -> int:
    """Write rows of `example_features` as the shards of one split; return how many rows there were."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = example_schema()
    num_rows, unnamed = 0, []
    for number, groups in itertools.groupby(row_groups(rows, rows_per_shard), key=lambda group: group[0]):
        unnamed.append(folder / f"{split}-{number:05d}.part")
        with pq.ParquetWriter(
            unnamed[-1],
            schema,
            compression="zstd",
            use_dictionary=False,  # texts do not repeat, and zstd finds what does
            write_page_index=True,
            use_content_defined_chunking=CHUNKING,
        ) as writer:
            for _, group in groups:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                num_rows += len(group)
    for number, path in enumerate(unnamed):
        path.rename(folder / f"{split}-{number:05d}-of-{len(unnamed):05d}.parquet")
    return num_rows


def row_groups(rows: Iterable[Row], rows_per_shard: int) -> Iterator[tuple[int, list[Row]]]:
    """(number of its shard, rows of one row group), in order; a row longer than a group is a group of its own."""
    shard = shard_rows = shard_bytes = group_bytes = 0
    group: list[Row] = []
    for row in rows:
        size = _text_bytes(row)
        shard_is_full = shard_rows == rows_per_shard or (shard_rows > 0 and shard_bytes + size > SHARD_BYTES)
        if group and (shard_is_full or group_bytes + size > ROW_GROUP_BYTES):
            yield shard, group
            group, group_bytes = [], 0
        if shard_is_full:
            shard, shard_rows, shard_bytes = shard + 1, 0, 0
        group.append(row)
        group_bytes, shard_rows, shard_bytes = group_bytes + size, shard_rows + 1, shard_bytes + size
    if group:
        yield shard, group


def _text_bytes(row: Row) -> int:
    """UTF-8 bytes of the turns: nearly all of a row."""
    texts = [turn["content"] for turn in [*row["prompt"], *row["completion"]]]
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
