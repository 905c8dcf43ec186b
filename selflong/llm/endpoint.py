"""A chat server as the generator: OpenAI's chat-completions protocol, spoken by TGI, vLLM, SGLang, llama.cpp,
`transformers serve` and Inference Providers.

Stands under synthesis: messages in, `Reply` out. The address and the secret come from the environment
($SELFLONG_BASE_URL, $SELFLONG_API_KEY) and never reach a file; the model's name comes from the recipe.
"""

import asyncio
import contextlib
import email.utils
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from selflong.errors import UserError
from selflong.llm.engine import Message, Reply

BASE_URL_VARIABLE = "SELFLONG_BASE_URL"
API_KEY_VARIABLE = "SELFLONG_API_KEY"

# Waits 0.5, 1, 2, … 30, 30 s: about four minutes in all, enough for a server to be restarted.
MAX_ATTEMPTS = 14
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# A server that asks for longer is out of quota rather than busy.
LONGEST_RETRY_AFTER_SECONDS = 600.0
# A reply comes in one piece, so this bounds the generation of a whole response on a loaded server.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=900)
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=30)
# TGI's own words for a reply that ended by itself stand beside the protocol's.
ENDED_BY_ITSELF = {"stop", "eos_token", "stop_sequence"}


class ChatEndpoint:
    """A `ChatModel` behind an HTTP server, with at most `in_flight` calls at a time. Greedy, so that calls repeat."""

    def __init__(
        self, base_url: str, model: str, in_flight: int, context_length: int, api_key_env: str = API_KEY_VARIABLE
    ) -> None:
        if "@" in base_url:
            remedy = f"export the secret as {api_key_env} and leave it out of the address"
            raise UserError(f"${BASE_URL_VARIABLE}", "holds a user name or password", remedy)
        self.context_length = context_length
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)
        self._secret = os.environ.get(api_key_env, "")
        self._session: aiohttp.ClientSession | None = None

    @property
    def identity(self) -> str:
        """The model's name: never the address, so that a journal holds when the server moves."""
        return self._model

    async def complete(self, messages: Sequence[Message], max_tokens: int) -> Reply:
        """Return the model's reply. A busy, failing or vanished server is asked again, its slot free while waiting.

        Raises UserError if the server refuses the request or stays unable to answer.
        """
        body = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": 0,
            "stream": False,
        }
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                async with self._slots:
                    return await self._ask(body)
            except _TryAgainError as error:
                if attempt == MAX_ATTEMPTS:
                    raise self._failure(f"{error} ({attempt} attempts)", "see the server's log, then rerun") from error
                await asyncio.sleep(max(wait, error.retry_after))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def served_context_length(self) -> int | None:
        """Return the tokens that prompt and reply may have together, if the server tells: TGI's /info, else /models.

        Raises UserError if no server answers or it does not let us in.
        """
        info = await self._probe(self._base_url.removesuffix("/v1") + "/info")
        if isinstance(info.get("max_total_tokens"), int):
            return int(info["max_total_tokens"])
        listed = (await self._probe(self._base_url + "/models")).get("data")
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        for model in [m for m in models if m.get("id") == self._model] or (models if len(models) == 1 else []):
            for key in ("max_model_len", "context_length"):  # vLLM and SGLang; Inference Providers
                if isinstance(model.get(key), int):
                    return int(model[key])
        return None

    async def close(self) -> None:
        """Close the connections; the endpoint may be used again, also in another event loop."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, body: Mapping[str, Any]) -> Reply:
        try:
            async with self._open().post(self._base_url + "/chat/completions", json=body) as response:
                text = await response.text(errors="replace")
                status, headers = response.status, response.headers
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:  # timeouts are among them
            raise _TryAgainError(f"no answer ({type(error).__name__})") from error
        except aiohttp.ClientError as error:
            raise self._failure(type(error).__name__, f"check ${BASE_URL_VARIABLE}") from error
        # 408 is a timeout that the server noticed first.
        if status in (408, 429) or status >= 500:
            raise _TryAgainError(f"HTTP {status}: {self._words(text)}", _retry_after_seconds(headers))
        if status != 200:
            raise self._failure(f"HTTP {status}: {self._words(text)}", _remedy(status))
        return _read_reply(text)

    async def _probe(self, url: str) -> dict[str, Any]:
        try:
            async with self._open().get(url, timeout=PROBE_TIMEOUT) as response:
                text, status = await response.text(errors="replace"), response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            remedy = f"start the server, wait until it is ready, and check ${BASE_URL_VARIABLE}"
            raise self._failure(f"no answer ({type(error).__name__})", remedy) from error
        if status in (401, 403):
            raise self._failure(f"HTTP {status}: {self._words(text)}", _remedy(status))
        # Few servers have both addresses: any other refusal means that the server does not tell.
        with contextlib.suppress(ValueError):
            content = json.loads(text)
            if status == 200 and isinstance(content, dict):
                return content
        return {}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._secret}"} if self._secret else {}
            connector = aiohttp.TCPConnector(limit=self._in_flight)
            self._session = aiohttp.ClientSession(headers=headers, connector=connector, timeout=TIMEOUT)
        return self._session

    def _words(self, text: str) -> str:
        """The server's message, without the secret that it may echo."""
        return _server_message(text.replace(self._secret, "***") if self._secret else text)

    def _failure(self, what: str, remedy: str) -> UserError:
        return UserError(f"chat server {self._base_url}", what, remedy)


