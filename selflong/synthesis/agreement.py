"""How often a kept sample's labels agree with what the corpus box inserted: measured after synthesis, used by nothing.

The only reader of `corpus/inserted_facts.jsonl`. Without that file the agreement is "not measured" and every row of the
dataset is still the same.
"""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from selflong.synthesis.corpus import FACTS_FILE

ASKED_KEYS = re.compile(r"magic numbers? for (.*)\?")
ANSWERED = re.compile(r"The magic number for ([a-z]+ [a-z]+) is (\d{6})\.")


def measure_agreement(corpus: Path, dataset: Path) -> dict[str, int] | None:
    """Count the samples compared and those whose every answer is the inserted value; None if no facts are known."""
    path = corpus / FACTS_FILE
    if not path.exists():
        return None
    inserted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    truth = {fact["key"]: fact["value"] for fact in inserted}
    compared = right = 0
    for shard in sorted(dataset.rglob("*.parquet")):
        for row in pq.read_table(shard, columns=["kind", "instruction", "completion"]).to_pylist():
            if row["kind"] == "long_output":
                continue
            asked = ASKED_KEYS.search(row["instruction"])
            answers = dict(ANSWERED.findall(row["completion"][0]["content"]))
            compared += 1
            right += bool(asked) and answers == {key: truth.get(key) for key in asked[1].split(", ")}  # type: ignore[index]
    return {"compared": compared, "right": right}
