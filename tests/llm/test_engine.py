"""The engine: budgets are checked before a call, no call is made twice, in-process batches do not depend on timing."""

import asyncio
from pathlib import Path

import pytest

from selflong.errors import UserError
from selflong.llm.engine import Engine, Reply
from selflong.llm.journal import Journal


class Echo:
    identity = "echo"

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, messages: object, max_tokens: int) -> Reply:
        self.calls += 1
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
