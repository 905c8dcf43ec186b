"""A dataset's configs, or one of its samples, as lines of a terminal.

In: summaries and a view. Out: one text. Every line passes `Screen.render`, the only place that writes colours, so no
document can: an escape sequence in a row is shown, never obeyed.
"""

import bisect
import itertools
import os
import shlex
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from selflong.publishing.dataset_rows import ConfigSummary, Gates
from selflong.publishing.sample_view import DocumentView, QuestionView, SampleView, cut, visible

# Select Graphic Rendition (ECMA-48, 8.3.117).
STYLES = {"title": "1", "relevant": "32", "quiet": "2"}
# A screen or two for a text that is shown whole; a row may hold 16 MB.
TEXT_CHARS = 2_400
RELEVANT_CHARS = 800

Line = tuple[str, str]
"""Style (a key of STYLES, or empty) and text."""


@dataclass(frozen=True)
class Screen:
    """Where the lines will be seen: columns, colours or none, and the characters that it can show."""

    width: int
    colours: bool
    encoding: str = "utf-8"

    @classmethod
    def of(cls, stream: TextIO) -> "Screen":
        """The screen behind a stream. Colours only on a terminal and without $NO_COLOR (https://no-color.org)."""
        tty = stream.isatty() and os.environ.get("TERM") != "dumb"
        width = max(40, shutil.get_terminal_size((100, 24)).columns)
        return cls(width, tty and not os.environ.get("NO_COLOR"), stream.encoding or "utf-8")

    def render(self, lines: Iterable[Line]) -> str:
        """Return the lines as one text in which nothing but our own colours controls the terminal."""
        return "\n".join(self._paint(style, visible(text)) for style, text in lines)

    def _paint(self, style: str, text: str) -> str:
        text = text.replace("\n", " ").encode(self.encoding, "replace").decode(self.encoding)
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.colours and style else text


def render_overview(
    name: str, summaries: list[ConfigSummary], ignored: dict[str, int], shown: str, screen: Screen
) -> str:
    """Return the table of configs, their gates, and how to look at a sample."""
    num_rows = sum(sum(summary.num_rows.values()) for summary in summaries)
    lines: list[Line] = [
        ("title", name),
        ("", f"{len(summaries)} config{'s' * (len(summaries) != 1)}, {num_rows:,} rows"),
        ("", ""),
        *_table(HEADER, [_cells(summary) for summary in summaries], screen.width),
    ]
    for summary in summaries:
        if summary.task_types or summary.gates:
            lines += [("", ""), ("title", summary.name)]
        if summary.task_types:
            lines += _wrapped(f"task types: {_counts(summary.task_types)}", screen.width, "  ")
        lines += _gate_lines(summary.gates, screen.width)
    if ignored:
        lines += [("", ""), ("title", "Ignored within samples, all configs")]
        lines += _wrapped(_counts(ignored), screen.width, "  ")
    command = f"selflong inspect {shlex.quote(name)} --config {shlex.quote(shown)} --sample 0"
    lines += [("", ""), ("quiet", "Look at a sample, here or as a page:"), ("", f"  {command} [--html sample.html]")]
    return screen.render(lines)


def render_sample(view: SampleView, gates: Gates | None, screen: Screen) -> str:
    """Return one sample: what is asked, read and answered, its documents, provenance, and its config's gates."""
    size = f"{view.num_tokens:,} tokens"
    if view.target_length:
        size += f" of {view.target_length:,} ({view.fill_percent} % filled)"
    lines: list[Line] = [
        ("title", f"{view.config} · {view.split} · sample {view.position} (0 to {view.num_rows - 1})"),
        ("", size),
    ]
    for number, question in enumerate(view.questions, start=1):
        lines += _question_lines(question, f"{number} of {len(view.questions)}", screen.width)
    lines += _depth_lines(view, screen.width)
    lines += [line for document in view.documents for line in _document_lines(document, screen.width)]
    if view.prompt:
        lines += [("", ""), ("title", f"Prompt, undivided ({len(view.prompt):,} characters)")]
        lines += _text(view.prompt, TEXT_CHARS, screen.width)
        if view.document_ids:
            lines += _text(f"documents: {', '.join(view.document_ids)}", RELEVANT_CHARS, screen.width)
    lines += [("", ""), ("title", "Provenance")]
    lines += _wrapped(" · ".join(f"{name} {value}" for name, value in view.provenance.items()), screen.width, "  ")
    if gates:
        lines += [("", ""), ("title", f"Gates of {view.config}"), *_gate_lines(gates, screen.width)]
    return screen.render(lines)


HEADER = ("config", "kind", "train", "other", "min", "mean tokens", "max", "target", "filled")


