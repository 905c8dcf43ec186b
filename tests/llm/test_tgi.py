"""TGI's shapes: limits and model told before the first call, 429 outwaited, 422 fails one call. The Hub's own client
gets the same answers from both fakes, so that they agree with more than ours."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from selflong.errors import UserError
from selflong.llm.endpoint import ChatEndpoint, Patience, open_endpoint
from selflong.llm.engine import CallFailedError, Message, Reply, Sampling
from tests.chat_server import ChatServer
from tests.llm.tgi_server import SHA, TgiServer

QUICK = Patience(attempt_seconds=5, max_attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.02)


def prompt(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]


def ask(model: ChatEndpoint, prompts: Sequence[str], max_tokens: int = 20) -> list[Reply | BaseException]:
    async def run() -> list[Reply | BaseException]:
        try:
            calls = (model.complete(prompt(content), max_tokens) for content in prompts)
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await model.close()

    return asyncio.run(run())


def test_limits_model_and_revision_are_asked_for_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with TgiServer() as server:
        monkeypatch.setenv("SELFLONG_BASE_URL", server.url + "/v1")
        model = open_endpoint("org/model", 2, 128, revision=SHA)
        for wrong in ({"model": "org/other"}, {"context_length": 129}, {"revision": "f" * 40}):
            keys: dict[str, Any] = {"model": "org/model", "calls_in_flight": 2, "context_length": 128, **wrong}
            with pytest.raises(UserError, match=next(iter(wrong))):
                open_endpoint(**keys)
        assert server.bodies == []
        assert ask(model, ["hello"]) == [Reply("you said hello", "stop", 1, 3)]


def test_everybody_is_answered_by_a_server_that_refuses_what_exceeds_its_slots() -> None:
    with TgiServer(max_concurrent_requests=4, seconds=0.005) as server:
        model = ChatEndpoint(server.url + "/v1", "tgi", 32, patience=QUICK)
        replies = ask(model, [str(i) for i in range(100)])
        assert [getattr(r, "text", r) for r in replies] == [f"you said {i}" for i in range(100)]
        assert server.answered == 100
        assert model.traffic.retries == {"HTTP 429": server.refused}
        # The limiter has learnt: far fewer refusals than the 28 a round trip of one that keeps all 32 in flight.
        assert 0 < server.refused < 200


@pytest.mark.parametrize(("num_words", "max_tokens"), [(97, 20), (90, 40)], ids=["input", "input and answer"])
def test_too_long_an_input_fails_its_call_alone(num_words: int, max_tokens: int) -> None:
    with TgiServer(max_input_tokens=96, max_total_tokens=128) as server:
        model = ChatEndpoint(server.url + "/v1", "tgi", 4, patience=QUICK)
        good, bad = ask(model, ["fine", "word " * num_words], max_tokens)
        assert isinstance(good, Reply)
        assert isinstance(bad, CallFailedError)
        assert str(bad) == "HTTP 422: input too long"
        assert len(server.bodies) == 2


def test_nucleus_sampling_passes_tgis_validation() -> None:
    with TgiServer() as server:
        for sampling in (Sampling(0.7), Sampling(0.7, 0.9)):
            model = ChatEndpoint(server.url + "/v1", "tgi", 1, sampling, patience=QUICK)
            assert isinstance(ask(model, ["hello"])[0], Reply)


@pytest.mark.parametrize("tgi", [True, False], ids=["TGI's shapes", "chat_server"])
def test_the_hubs_client_reads_the_fakes_as_ours_does(tgi: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    # The Hub's client refuses loopback calls, too, when told to stay offline.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("SELFLONG_API_KEY", raising=False)
    with TgiServer() if tgi else ChatServer(lambda m: "you said " + m[-1]["content"]) as server:
        base_url = server.url + "/v1" if isinstance(server, TgiServer) else server.base_url
        (ours,) = ask(ChatEndpoint(base_url, "org/model", 1), ["hello there"], 3)
        client = InferenceClient(base_url=base_url, api_key="-", timeout=10)
        theirs = client.chat_completion(prompt("hello there"), model="org/model", max_tokens=3, temperature=0, seed=0)
    choice = theirs.choices[0]
    assert ours == Reply("you said hello", "length", 2, 3)
    assert (choice.message.content, choice.finish_reason) == ("you said hello", "length")
    assert (theirs.usage.prompt_tokens, theirs.usage.completion_tokens) == (2, 3)
