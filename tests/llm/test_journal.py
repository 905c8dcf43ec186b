"""The journal: what was committed survives kill -9; a call is the same call only if everything that decides it is;
processes share a file; a file that is none of ours is refused."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from selflong.errors import UserError
from selflong.llm.journal import Journal

MESSAGES = [{"role": "user", "content": "question"}]
GREEDY = {"temperature": 0.0, "top_p": 1.0}
ANSWER = {"text": "a", "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 1, "seconds": 0.5}


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def test_committed_answers_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    program = f"""
        import os, signal
        from pathlib import Path
        from selflong.llm.journal import Journal
        journal = Journal(Path({str(path)!r}), None)
        journal.put("kept", "reading", {ANSWER!r})
        journal.commit()
        journal.put("lost", "reading", {ANSWER!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert start(program).wait(60) == -signal.SIGKILL
    with Journal(path, None) as journal:
        assert journal.get("kept") == ANSWER
        assert journal.get("lost") is None


def test_key_depends_on_everything_that_decides_the_answer() -> None:
    base = Journal.key("model", GREEDY, "v1", MESSAGES, 16)
    others = [
        Journal.key("model@revision", GREEDY, "v1", MESSAGES, 16),
        Journal.key("model", {**GREEDY, "temperature": 0.5}, "v1", MESSAGES, 16),
        Journal.key("model", {**GREEDY, "top_p": 0.5}, "v1", MESSAGES, 16),
        Journal.key("model", GREEDY, "v2", MESSAGES, 16),
        Journal.key("model", GREEDY, "v1", [{"role": "user", "content": "another"}], 16),
        Journal.key("model", GREEDY, "v1", MESSAGES, 17),
    ]
    assert base == Journal.key("model", GREEDY, "v1", MESSAGES, 16)
    assert len({base, *others}) == 7


def test_an_open_group_of_an_interrupted_run_is_not_kept_without_a_timer(tmp_path: Path) -> None:
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        journal.put("half a group", "reading", ANSWER)
        assert journal.get("half a group") == ANSWER
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        assert journal.get("half a group") is None


def test_a_group_is_committed_when_due_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"

    async def run() -> None:
        with Journal(path, 0.02) as journal, Journal(path, None) as other:
            journal.put("first", "reading", ANSWER)
            assert other.get("first") is None
            await asyncio.sleep(0.1)
            assert other.get("first") == ANSWER
            journal.put("last", "reading", ANSWER)

    asyncio.run(run())
    with Journal(path, None) as journal:
        assert journal.get("last") == ANSWER


def test_costs_can_be_added_up_from_the_file_alone(tmp_path: Path) -> None:
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        journal.put("a", "reading", ANSWER)
        journal.put("b", "response", {**ANSWER, "prompt_tokens": 5})
        journal.commit()
    database = sqlite3.connect(tmp_path / "calls.sqlite")
    query = "SELECT step, SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds) FROM calls GROUP BY step"
    assert database.execute(query).fetchall() == [("reading", 3, 1, 0.5), ("response", 5, 1, 0.5)]


def test_four_processes_share_a_file(tmp_path: Path) -> None:
    """All create it at once, write their own answers and one that all of them have: what stood first stands."""
    path = tmp_path / "calls.sqlite"
    program = f"""
        import asyncio, sys
        from pathlib import Path
        from selflong.llm.journal import Journal
        rank = sys.argv[1]
        async def run():
            with Journal(Path({str(path)!r}), 0.001) as journal:
                for i in range(200):
                    journal.put(f"{{rank}}-{{i}}", "reading", {{**{ANSWER!r}, "text": rank}})
                    journal.put(f"shared-{{i}}", "reading", {{**{ANSWER!r}, "text": rank}})
                    await asyncio.sleep(0.0005)
        asyncio.run(run())
    """
    ranks = [start(program, str(rank)) for rank in range(4)]
    assert [process.wait(60) for process in ranks] == [0, 0, 0, 0]
    with Journal(path, None) as journal:
        for rank in "0123":
            assert all((journal.get(f"{rank}-{i}") or {})["text"] == rank for i in range(200))
        assert journal.database.execute("SELECT COUNT(*) FROM calls").fetchone() == (1000,)


def test_an_answer_once_given_never_changes(tmp_path: Path) -> None:
    with Journal(tmp_path / "calls.sqlite", None) as first, Journal(tmp_path / "calls.sqlite", None) as second:
        for journal, text in ((first, "first"), (second, "second")):
            journal.put("key", "reading", {**ANSWER, "text": text})
        first.commit()
        second.commit()
        assert (second.get("key") or {})["text"] == "first"


def write_text(path: Path) -> None:
    path.write_text("no database at all, but long enough to look like one" * 100, encoding="utf-8")


def write_old_layout(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
    database.close()


def write_torn(path: Path) -> None:
    with Journal(path, None) as journal:
        for i in range(1000):
            journal.put(str(i), "reading", ANSWER)
        journal.commit()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize("write", [write_text, write_old_layout, write_torn])
def test_a_file_that_is_no_sound_journal_says_what_to_do(write: object, tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    write(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"calls\.sqlite: .*move .* away"), Journal(path, None) as journal:
        journal.get("500")
    if write is not write_torn:
        assert path.read_bytes() == before


def test_a_disk_that_takes_no_more_stops_the_run(tmp_path: Path) -> None:
    """Answers that cannot be kept must not be bought: the failed commit of a timer is told to whoever stores next."""
    told: list[UserError] = []

    async def run() -> None:
        with Journal(tmp_path / "calls.sqlite", 0.01) as journal:
            journal.database.execute("PRAGMA max_page_count=4")
            journal.put("a", "reading", {**ANSWER, "text": "x" * 100_000})
            await asyncio.sleep(0.05)
            try:
                journal.put("b", "reading", ANSWER)
            except UserError as error:
                told.append(error)

    with pytest.raises(UserError, match="full"):  # once more at the end: an answer is lost
        asyncio.run(run())
    assert "full" in str(told[0])
