"""How often a kept sample's labels agree with what the corpus box inserted: measured after synthesis, used by nothing.

The only reader of `corpus/inserted_facts.jsonl`. Without that file the agreement is "not measured" and every row of the
dataset is still the same.
"""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from selflong.records import PREVIEW
from selflong.synthesis.corpus import FACTS_FILE

ASKED = re.compile(r"(?:.*\n)?Name the magic number for ([a-z]+ [a-z]+)", re.DOTALL)


def measure_agreement(corpus: Path, dataset: Path) -> dict[str, int] | None:
    """Count the samples compared and those whose every answer is the inserted value; None if no facts are known."""
    path = corpus / FACTS_FILE
    if not path.exists():
        return None
    inserted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    truth = {fact["key"]: fact["value"] for fact in inserted}
    compared = right = 0
    shards = (shard for shard in dataset.glob("*/*.parquet") if shard.parent.name != PREVIEW)
    for shard in sorted(shards):
        for row in pq.read_table(shard, columns=["kind", "prompt", "completion"]).to_pylist():
            if row["kind"] != "long_input":
                continue
            turns = [turn["content"] for turn in [*row["prompt"], *row["completion"]]]
            compared += 1
            right += all(_is_right(asked, said, truth) for asked, said in zip(turns[::2], turns[1::2], strict=True))
    return {"compared": compared, "right": right}


def _is_right(asked: str, said: str, truth: dict[str, str]) -> bool:
    match = ASKED.fullmatch(asked)
    return bool(match) and said == f"{truth.get(match[1])}."  # type: ignore[index]
