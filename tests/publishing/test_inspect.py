"""`selflong inspect` shows what a row holds, reads no more of it than it must, and obeys no document."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selflong.cli import main
from selflong.errors import UserError
from selflong.publishing.dataset_rows import open_dataset
from selflong.publishing.inspect_dataset import inspect
from selflong.publishing.inspect_terminal import Screen, render_sample
from selflong.publishing.sample_view import cut
from selflong.recipe_synthesis import Shards
from selflong.synthesis.shards import write_config
from tests.publishing import facts
from tests.publishing.rows import QUESTIONS, documents, example, row, spans_of, view


def test_a_run_shows_its_configs_and_how_to_look_at_one(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = inspect(str(dataset), None, "train", None, None)
    assert shown == inspect(str(dataset / "dataset"), None, "train", None, None)
    (line,) = [line for line in shown.splitlines() if line.startswith("long_input_2048  ")]
    assert line.split() == ["long_input_2048", "long_input", "9", "1", "2,000", "2,004", "2,009", "2,048", "97.9", "%"]
    assert shown.index("short_128") < shown.index("long_input_2048"), "the manifest's order"
    assert "19 tried, 10 kept, dropped: nothing relevant in any chunk 7, copies its documents 2" in shown
    assert "task types: comparison 10, timeline 10" in shown and "nothing to ask 230" in shown
    command = re.search(r"selflong (inspect .*) \[", shown)
    assert command and "--config long_input_2048 --sample 0" in command[1]
    main(command[1].split())


@pytest.mark.parametrize("width", [40, 72, 120])
def test_no_line_is_wider_than_the_screen(dataset: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    texts = [*documents(3, more=" 長い文書" * 60), "x" * 5000, "one\n\ttwo"]
    content = row(example(texts=texts), document_spans=spans_of(texts), relevant_documents=[1])
    sample = render_sample(view(content), None, Screen(width, False))
    for text in (inspect(str(dataset), None, "train", None, None), sample):
        # textwrap counts characters, so wrapped lines of wide ones are left to the terminal.
        lines = [line for line in text.splitlines() if line.isascii() and str(dataset) not in line]
        assert len(lines) > 10 and max(map(len, lines)) <= width
    one_line_each = [line for line in sample.splitlines() if "book#" in line]
    assert len(one_line_each) == 5
    wide = [sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in one_line_each]
    assert max(wide) <= width


def test_a_sample_of_several_shards_is_the_one_at_its_position(dataset: Path) -> None:
    shown = inspect(str(dataset), "long_input_2048", "train", 6, None)  # the second shard's third row
    assert "sample 6 (0 to 8)" in shown and "index 6 ·" in shown and "2,006 tokens of 2,048" in shown
    assert "index 9 ·" in inspect(str(dataset), "long_input_2048", "validation", 0, None)
    assert "long_input_2048 · train" in inspect(str(dataset), None, "train", 0, None), "the first long-input config"


def test_a_sample_shows_questions_with_their_own_reading_and_response(dataset: Path) -> None:
    first, second = inspect(str(dataset), None, "train", 0, None).split("Instruction 2 of 2 (timeline)")
    assert "Instruction 1 of 2 (comparison)\n  Which of the anchors is silver?" in first
    assert "round 0: 31 chunks → 4 relevant → 520 tokens noted" in first and "round 1: 3 chunks → 2" in first
    assert "Response\n  Answer 0." in first and "The last answer." not in first
    assert "12 tokens noted" not in first and "520 tokens noted" not in second
    assert (
        "When was it raised?" in second and "→ 12 tokens noted" in second and "Response\n  The last answer." in second
    )
    for told in ("attempt 2", "retriever bm25", "generator stage:base", "prompt_version 1", "num_completion_tokens 5"):
        assert told in second
    assert "19 tried, 10 kept" in second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("long_input_2048", "train", 9), "has no sample 9 in train; give --sample 0 to 8"),
        (("long_input_2048", "train", -1), "has no sample -1 in train; give --sample 0 to 8"),
        (("long_input_2048", "test", 0), "has no split test; give --split train or validation"),
        (("long_input_9", "train", None), "has no config long_input_9; give one of short_128, long_input_2048"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(dataset: Path, arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        inspect(str(dataset), *arguments, None)


def test_what_is_no_dataset_is_refused(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="holds no <config>/<split>"):
        inspect(str(tmp_path), None, "train", None, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run/datasat: no such folder"):
        inspect("run/datasat", None, "train", None, None)  # has the form of a Hub id, but run/ is a folder
    with pytest.raises(UserError, match="cannot be fetched from the Hub"):
        inspect("someone/some-dataset@v1", None, "train", None, None)  # tests run offline
    (tmp_path / "other" / "qa").mkdir(parents=True)
    pq.write_table(pa.table({"question": ["?"], "kind": ["qa"]}), tmp_path / "other/qa/train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="has no column completion, instructions, num_tokens, prompt"):
        inspect("other", None, "train", 0, None)
    with pytest.raises(UserError, match=r"absent/page\.html: cannot be written"):
        inspect(str(dataset), None, "train", None, Path("absent/page.html"))


def test_documents_are_told_apart_by_where_they_begin() -> None:
    texts = [*documents(3), "The last one asks as well:\n\n" + QUESTIONS[0]]
    after = view(row(example(texts=texts), document_spans=spans_of(texts), relevant_documents=[1, 3]))
    assert [d.text for d in after.documents] == texts and after.prompt == ""
    assert [d.is_relevant for d in after.documents] == [False, True, False, True]
    assert [d.id for d in after.documents] == ["book#0", "book#1", "book#2", "book#3"]
    assert after.documents[0].start_percent == 0 < after.documents[1].start_percent < after.documents[2].start_percent
    turn = "\n\n".join([QUESTIONS[0], *texts])  # the instruction before its documents, and again inside the last one
    made = example(texts=texts, prompt=({"role": "user", "content": turn},), instructions=QUESTIONS[:1])
    before = view(row(made, document_spans=spans_of(texts, before=len(QUESTIONS[0]) + 2), relevant_documents=None))
    assert [d.text for d in before.documents] == texts
    assert before.documents[0].start_percent == 0 and before.documents[0].is_relevant is None


@pytest.mark.parametrize(
    "spans", [[], None, [[0, 5]], [[9 - i, 10] for i in range(8)], [[-4, 2]] * 8, [[0, 10**9]] * 8]
)
def test_rows_that_do_not_tell_show_the_turn_undivided(spans: Any) -> None:
    seen = view(row(example(), document_spans=spans))
    assert seen.documents == () and seen.prompt.startswith("Document 0 begins.")
    shown = render_sample(seen, None, Screen(100, False))
    assert "Prompt, undivided" in shown and "documents: book#0, book#1" in shown and "8 documents, 2 of them" in shown


def test_relevant_documents_are_marked_where_they_lie() -> None:
    texts = documents(8, more=" More words." * 40)
    seen = view(row(example(texts=texts), document_spans=spans_of(texts), relevant_documents=[2, 5]))
    shown = render_sample(seen, None, Screen(100, False)).splitlines()
    listed = [line for line in shown if re.search(r"book#\d", line)]
    assert [line.startswith("●") for line in listed] == [i in (2, 5) for i in range(8)]
    assert re.match(r"●  25\.\d %  book#2", listed[2])
    (bar,) = [line for line in shown if line.startswith("  0 %")]
    cells = bar.removeprefix("  0 % ").removesuffix(" 100 %")
    assert [round(100 * match.start() / len(cells)) for match in re.finditer("●", cells)] == [25, 62]


def test_long_texts_are_cut_in_the_middle_and_say_by_how_much() -> None:
    assert cut("a" * 30 + "b" * 70 + "c" * 10, 40) == ("a" * 30, 70, "c" * 10)
    assert cut("a" * 40, 40) == ("a" * 40, 0, "")
    texts = ["start of it" + " middle" * 10_000 + " end of it"]
    shown = render_sample(view(row(example(texts=texts))), None, Screen(100, False))
    left_out = re.search(r"… ([\d,]+) characters …", shown)
    assert left_out and int(left_out[1].replace(",", "")) > 60_000 and len(shown) < 6_000
    assert "start of it" in shown and QUESTIONS[0] in shown.split(left_out[0])[1]


def test_a_row_of_4_mb_is_read_alone(tmp_path: Path) -> None:
    """Twelve random rows of 4 MB in one row group: memory is that of one, and a summary reads none of them."""
    rows = [example(i, [os.urandom(2_000_000).hex()], QUESTIONS[:1], document_ids=("a",)) for i in range(12)]
    write_config(tmp_path, "long", rows, len(rows), Shards(rows_per_shard=12, validation_percent=0))
    wanted = rows[7].prompt[0]["content"]
    del rows
    opened = open_dataset(str(tmp_path))
    tracemalloc.start()
    assert opened.summary("long").num_rows == {"train": 12}
    assert tracemalloc.get_traced_memory()[1] < 500_000
    found, num_rows = opened.row("long", "train", 7)
    assert tracemalloc.get_traced_memory()[1] < 12_000_000, "the shard has 24 MB"
    tracemalloc.stop()
    assert found["prompt"][0]["content"] == wanted and num_rows == 12
    page = tmp_path / "page.html"
    inspect(str(tmp_path), None, "train", 7, page)
    assert page.stat().st_size < 100_000


def test_rows_without_the_newer_columns_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    """A dataset as the first release wrote it: its manifest knows the target length."""
    newer = ["attempt", "target_length", "task_types", "readings", "num_completion_tokens", "retriever"]
    write_config(tmp_path, "long", [example()], 1, Shards(rows_per_shard=4, validation_percent=0))
    path = tmp_path / "long" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(newer), path)
    assert "2,028 tokens\n" in inspect(str(tmp_path), None, "train", 0, None)
    (tmp_path / "manifest.json").write_text(json.dumps({"facts": {"configs": {"long": {"target_length": 4096}}}}))
    shown = inspect(str(tmp_path), None, "train", 0, None)
    assert (
        "2,028 tokens of 4,096 (49.5 % filled)" in shown and "Instruction 1 of 2\n" in shown and "round 0" not in shown
    )
    assert "Response\n  Answer 0." in shown and "retriever" not in shown and "task types" not in shown
    assert "49.5 %" in inspect(str(tmp_path), None, "train", None, None)
    inspect(str(tmp_path), None, "train", None, tmp_path / "page.html")


@pytest.mark.parametrize("content", ["", "[1]", '{"facts": {"configs": [], "ignored": {"x": "<b>"}}}', "\x00"])
def test_a_strange_manifest_is_no_obstacle(dataset: Path, content: str) -> None:
    (dataset / "dataset" / "manifest.json").write_text(content)
    assert "2 configs, 14 rows" in inspect(str(dataset), None, "train", None, None)
    assert inspect(str(dataset), "long_input_2048", "train", 0, None)


def test_gates_are_those_of_the_dataset_box(tmp_path: Path) -> None:
    """The manifest's names are those that the card reads."""
    write_config(tmp_path, "long_input_256", [example()], 1, Shards(rows_per_shard=4, validation_percent=0))
    (tmp_path / "manifest.json").write_text(json.dumps({"facts": facts.dataset_facts()}))
    gates = open_dataset(str(tmp_path)).gates("long_input_256")
    assert gates and (gates.tried, gates.kept) == (1100, 1000)
    assert [*gates.dropped.values()] == [52, 31, 17], "the commonest reason first"


def command(dataset: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "selflong", "inspect", str(dataset), *more]


def test_it_pipes_into_head_and_colours_only_terminals(dataset: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | head -n 1', "_", *command(dataset, "--sample", "0")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("long_input_2048 · train")
    reads, writes = os.pipe()
    os.close(reads)  # as when `head` has gone before the first line
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command(dataset), stdout=writes, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(dataset, "--sample", "0"), capture_output=True, env=ascii_only)
    assert done.returncode == 0 and done.stdout.startswith(b"long_input_2048 ? train") and b"\x1b" not in done.stdout


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_a_terminal_has_colours_unless_it_asks_for_none(dataset: Path, no_colour: str, coloured: bool) -> None:
    import pty

    control, terminal = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run(command(dataset), stdout=terminal, env=environment, check=True)
    os.close(terminal)
    assert (b"\x1b[1m" in os.read(control, 65_536)) == coloured
    os.close(control)
