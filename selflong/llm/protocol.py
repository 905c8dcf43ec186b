"""OpenAI's chat-completions protocol as text: the request's body, the reply, and what refusals mean.

Stands under `llm/endpoint.py`, which sends and receives. The shapes of TGI, vLLM, SGLang, llama.cpp, `transformers
serve` and Inference Providers differ in details; all of them are read here.
"""

import contextlib
import email.utils
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from selflong.llm.engine import Message, Reply, Sampling

# A server that asks for longer is out of quota rather than busy.
LONGEST_RETRY_AFTER_SECONDS = 600.0
# TGI's own words for a reply that ended by itself stand beside the protocol's.
ENDED_BY_ITSELF = {"stop", "eos_token", "stop_sequence"}
# "must have less than N tokens", "must be <= N" (TGI router/src/validation.rs), "maximum context length is N tokens"
# (vLLM, SGLang), "exceeds the available context size" (llama.cpp): one cause, without the numbers.
TOO_LONG = re.compile(r"must have less than|`max_new_tokens` must be <=|context (length|size|window)|too (long|large)")


class UnreadableError(Exception):
    """A reply that is no chat completion."""


def request_body(model: str, messages: Sequence[Message], max_tokens: int, sampling: Sampling) -> bytes:
    """The body of one call. Where tokens are drawn at random, the seed follows from everything else in the body."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "seed": 0,
        "stream": False,
    }
    if sampling.top_p < 1:  # TGI refuses 1.0, which means the same as nothing (router/src/validation.rs, v3.3.7)
        body["top_p"] = sampling.top_p
    if sampling.temperature > 0:
        digest = hashlib.sha256(json.dumps(body).encode()).digest()
        body["seed"] = int.from_bytes(digest[:4], "big") >> 1  # 31 bits: an int32 nowhere overflows
    return json.dumps(body).encode()


def read_reply(content: bytes, seconds: float) -> Reply:
    """Read one chat completion. Raises UnreadableError for one without text, reason or usage: never an empty text."""
    try:
        completion = json.loads(content)
        choice, usage = completion["choices"][0], completion["usage"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
        prompt_tokens, completion_tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnreadableError(f"no chat completion ({type(error).__name__})") from error
    if not isinstance(text, str) or not isinstance(reason, str):
        raise UnreadableError(f"no text (content {type(text).__name__}, finish_reason {reason!r})")
    # Whatever else cut a reply short (length, a filter), it is not whole, and is dropped alike.
    return Reply(text, "stop" if reason in ENDED_BY_ITSELF else "length", prompt_tokens, completion_tokens, seconds)


def server_words(content: bytes) -> str:
    """The server's own words, in one line: {"error": {"message": …}}, {"error": …}, {"message": …} or plain text."""
    message: Any = content.decode(errors="replace")
    with contextlib.suppress(ValueError):
        parsed = json.loads(message)
        if isinstance(parsed, dict):
            message = parsed.get("error") or parsed.get("message") or parsed.get("detail") or parsed
        if isinstance(message, dict):
            message = message.get("message", message)
    return " ".join(str(message).split())[:300] or "no message"


def refusal_cause(status: int, words: str) -> str:
    """A refusal as one of few causes."""
    return f"HTTP {status}: input too long" if status < 500 and TOO_LONG.search(words) else f"HTTP {status}"


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 if there is none."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    # Not min and max alone: "nan" is a float, too.
    return min(seconds, LONGEST_RETRY_AFTER_SECONDS) if seconds > 0 else 0.0
