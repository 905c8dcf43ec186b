"""Every answered call on disk, so that a killed run never pays twice: SQLite in WAL mode with group commit.

The key holds the model's identity and revision, the sampling parameters, the prompt version, the messages and the
token limit. Answers are committed in groups; a crash loses at most the open group, never a committed one. Several
processes of one machine may share a file.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from selflong.errors import UserError
from selflong.manifest import canonical

# Against a chat server: answers that arrive in one round of the event loop are one group. It costs no more than groups
# of 50 ms did (0.30 ms of CPU a call, benchmarks/engine_efficiency.py), and a kill then loses only calls in flight.
GROUP_SECONDS = 0.0
# A group is written in milliseconds; a minute is only reached behind a stopped process or a stuck disk.
BUSY_SECONDS = 60.0
COLUMNS = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "seconds")
# In the file's header: tells our journals of this layout from others and from other programs' databases.
LAYOUT = int.from_bytes(b"SLJ2", "big")
TABLE = """CREATE TABLE calls (
    key TEXT PRIMARY KEY, step TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL)"""


class Journal:
    """A persistent map from call to answer. Use as a context manager.

    With `group_seconds` None only `commit` commits: in-process generation commits a whole group of samples at once, so
    that a resumed run forms the same batches and gives the same bytes.
    """

    def __init__(self, path: Path, group_seconds: float | None = GROUP_SECONDS, finished: Sequence[Path] = ()) -> None:
        """Open or create; `finished` are journals that nobody writes to any more, whose answers count as well.

        Raises UserError if a file cannot be read or is of another layout.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.group_seconds = path, group_seconds
        self._group: dict[str, tuple[Any, ...]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failure: UserError | None = None
        try:
            self.database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._finished = [Journal(other) for other in finished]

    @staticmethod
    def key(
        identity: str,
        sampling: Mapping[str, float],
        prompt_version: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
    ) -> str:
        """SHA-256 over everything that decides an answer. No address and no token enters."""
        parts = [identity, dict(sampling), prompt_version, list(messages), max_tokens]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored answer, also of the open group."""
        if key in self._group:
            return dict(zip(COLUMNS, self._group[key][2:], strict=True))
        try:
            row = self.database.execute(f"SELECT {', '.join(COLUMNS)} FROM calls WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if row:
            return dict(zip(COLUMNS, row, strict=True))
        return next((answer for other in self._finished if (answer := other.get(key)) is not None), None)

    def put(self, key: str, step: str, answer: Mapping[str, Any]) -> None:
        """Store an answer in the open group; call it from the event loop, which commits the group when it is due."""
        if self._failure is not None:
            raise self._failure
        self._group[key] = (key, step, *(answer[column] for column in COLUMNS))
        if self.group_seconds is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.group_seconds, self._commit_when_due)

    def commit(self) -> None:
        """Make everything stored so far survive a kill. Raises UserError if the disk does not take it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._group:
            return
        # The lock is held for this moment alone, so that other processes never wait for a group to fill. What another
        # process stored first stands: an answer, once given, never changes.
        try:
            self.database.execute("BEGIN IMMEDIATE")
            self.database.executemany("INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", self._group.values())
            self.database.execute("COMMIT")
        except sqlite3.Error as error:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise self._unusable(error) from error
        self._group.clear()

    def _commit_when_due(self) -> None:
        try:
            self.commit()
        except UserError as failure:  # nobody calls a timer: whoever stores next is told
            self._failure = failure

    def _prepare(self) -> None:
        # WAL + NORMAL: 20,280 commits a second where the default journal gave 36 (measured on one disk); a commit
        # survives kill -9, and the database stays sound after a power cut.
        self.database.execute("PRAGMA synchronous=NORMAL")
        if self._is_empty():
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute("BEGIN IMMEDIATE")
            if self._is_empty():  # still: another process may have been quicker
                self.database.execute(TABLE)
                self.database.execute(f"PRAGMA application_id={LAYOUT}")
            self.database.execute("COMMIT")
        if self.database.execute("PRAGMA application_id").fetchone() != (LAYOUT,):
            self.database.close()
            remedy = "move it away (its calls are then paid for again), or use the version of selflong that wrote it"
            raise UserError(self.path, "is no call journal of this version", remedy)

    def _is_empty(self) -> bool:
        return self.database.execute("SELECT 1 FROM sqlite_master").fetchone() is None

    def _unusable(self, error: sqlite3.Error) -> UserError:
        remedy = "make room if the disk is full, else move the file away: its calls are then paid for again"
        return UserError(self.path, f"the call journal cannot be used ({error})", remedy)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.group_seconds is not None:
                self.commit()
        finally:
            for journal in (self, *self._finished):
                journal.database.close()
