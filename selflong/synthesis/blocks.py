"""The unit of resuming and of sharing work: a block of consecutive rows of one config, on disk as soon as it is whole.

A block is `<config>/<first index>.parquet` with its tally beside it as `.json`, written last; what has no tally is made
again. Ranks own disjoint blocks, so the parts of N ranks are those of one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selflong.manifest import write_json
from selflong.recipe_synthesis import Synthesis
from selflong.records import Example, example_schema
from selflong.synthesis.shards import row_groups
from selflong.synthesis.tally import Tally

# Rows of a block made by a chat server. Few: a block waits in memory for its slowest row.
ROWS_PER_BLOCK = 16


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` (exclusive) of config `name`."""

    folder: Path
    name: str
    start: int
    stop: int

    @property
    def path(self) -> Path:
        """The block's rows; its tally lies beside it."""
        return self.folder / self.name / f"{self.start:08d}.parquet"

    def write(self, examples: list[Example], tally: Tally) -> None:
        """Write rows, then the tally that makes them count."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".writing")
        with pq.ParquetWriter(temporary, example_schema(), compression="zstd", use_dictionary=False) as writer:
            for _, group in row_groups((e.as_row() for e in examples), len(examples)):
                writer.write_table(pa.Table.from_pylist(group, schema=example_schema()))
        temporary.replace(self.path)
        write_json(self.path.with_suffix(".json"), tally.as_facts())

    def tally(self) -> Tally | None:
        """The block's tally, or None if it is not whole."""
        try:
            return Tally.from_facts(json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def instructions(self) -> list[tuple[int, list[str]]]:
        """Index and instructions of each row, without its text."""
        rows = pq.read_table(self.path, columns=["index", "instructions"]).to_pylist()
        return [(row["index"], row["instructions"]) for row in rows]

    def iter_examples(self) -> Iterator[Example]:
        """Yield the block's rows in order, a row group in memory at a time."""
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield from map(Example.from_row, file.read_row_group(group).to_pylist())


def blocks_of(synthesis: Synthesis, folder: Path, rows_per_block: int) -> list[Block]:
    """All blocks of a recipe, in the order of configs and rows."""
    return [
        Block(folder, name, start, min(start + rows_per_block, config.num_samples))
        for name, config in synthesis.configs.items()
        for start in range(0, config.num_samples, rows_per_block)
    ]
