"""The engine: budgets are checked before a call, no call is made twice, in-process batches do not depend on timing."""

import asyncio
from pathlib import Path

import pytest

from selflong.errors import UserError
from selflong.llm import engine as engine_module
from selflong.llm.engine import GREEDY, CallFailedError, Engine, Reply
from selflong.llm.journal import Journal
from selflong.llm.stats import Traffic


class Echo:
    identity, sampling, traffic = "echo", GREEDY, Traffic()

    def __init__(self, fails: int = 0, of: int = 1_000) -> None:
        """The first `fails` of every `of` calls fail."""
        self.calls, self.fails, self.of = 0, fails, of

    async def complete(self, messages: object, max_tokens: int) -> Reply:
        self.calls += 1
        await asyncio.sleep(0.01)
        if (self.calls - 1) % self.of < self.fails:
            raise CallFailedError("HTTP 500", "the server's words")
        return Reply("yes", "stop", 5, 1)

    async def close(self) -> None:
        """Nothing to release."""


def test_a_call_over_the_context_length_is_refused_before_it_is_made(tmp_path: Path) -> None:
    model = Echo()
    with Journal(tmp_path / "calls.sqlite", None) as journal:
        engine = Engine(model, journal, 20, lambda messages: len(messages[0]["content"]), "v")
        asyncio.run(engine.ask("reading", "x" * 10, 10))
        with pytest.raises(UserError, match="reading call: needs 21 tokens, the generator has 20"):
            asyncio.run(engine.ask("reading", "x" * 11, 10))
    assert model.calls == 1


def test_an_answered_call_is_never_made_again(tmp_path: Path) -> None:
    model = Echo()
    for run in range(2):
        with Journal(tmp_path / "calls.sqlite", None) as journal:
            engine = Engine(model, journal, 100, None, "v")
            for _ in range(3):
                assert asyncio.run(engine.ask("reading", "same", 10)).text == "yes"
            journal.commit()
            assert engine.reused == (2 if run == 0 else 3)
    assert model.calls == 1


def test_equal_calls_under_way_are_paid_once(tmp_path: Path) -> None:
    model = Echo()

    async def run(engine: Engine) -> None:
        replies = await asyncio.gather(*(engine.ask("reading", text, 10) for text in ["same"] * 5 + ["other"]))
        assert [reply.text for reply in replies] == ["yes"] * 6

    with Journal(tmp_path / "calls.sqlite", None) as journal:
        engine = Engine(model, journal, 100, None, "v")
        asyncio.run(run(engine))
        assert (model.calls, engine.calls, engine.reused) == (2, {"reading": 6}, 0)
        assert engine.stats.as_facts()["timings"]["steps"]["reading"]["coalesced"] == 4


def test_a_shared_call_outlives_whoever_asked_first(tmp_path: Path) -> None:
    model = Echo()

    async def run(engine: Engine) -> Reply:
        first = asyncio.create_task(engine.ask("reading", "same", 10))
        second = asyncio.create_task(engine.ask("reading", "same", 10))
        await asyncio.sleep(0.001)
        first.cancel()
        return await second

    with Journal(tmp_path / "calls.sqlite", None) as journal:
        assert asyncio.run(run(Engine(model, journal, 100, None, "v"))).text == "yes"
    assert model.calls == 1


def test_a_failed_call_is_told_to_all_who_share_it_and_made_again_later(tmp_path: Path) -> None:
    model = Echo(fails=1)

    async def run(engine: Engine) -> None:
        calls = (engine.ask("reading", "same", 10) for _ in range(2))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["HTTP 500"] * 2
        assert (await engine.ask("reading", "same", 10)).text == "yes"

    with Journal(tmp_path / "calls.sqlite", None) as journal:
        engine = Engine(model, journal, 100, None, "v")
        asyncio.run(run(engine))
        assert engine.calls == {"reading": 1}
        assert engine.stats.steps["reading"].failed == {"HTTP 500": 1}


def test_a_server_that_answers_nobody_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four failures in a row are too many here; three, then an answer, again and again, are not."""
    monkeypatch.setattr(engine_module, "MAX_FAILURES_IN_A_ROW", 4)

    async def run(engine: Engine) -> list[Reply | CallFailedError]:
        outcomes: list[Reply | CallFailedError] = []
        for number in range(8):
            try:
                outcomes.append(await engine.ask("reading", str(number), 10))
            except CallFailedError as failure:
                outcomes.append(failure)
        return outcomes

    with Journal(tmp_path / "calls.sqlite", None) as journal:
        outcomes = asyncio.run(run(Engine(Echo(fails=3, of=4), journal, 100, None, "v")))
        assert [isinstance(outcome, Reply) for outcome in outcomes] == [False, False, False, True] * 2
    message = "4 calls in a row failed, the last one with HTTP 500"
    with Journal(tmp_path / "none.sqlite", None) as journal, pytest.raises(UserError, match=message):
        asyncio.run(run(Engine(Echo(fails=4, of=5), journal, 100, None, "v")))


def test_in_process_answers_do_not_depend_on_the_order_of_arrival(tiny_model_dir: Path) -> None:
    from selflong.llm.in_process import InProcessModel

    model = InProcessModel(tiny_model_dir, 1)
    prompts = [f"{'word ' * n}tell me about {n}" for n in (3, 30, 9, 1, 22)]

    async def ask(order: list[int]) -> dict[int, Reply]:
        async def one(i: int) -> tuple[int, Reply]:
            for _ in range(i):
                await asyncio.sleep(0)  # arrives some rounds later
            return i, await model.complete([{"role": "user", "content": prompts[i]}], 6)

        return dict(await asyncio.gather(*map(one, order)))

    assert asyncio.run(ask([0, 1, 2, 3, 4])) == asyncio.run(ask([4, 2, 0, 1, 3]))


def test_in_process_generation_equals_unbatched_generation(tiny_model_dir: Path) -> None:
    from selflong.llm.in_process import InProcessModel

    model = InProcessModel(tiny_model_dir, 1)
    prompts = ["short", "a much longer prompt about nothing in particular, with many more words than the other"]

    async def together() -> list[Reply]:
        return await asyncio.gather(*(model.complete([{"role": "user", "content": p}], 8) for p in prompts))

    for prompt, reply in zip(prompts, asyncio.run(together()), strict=True):
        alone = asyncio.run(model.complete([{"role": "user", "content": prompt}], 8))
        assert reply == alone
        assert reply.completion_tokens == 8 if reply.finish_reason == "length" else reply.completion_tokens <= 8
