"""One row of a dataset as a person looks at it: questions with their reading and response, documents, provenance.

In: a row of `records.example_features`, or an older one that lacks columns. Out: `SampleView`, which the terminal and
the page render. Texts are those of the row: whoever shows them passes them through `visible`.
"""

import re
from dataclasses import dataclass
from typing import Any

# What moves a terminal's cursor or a page's reading direction, or is not seen at all. Joiners (U+200C, U+200D) are
# part of how Persian, Hindi and emoji are written and stay.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True)
class DocumentView:
    """One document of the first user turn. `start_percent` counts characters of all documents.

    `is_relevant` is None if the row does not tell which documents are.
    """

    id: str
    text: str
    start_percent: float
    is_relevant: bool | None


@dataclass(frozen=True)
class QuestionView:
    """One instruction, how it was read for, and its response. `rounds` hold fields of `records.ReadingRound`."""

    instruction: str
    task_type: str
    rounds: tuple[dict[str, int], ...]
    response: str


@dataclass(frozen=True)
class SampleView:
    """One sample. `prompt` is the first user turn if `documents` are not told apart in it, else empty."""

    config: str
    split: str
    position: int
    num_rows: int
    num_tokens: int
    target_length: int | None
    questions: tuple[QuestionView, ...]
    documents: tuple[DocumentView, ...]
    document_ids: tuple[str, ...]
    prompt: str
    relevant_depths_percent: tuple[float, ...]
    provenance: dict[str, str | int | float]

    @property
    def fill_percent(self) -> float | None:
        """Share of the target length that is used."""
        return round(100 * self.num_tokens / self.target_length, 1) if self.target_length else None


def build_view(
    row: dict[str, Any], config: str, split: str, position: int, num_rows: int, target_length: int | None
) -> SampleView:
    """Return the view of a row. `target_length` holds where the row itself does not tell."""
    turn = next((str(turn["content"]) for turn in row["prompt"] if turn["role"] == "user"), "")
    documents = _documents(row, turn)
    is_instruction = turn == "".join(row["instructions"][:1])
    return SampleView(
        config=config,
        split=split,
        position=position,
        num_rows=num_rows,
        num_tokens=row["num_tokens"],
        target_length=row.get("target_length") or target_length,
        questions=_questions(row),
        documents=documents,
        document_ids=tuple(row.get("document_ids") or ()),
        prompt="" if documents or is_instruction else turn,
        relevant_depths_percent=tuple(row.get("relevant_depths_percent") or ()),
        # Any short column, so that whatever synthesis records is seen, also what it does not record yet.
        provenance={name: value for name, value in row.items() if isinstance(value, str | int | float)},
    )


def visible(text: str) -> str:
    """Return a text in which control, direction and unseen characters are written out: U+202E becomes ⟨U+202E⟩."""
    return UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text.replace("\r\n", "\n"))


def cut(text: str, num_chars: int) -> tuple[str, int, str]:
    """Return the beginning of a text, how many characters are left out, and its end: three quarters and one.

    A text of `num_chars` or less comes whole.
    """
    if len(text) <= num_chars:
        return text, 0, ""
    tail = num_chars // 4
    head = num_chars - tail
    return text[:head], len(text) - num_chars, text[len(text) - tail :]


def _questions(row: dict[str, Any]) -> tuple[QuestionView, ...]:
    responses = [turn["content"] for turn in [*row["prompt"], *row["completion"]] if turn["role"] == "assistant"]
    task_types, readings = row.get("task_types") or [], row.get("readings") or []
    return tuple(
        QuestionView(
            instruction=instruction,
            task_type=task_types[number] if number < len(task_types) else "",
            rounds=tuple(reading for reading in readings if reading["instruction"] == number),
            response=responses[number] if number < len(responses) else "",
        )
        for number, instruction in enumerate(row["instructions"])
    )


def _documents(row: dict[str, Any], turn: str) -> tuple[DocumentView, ...]:
    """The documents in the first user turn; none if the row does not tell where each stands, or tells nonsense."""
    ids, spans = row.get("document_ids") or [], row.get("document_spans") or []
    borders = [border for span in spans for border in span]
    if not spans or len(spans) != len(ids) or borders != sorted(borders) or borders[0] < 0 or borders[-1] > len(turn):
        return ()
    first, num_chars = borders[0], max(1, borders[-1] - borders[0])
    relevant = None if row.get("relevant_documents") is None else set(row["relevant_documents"])
    return tuple(
        DocumentView(
            id=ids[i],
            text=turn[start:end],
            start_percent=round(100 * (start - first) / num_chars, 1),
            is_relevant=None if relevant is None else i in relevant,
        )
        for i, (start, end) in enumerate(spans)
    )
