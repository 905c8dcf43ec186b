"""The chat endpoint against a loopback server: what it sends, survives, refuses and never tells."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from selflong.errors import UserError
from selflong.llm import endpoint as endpoint_module
from selflong.llm.endpoint import ChatEndpoint, open_endpoint
from selflong.llm.engine import Reply
from tests.chat_server import ChatServer, Fault, Message

SECRET = "hf_averysecretsecret"
HELLO: list[Message] = [{"role": "user", "content": "say hello"}]


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(endpoint_module, "MAX_ATTEMPTS", 4)
    monkeypatch.setenv("SELFLONG_API_KEY", SECRET)


def echo(messages: Sequence[Message]) -> str:
    return "you said " + messages[-1]["content"]


def ask(server: ChatServer, messages: Sequence[Message] = HELLO, max_tokens: int = 50) -> Reply:
    """One call through a fresh endpoint."""
    return ask_many(server, [messages], max_tokens)[0]


def ask_many(
    server: ChatServer, prompts: Sequence[Sequence[Message]], max_tokens: int = 50, in_flight: int = 4
) -> list[Reply]:
    async def run() -> list[Reply]:
        model = ChatEndpoint(server.base_url, "org/model", in_flight, 4096)
        try:
            return await asyncio.gather(*(model.complete(p, max_tokens) for p in prompts))
        finally:
            await model.close()

    return asyncio.run(run())


def test_sends_a_greedy_request_and_reads_reply_and_usage() -> None:
    with ChatServer(echo) as server:
        assert ask(server) == Reply("you said say hello", "stop", 2, 4)
    (request,) = server.requests
    assert request.body == {
        "model": "org/model",
        "messages": HELLO,
        "max_tokens": 50,
        "temperature": 0,
        "seed": 0,
        "stream": False,
    }
    assert request.authorization == f"Bearer {SECRET}"


def test_a_cut_reply_says_length() -> None:
    with ChatServer(echo) as server:
        reply = ask(server, max_tokens=2)
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 2)


@pytest.mark.parametrize(("reason", "read"), [("eos_token", "stop"), ("content_filter", "length")])
def test_other_servers_reasons_are_whole_or_cut(reason: str, read: str) -> None:
    choice = {"finish_reason": reason, "message": {"content": "text"}}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    with ChatServer(echo, fault=lambda number: Fault(body=body)) as server:
        assert ask(server).finish_reason == read


def test_no_token_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFLONG_API_KEY")
    with ChatServer(echo) as server:
        ask(server)
    assert server.requests[0].authorization is None


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=503), Fault(status=429), Fault(cut=True), Fault(body="<html>"), Fault(body="{}")],
    ids=["500", "503", "429", "cut", "html", "no choices"],
)
def test_what_may_pass_is_asked_again(fault: Fault) -> None:
    with ChatServer(echo, fault=lambda number: fault if number < 2 else None) as server:
        assert ask(server).text == "you said say hello"
    assert len(server.requests) == 3


def test_a_silent_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    monkeypatch.setattr(endpoint_module, "TIMEOUT", aiohttp.ClientTimeout(sock_read=0.2))
    with ChatServer(echo, fault=lambda number: Fault(delay_seconds=2) if number == 0 else None) as server:
        assert ask(server).text == "you said say hello"


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}',
        '{"choices": [{"finish_reason": "stop", "message": {"content": null}}], '
        '"usage": {"prompt_tokens": 1, "completion_tokens": 0}}',
        '{"choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}',
        '{"choices": [{"finish_reason": "st',
    ],
    ids=["empty choices", "null content", "no usage", "broken JSON"],
)
def test_a_reply_without_a_reply_is_never_an_empty_text(body: str) -> None:
    with (
        ChatServer(echo, fault=lambda number: Fault(body=body)) as server,
        pytest.raises(UserError, match="4 attempts"),
    ):
        ask(server)
    assert len(server.requests) == 4


def test_gives_up_after_the_bound_with_the_servers_words() -> None:
    busy = Fault(status=503, body='{"error": {"message": "model is loading"}}')
    with ChatServer(echo, fault=lambda number: busy) as server, pytest.raises(UserError, match="model is loading"):
        ask(server)
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_refusal_is_final_and_tells_the_servers_words_without_the_token(status: int) -> None:
    body = json.dumps({"error": {"message": f"no, {SECRET} is\nnot welcome"}})
    with ChatServer(echo, fault=lambda number: Fault(status=status, body=body)) as server:
        with pytest.raises(UserError) as caught:
            ask(server)
        assert len(server.requests) == 1
    assert f"HTTP {status}: no, *** is not welcome" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_token_in_any_link_of_the_error_chain() -> None:
    """`--debug` prints the whole chain."""
    body = json.dumps({"error": SECRET})
    with (
        ChatServer(echo, fault=lambda number: Fault(status=500, body=body)) as server,
        pytest.raises(UserError) as caught,
    ):
        ask(server)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="SELFLONG_API_KEY") as caught:
        ChatEndpoint("http://user:pass-word@127.0.0.1/v1", "m", 1, 10)
    assert "pass-word" not in str(caught.value)


async def _ask_and_close(model: ChatEndpoint) -> Reply:
    try:
        return await model.complete(HELLO, 5)
    finally:
        await model.close()


def test_never_more_in_flight_than_allowed() -> None:
    with ChatServer(echo, fault=lambda number: Fault(delay_seconds=0.02)) as server:
        ask_many(server, [[{"role": "user", "content": str(i)}] for i in range(12)], in_flight=3)
    assert server.most_busy == 3


def test_the_slot_is_free_while_a_call_waits_for_retry_after() -> None:
    later = Fault(status=429, headers={"Retry-After": "0.5"})
    with ChatServer(echo, fault=lambda number: later if number == 0 else None) as server:
        started = time.monotonic()
        ask_many(server, [[{"role": "user", "content": c}] for c in ("first", "second")], in_flight=1)
    contents = [r.body["messages"][0]["content"] for r in server.requests]
    arrivals = [r.arrived - started for r in server.requests]
    assert contents == ["first", "second", "first"]
    assert arrivals[1] < 0.4
    assert arrivals[2] - arrivals[0] >= 0.5


def test_retry_after_may_be_a_date_and_is_bounded() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < endpoint_module._retry_after_seconds({"Retry-After": date}) <= 60
    assert endpoint_module._retry_after_seconds({"Retry-After": "86400"}) == 600
    assert endpoint_module._retry_after_seconds({"Retry-After": "soon"}) == 0


def test_an_endpoint_works_again_in_another_event_loop() -> None:
    with ChatServer(echo) as server:
        model = ChatEndpoint(server.base_url, "m", 1, 10)
        assert asyncio.run(_ask_and_close(model)) == asyncio.run(_ask_and_close(model))


def test_identity_is_the_model_and_not_the_address() -> None:
    assert ChatEndpoint("http://a/v1", "org/m", 1, 1).identity == ChatEndpoint("http://b/v1", "org/m", 9, 1).identity


@pytest.mark.parametrize(
    ("told", "fits"),
    [
        ({}, True),
        ({"info": {"max_total_tokens": 4096}}, True),
        ({"info": {"max_total_tokens": 4095}}, False),
        ({"models": {"data": [{"id": "org/model", "max_model_len": 2048}]}}, False),
        ({"models": {"data": [{"id": "tgi", "max_model_len": 2048}]}}, False),
        ({"models": {"data": [{"id": "a", "max_model_len": 1}, {"id": "org/model", "max_model_len": 8192}]}}, True),
        ({"models": {"data": [{"id": "a", "max_model_len": 1}, {"id": "b", "max_model_len": 1}]}}, True),
    ],
)
def test_a_server_that_takes_less_is_refused_before_any_call(
    told: dict[str, Any], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer(echo, **told) as server:
        monkeypatch.setenv("SELFLONG_BASE_URL", server.base_url + "/")
        if fits:
            assert asyncio.run(_ask_and_close(open_endpoint("org/model", 2, 4096))).text == "you said say hello"
        else:
            with pytest.raises(UserError, match="context_length 4096"):
                open_endpoint("org/model", 2, 4096)
            assert server.requests == []


def test_a_missing_address_and_a_missing_server_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFLONG_BASE_URL", raising=False)
    with pytest.raises(UserError, match="export SELFLONG_BASE_URL"):
        open_endpoint("m", 1, 10)
    monkeypatch.setenv("SELFLONG_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(UserError, match="start the server"):
        open_endpoint("m", 1, 10)
    monkeypatch.setenv("SELFLONG_BASE_URL", "no address")
    with pytest.raises(UserError, match="SELFLONG_BASE_URL"):
        open_endpoint("m", 1, 10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def transformers_serve(tiny_model_dir: Path) -> Iterator[str]:
    """The address of a real `transformers serve` of the tiny model."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(tiny_model_dir), "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            assert server.poll() is None, "transformers serve ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_a_real_server_answers_us_and_the_hubs_client_alike(
    transformers_serve: str, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import InferenceClient

    # The Hub's client refuses loopback calls, too, when told to stay offline.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SELFLONG_BASE_URL", transformers_serve)
    ours = asyncio.run(_ask_and_close(open_endpoint(str(tiny_model_dir), 1, 64)))
    client = InferenceClient(base_url=transformers_serve, api_key="-", timeout=60)
    theirs = client.chat_completion(HELLO, model=str(tiny_model_dir), max_tokens=5, temperature=0, seed=0)
    assert ours.text == theirs.choices[0].message.content
    assert (ours.prompt_tokens, ours.completion_tokens) == (theirs.usage.prompt_tokens, theirs.usage.completion_tokens)
    assert (ours.completion_tokens, ours.finish_reason) == (5, "length")