def _cells(summary: ConfigSummary) -> tuple[str, ...]:
    train = summary.num_rows.get("train", 0)
    low, high = summary.target_lengths or (0, 0)
    return (
        summary.name,
        ", ".join(summary.kinds),
        f"{train:,}",
        f"{sum(summary.num_rows.values()) - train:,}",
        f"{summary.min_tokens:,}",
        f"{summary.mean_tokens:,.0f}",
        f"{summary.max_tokens:,}",
        "" if not high else f"{high:,}" if low == high else f"{low:,} to {high:,}",
        "" if summary.fill_percent is None else f"{summary.fill_percent} %",
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> Iterator[Line]:
    """Aligned columns, the first two to the left; where they do not fit, a block of `name value` pairs for each row."""
    widths = [max(map(_num_columns, column)) for column in zip(header, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        for row in rows:
            yield "title", row[0]
            pairs = (f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell)
            yield from _wrapped(" · ".join(pairs), width, "  ")
        return
    for number, row in enumerate([header, *rows]):
        cells = [
            cell + " " * (size - _num_columns(cell)) if i < 2 else " " * (size - _num_columns(cell)) + cell
            for i, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        yield "" if number else "quiet", "  ".join(cells).rstrip()


def _gate_lines(gates: Gates | None, width: int) -> list[Line]:
    if not gates:
        return []
    kept = f"{gates.tried:,} tried, {gates.kept:,} kept"
    return _wrapped(f"{kept}, dropped: {_counts(gates.dropped)}" if gates.dropped else f"{kept}", width, "  ")


def _question_lines(question: QuestionView, number: str, width: int) -> list[Line]:
    kind = f" ({question.task_type})" if question.task_type else ""
    lines: list[Line] = [("", ""), ("title", f"Instruction {number}{kind}")]
    lines += _text(question.instruction, TEXT_CHARS, width)
    for reading in question.rounds:
        read = f"{reading['num_chunks']:,} chunks → {reading['num_relevant_chunks']:,} relevant"
        lines += [("", f"  reading, round {reading['round']}: {read} → {reading['num_finding_tokens']:,} tokens noted")]
    return [*lines, ("title", "Response"), *_text(question.response, TEXT_CHARS, width)]


def _depth_lines(view: SampleView, width: int) -> list[Line]:
    """A bar from the first document to the last, with a mark where each relevant document begins."""
    if not view.relevant_depths_percent and not view.documents:
        return []
    num_relevant, cells = len(view.relevant_depths_percent), [*"─" * (min(width, 100) - 16)]
    for depth in view.relevant_depths_percent:
        cells[min(int(depth / 100 * len(cells)), len(cells) - 1)] = "●"
    title = f"{len(view.document_ids):,} documents, {num_relevant:,} of them relevant, at"
    return [("", ""), ("title", title), ("relevant", f"  0 % {''.join(cells)} 100 %")]


def _document_lines(document: DocumentView, width: int) -> list[Line]:
    """One line, and an excerpt below it if the document is relevant."""
    mark = "●" if document.is_relevant else " "
    words = " ".join(document.text[: 2 * width].split())
    head = f"{mark} {document.start_percent:5.1f} %  {document.id}  {len(document.text):,} characters"
    if document.is_relevant:
        return [("relevant", _fit(head, width)), *_text(document.text, RELEVANT_CHARS, width, "    ")]
    return [("", _fit(f"{head}  {words}", width))]


def _text(text: str, num_chars: int, width: int, indent: str = "  ") -> list[Line]:
    """A text, cut in its middle if it is longer, wrapped."""
    head, left_out, tail = cut(text, num_chars)
    lines = _wrapped(head, width, indent)
    if left_out:
        lines += [("quiet", f"{indent}… {left_out:,} characters …"), *_wrapped(tail, width, indent)]
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[Line]:
    """Lines of at most `width` characters; line ends of the text stay."""
    lines = visible(text).expandtabs(4).split("\n")
    pieces = (textwrap.wrap(line, width - len(indent), replace_whitespace=False) or [""] for line in lines)
    return [("", indent + piece) for wrapped in pieces for piece in wrapped]


def _fit(text: str, width: int) -> str:
    """The beginning of a text that takes at most `width` columns."""
    text = visible(text.replace("\n", " "))
    ends = [*itertools.accumulate(map(_columns, text), initial=0)]
    return text if ends[-1] <= width else text[: bisect.bisect_right(ends, width - 1) - 1] + "…"


def _num_columns(text: str) -> int:
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    """Columns that a character takes: two if wide (Unicode annex 11), none if it combines with the one before."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else not unicodedata.combining(character)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())
