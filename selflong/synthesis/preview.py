"""Finished shards → config `preview`: a few rows of every config with their texts cut, for the Hub's viewer.

The viewer reads 100 rows at a time and refuses rows of megabytes. It opens the default config, so `preview` is that;
its one split is called `preview` too, so that who loads a repository's `train` split without naming a config gets an
error and never cut rows.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from selflong.records import PREVIEW
from selflong.synthesis.shards import Row, write_split

ROWS_A_CONFIG = 20
# A cell of about two kilobytes.
HEAD_CHARS, TAIL_CHARS = 1_400, 600


def write_preview(folder: Path, names: Sequence[str]) -> None:
    """Write config `preview` from the first train rows of the configs `names` in `folder`."""
    rows = (_cut(row) for name in names for row in itertools.islice(_train_rows(folder / name), ROWS_A_CONFIG))
    write_split(folder / PREVIEW, PREVIEW, rows, rows_per_shard=ROWS_A_CONFIG * len(names))


def _train_rows(folder: Path) -> Iterator[Row]:
    """A config's train rows in order, one read at a time: each may hold a million tokens."""
    for shard in sorted(folder.glob("train-*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=1):
                yield from batch.to_pylist()


def _cut(row: Row) -> Row:
    turns = {
        column: [{**turn, "content": _excerpt(turn["content"])} for turn in row[column]]
        for column in ("prompt", "completion")
    }
    return {**row, **turns}


def _excerpt(text: str) -> str:
    left_out = len(text) - HEAD_CHARS - TAIL_CHARS
    if left_out <= 0:
        return text
    return f"{text[:HEAD_CHARS]}\n[… {left_out:,} characters left out …]\n{text[-TAIL_CHARS:]}"
