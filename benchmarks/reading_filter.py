"""What `reading.promising_percent` saves and changes: the demo's own model, with every chunk read and with a share.

Needs a finished `make demo`. The same rows of one config are made several times; the peer is the paper's way, every
chunk read. Agreement counts the questions that both ways answer, and with the same words.

    python benchmarks/reading_filter.py [out/demo] [--rows 32] [--config long_input_1024]
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

from selflong.llm.engine import Engine
from selflong.llm.event_loop import run_async
from selflong.llm.journal import Journal
from selflong.recipe import load_recipe
from selflong.recipe_synthesis import Synthesis
from selflong.records import Example
from selflong.synthesis.documents import read_documents
from selflong.synthesis.draft import Counters, Workbench
from selflong.synthesis.make_blocks import make_sample
from selflong.synthesis.prompts import VERSION, load_prompts
from selflong.synthesis.rank import open_generator
from selflong.synthesis.retrieval import open_retriever
from selflong.synthesis.tally import Tally
from selflong.token_counts import TokenCounter

PERCENTS = (None, 75, 50, 25)


def make_rows(synthesis: Synthesis, out: Path, config: str, num_rows: int) -> tuple[list[Example | None], Tally]:
    """The first rows of a config, and what they cost."""
    model, tokenizer = open_generator(synthesis.generator, out)
    counter = TokenCounter(tokenizer, [])
    counters = Counters(counter.count, counter.count_chat)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "calls.sqlite", None) as journal:
        engine = Engine(model, journal, synthesis.generator.context_length, None, f"toy-{VERSION}")
        bench = Workbench(
            synthesis, read_documents(out / "corpus" / "documents.arrow"),
            open_retriever(synthesis.retrieval, out / "index"), engine, load_prompts("toy", ()), counters, counters,
            contamination=None, in_process=True,
        )  # fmt: skip

        async def all_rows() -> list[tuple[Example | None, Tally]]:
            import asyncio

            return await asyncio.gather(*(make_sample(bench, config, index) for index in range(num_rows)))

        made = run_async(all_rows())
    total = Tally()
    for _, tally in made:
        total.add(tally)
    return [example for example, _ in made], total


def answers(example: Example | None) -> dict[str, str]:
    """Response by instruction."""
    if example is None:
        return {}
    turns = [turn["content"] for turn in example.prompt[1::2]]
    return dict(zip(example.instructions, [*turns, example.completion], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("out/demo"))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--config", default="long_input_1024")
    arguments = parser.parse_args()
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "demo").synthesis
    print(f"{'chunks read':>12} {'reading calls':>14} {'of all read':>12} {'answered':>9} {'by both':>8} {'alike':>6}")
    baseline: list[dict[str, str]] = []
    calls = 0
    for percent in PERCENTS:
        synthesis = dataclasses.replace(recipe, reading=dataclasses.replace(recipe.reading, promising_percent=percent))
        made, tally = make_rows(synthesis, arguments.out, arguments.config, arguments.rows)
        found = [answers(example) for example in made]
        baseline, calls = baseline or found, calls or tally.calls["reading"]
        both = [(a[q], b[q]) for a, b in zip(baseline, found, strict=True) for q in a.keys() & b.keys()]
        alike = sum(one == other for one, other in both) / max(1, len(both))
        share, num_answers = tally.calls["reading"] / calls, sum(map(len, found))
        print(
            f"{'all' if percent is None else f'{percent} %':>12} {tally.calls['reading']:14,} {share:12.0%}"
            f" {num_answers:9} {len(both):8} {alike:6.0%}"
        )


if __name__ == "__main__":
    main()
