"""600 calls through endpoint, engine and journal against a server of many faults: all complete, nothing paid twice."""

import asyncio
import collections
import random
from pathlib import Path

import pytest

from selflong.llm.endpoint import ChatEndpoint, Patience
from selflong.llm.engine import CallFailedError, Engine, Reply
from selflong.llm.event_loop import run_async
from selflong.llm.journal import Journal
from tests.chat_server import ChatServer, Fault, Message

# What a call meets, in percent: asked to come back, failed, hanging beyond the deadline, connection cut.
FAULTS = [
    (10, Fault(status=429, headers={"Retry-After": "0.01"})),
    (5, Fault(status=500)),
    (2, Fault(delay_seconds=5)),
    (1, Fault(cut=True)),
]
PATIENCE = Patience(attempt_seconds=0.4, first_wait_seconds=0.01, longest_wait_seconds=0.05)
NUM_CALLS = 600


def drawn_fault(number: int) -> Fault | None:
    percent = random.Random(number).uniform(0, 100)
    for share, fault in FAULTS:
        if percent < share:
            return fault
        percent -= share
    return None


def echo(messages: object) -> str:
    assert isinstance(messages, list)
    return "you said " + messages[-1]["content"]


def ask_all(server: ChatServer, journal_path: Path) -> tuple[list[Reply | BaseException], Engine]:
    with Journal(journal_path) as journal:
        model = ChatEndpoint(server.base_url, "org/model", 64, patience=PATIENCE)
        engine = Engine(model, journal, 4096, None, "v1")

        async def run() -> list[Reply | BaseException]:
            try:
                calls = (engine.ask("reading", f"call {i}", 50) for i in range(NUM_CALLS))
                return await asyncio.gather(*calls, return_exceptions=True)
            finally:
                await model.close()

        return run_async(run()), engine


def test_every_call_is_answered_and_none_is_paid_twice(tmp_path: Path) -> None:
    with ChatServer(echo, fault=drawn_fault) as server:
        replies, engine = ask_all(server, tmp_path / "calls.sqlite")
        assert [getattr(r, "text", r) for r in replies] == [f"you said call {i}" for i in range(NUM_CALLS)]
        answered = collections.Counter(r.key for r in server.requests if r.answered)
        assert len(answered) == NUM_CALLS
        assert set(answered.values()) == {1}
        retries = engine.model.traffic.retries
        assert len(server.requests) == NUM_CALLS + retries.total()
        assert set(retries) == {"HTTP 429", "HTTP 500", "timed out", "connection cut"}
        asked = len(server.requests)
        again, engine = ask_all(server, tmp_path / "calls.sqlite")
        assert again == replies
        assert (engine.reused, len(server.requests)) == (NUM_CALLS, asked)


def test_what_never_succeeds_is_listed_with_its_cause_and_asked_for_again_by_the_next_run(tmp_path: Path) -> None:
    server = ChatServer(echo)

    def fault(number: int) -> Fault | None:
        messages: list[Message] = server.requests[number].body["messages"]
        return Fault(status=500) if messages[0]["content"] in ("call 7", "call 500") else drawn_fault(number)

    with server:
        server.fault = fault
        replies, engine = ask_all(server, tmp_path / "calls.sqlite")
        failed = {i: str(reply) for i, reply in enumerate(replies) if isinstance(reply, CallFailedError)}
        assert failed == {7: "HTTP 500", 500: "HTTP 500"}
        assert sum(isinstance(reply, Reply) for reply in replies) == NUM_CALLS - 2
        assert engine.stats.steps["reading"].failed == {"HTTP 500": 2}
        server.fault = lambda number: None
        asked = len(server.requests)
        again, engine = ask_all(server, tmp_path / "calls.sqlite")
        assert (engine.reused, len(server.requests) - asked) == (NUM_CALLS - 2, 2)
        assert all(isinstance(reply, Reply) for reply in again)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_results_do_not_depend_on_the_event_loop(loop: str, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    runner = run_async if loop == "uvloop" else asyncio.run

    async def ask(url: str) -> Reply:
        model = ChatEndpoint(url, "org/model", 1)
        try:
            return await model.complete([{"role": "user", "content": "hello"}], 9)
        finally:
            await model.close()

    with ChatServer(echo) as server:
        assert runner(ask(server.base_url)).text == "you said hello"