class _TryAgainError(Exception):
    """The server may answer later; `retry_after` are the seconds it asked for."""

    def __init__(self, what: str, retry_after: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


def open_endpoint(model: str, in_flight: int, context_length: int) -> ChatEndpoint:
    """Return the endpoint at $SELFLONG_BASE_URL, after asking it whether `context_length` tokens fit (no paid call).

    Call it outside an event loop. Raises UserError if the variable is missing, no server answers or too few tokens fit.
    """
    base_url = os.environ.get(BASE_URL_VARIABLE)
    if not base_url:
        raise UserError(
            f"generator.model {model}",
            f"${BASE_URL_VARIABLE} is not set, so no chat server is known",
            f"start one (recipes/serving/README.md) and export {BASE_URL_VARIABLE}=http://127.0.0.1:8000/v1",
        )
    endpoint = ChatEndpoint(base_url, model, in_flight, context_length)
    served = asyncio.run(_served_once(endpoint))
    if served is not None and served < context_length:
        raise UserError(
            f"generator.context_length {context_length}",
            f"the chat server takes {served} tokens",
            f"lower it to {served} or start the server with more",
        )
    return endpoint


async def _served_once(endpoint: ChatEndpoint) -> int | None:
    try:
        return await endpoint.served_context_length()
    finally:
        await endpoint.close()


def _read_reply(text: str) -> Reply:
    """Read one chat completion. One without text, reason or usage is a failure of the server, never an empty text."""
    try:
        completion = json.loads(text)
        choice, usage = completion["choices"][0], completion["usage"]
        content, reason = choice["message"]["content"], choice["finish_reason"]
        prompt_tokens, completion_tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _TryAgainError(f"reply is no chat completion ({type(error).__name__}: {error})") from error
    if not isinstance(content, str) or not isinstance(reason, str):
        raise _TryAgainError(f"reply holds no text (content {content!r}, finish_reason {reason!r})")
    # Whatever else cut a reply short (length, a filter), it is not whole, and is dropped alike.
    return Reply(content, "stop" if reason in ENDED_BY_ITSELF else "length", prompt_tokens, completion_tokens)


def _server_message(text: str) -> str:
    """The server's own words, in one line: {"error": {"message": …}}, {"error": …}, {"message": …} or plain text."""
    message: Any = text
    with contextlib.suppress(ValueError):
        content = json.loads(text)
        if isinstance(content, dict):
            message = content.get("error") or content.get("message") or content.get("detail") or content
        if isinstance(message, dict):
            message = message.get("message", message)
    return " ".join(str(message).split())[:300] or "no message"


def _retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 if there is none."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f"export {API_KEY_VARIABLE} with a token that the server accepts"
    if status == 404:
        return f"check that ${BASE_URL_VARIABLE} ends in /v1 and that the server serves generator.model"
    return "change the recipe's generator section or the server's settings"
