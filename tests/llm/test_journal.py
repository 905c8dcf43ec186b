"""The journal: what was committed survives kill -9; a call is the same call only if everything that decides it is."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from selflong.llm.journal import Journal

MESSAGES = [{"role": "user", "content": "question"}]


def test_committed_answers_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    program = f"""
        import os, signal
        from pathlib import Path
        from selflong.llm.journal import Journal
        journal = Journal(Path({str(path)!r}), None)
        journal.put("kept", {{"text": "a"}})
        journal.commit()
        journal.put("lost", {{"text": "b"}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert done.returncode == -signal.SIGKILL
    with Journal(path, None) as journal:
        assert journal.get("kept") == {"text": "a"}
        assert journal.get("lost") is None


def test_key_depends_on_everything_that_decides_the_answer() -> None:
    base = Journal.key("model", "v1", MESSAGES, 16)
    others = [
        Journal.key("other model", "v1", MESSAGES, 16),
        Journal.key("model", "v2", MESSAGES, 16),
        Journal.key("model", "v1", [{"role": "user", "content": "another"}], 16),
        Journal.key("model", "v1", MESSAGES, 17),
    ]
    assert base == Journal.key("model", "v1", MESSAGES, 16)
    assert len({base, *others}) == 5


def test_an_open_group_of_an_interrupted_run_is_not_kept_without_a_timer(tmp_path: Path) -> None:
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        journal.put("half a group", {"text": "a"})
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        assert journal.get("half a group") is None
