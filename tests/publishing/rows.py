"""Rows as synthesis writes them, small enough to be known by heart."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selflong.publishing.sample_view import SampleView, build_view
from selflong.records import Example, ReadingRound

QUESTIONS = ("Which of the anchors is silver?", "When was it raised?")


def documents(count: int = 8, more: str = "") -> list[str]:
    return [f"Document {i} begins.{more} It ends with word{i}." for i in range(count)]


def example(index: int = 0, texts: Sequence[str] = (), questions: Sequence[str] = QUESTIONS, **changes: Any) -> Example:
    texts = texts or documents()
    turn = "\n\n".join([*texts, questions[0]])
    prompt = [{"role": "user", "content": turn}]
    for number, question in enumerate(questions[1:]):
        prompt += [{"role": "assistant", "content": f"Answer {number}."}, {"role": "user", "content": question}]
    made = Example(
        index=index,
        attempt=2,
        kind="long_input",
        target_length=2048,
        prompt=tuple(prompt),
        completion="The last answer.",
        instructions=tuple(questions),
        task_types=("comparison", "timeline")[: len(questions)],
        document_ids=tuple(f"book#{i}" for i in range(len(texts))),
        document_spans=(),
        relevant_documents=(2, 5),
        relevant_depths_percent=(25.0, 62.5),
        readings=(ReadingRound(0, 0, 31, 4, 520), ReadingRound(0, 1, 3, 2, 77), ReadingRound(1, 0, 31, 1, 12)),
        num_tokens=2028,
        num_completion_tokens=5,
        generator="stage:base",
        retriever="bm25",
        prompt_version="1",
        seed=0,
    )
    return replace(made, **changes)


def spans_of(texts: Sequence[str], separator: str = "\n\n", before: int = 0) -> list[list[int]]:
    starts = [before + sum(len(text) + len(separator) for text in texts[:i]) for i in range(len(texts))]
    return [[start, start + len(text)] for start, text in zip(starts, texts, strict=True)]


def row(made: Example, **columns: Any) -> dict[str, Any]:
    return {**made.as_row(), **columns}


def view(content: dict[str, Any], config: str = "long", split: str = "train") -> SampleView:
    return build_view(content, config, split, position=0, num_rows=1, target_length=None)
