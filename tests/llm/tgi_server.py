"""A loopback server with TGI's routes and shapes. Tokens are words.

Source: huggingface/text-generation-inference at v3.3.7 (dfb3fbe7), `router/src/`:
  GET  /info                  server.rs `get_model_info`, lib.rs `struct Info`
  GET  /v1/models             server.rs `openai_get_model_info`, lib.rs `struct ModelInfo`
  GET  /health                server.rs `health`: 200 without a body
  POST /v1/chat/completions   server.rs `chat_completions`: any name, "tgi" by custom; lib.rs `ChatCompletion`
    429 overloaded            infer/mod.rs `InferError::Overloaded`, beyond max_concurrent_requests, without Retry-After
    422 validation            validation.rs `ValidationError`: InputLength, MaxTotalTokens, TopP, in that server's words
    temperature 0 is greedy   lib.rs `ChatRequest::try_into_generate`
Errors are {"error", "error_type"}: lib.rs `struct ErrorResponse`.
"""

import asyncio
from typing import Any

from aiohttp import web

from tests.loopback import LoopbackServer

VERSION = "3.3.7"
SHA = "0e9e39f249a16976918f6564b8830bc894c89659"


class TgiServer(LoopbackServer):
    """Serves `model_id` on an ephemeral port of 127.0.0.1 while the context lasts; answers echo the last message."""

    def __init__(
        self,
        model_id: str = "org/model",
        max_input_tokens: int = 96,
        max_total_tokens: int = 128,
        max_concurrent_requests: int = 128,
        seconds: float = 0.0,
    ) -> None:
        self.model_id, self.max_input_tokens, self.max_total_tokens = model_id, max_input_tokens, max_total_tokens
        self.max_concurrent_requests, self.seconds = max_concurrent_requests, seconds
        self.bodies: list[dict[str, Any]] = []
        self.answered = self.refused = self.busy = 0
        super().__init__()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path, page in {"/info": self._info, "/v1/models": self._models, "/health": self._health}.items():
            router.add_get(path, page)
        router.add_post("/v1/chat/completions", self._chat_completions)

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "model_id": self.model_id,
                "model_sha": SHA,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": self.max_concurrent_requests,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": self.max_input_tokens,
                "max_total_tokens": self.max_total_tokens,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": VERSION,
                "sha": None,
                "docker_label": None,
            }
        )

    async def _models(self, request: web.Request) -> web.Response:
        entry = {"id": self.model_id, "object": "model", "created": 0, "owned_by": self.model_id}
        return web.json_response({"object": "list", "data": [entry]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _chat_completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        if self.busy >= self.max_concurrent_requests:
            self.refused += 1
            return _error(429, "Model is overloaded", "overloaded")
        self.busy += 1
        try:
            if words := self._invalid(body):
                return _error(422, f"Input validation error: {words}", "validation")
            await asyncio.sleep(self.seconds)
            self.answered += 1
            return web.json_response(self._completion(body))
        finally:
            self.busy -= 1

    def _invalid(self, body: dict[str, Any]) -> str | None:
        """What `Validation::validate` refuses, in its order."""
        top_p, wanted = body.get("top_p"), body.get("max_tokens")
        if top_p is not None and not 0 < top_p < 1:
            return "`top_p` must be > 0.0 and < 1.0"
        given = _num_tokens(body)
        if wanted is None:
            wanted = max(self.max_total_tokens - given, 0)
        if given + wanted > self.max_total_tokens:
            return (
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_tokens}. "
                f"Given: {given} `inputs` tokens and {wanted} `max_new_tokens`"
            )
        if given > self.max_input_tokens:
            return f"`inputs` must have less than {self.max_input_tokens} tokens. Given: {given}"
        return None

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        words = ["you", "said", *body["messages"][-1]["content"].split()]
        wanted = body.get("max_tokens") or len(words)
        text, given, written = " ".join(words[:wanted]), _num_tokens(body), min(len(words), wanted)
        return {
            "object": "chat.completion",
            "id": "",
            "created": 1_700_000_000,
            "model": self.model_id,
            "system_fingerprint": f"{VERSION}-native",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": None,
                    "finish_reason": "stop" if len(words) <= wanted else "length",
                }
            ],
            "usage": {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written},
        }


def _num_tokens(body: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


def _error(status: int, error: str, error_type: str) -> web.Response:
    return web.json_response({"error": error, "error_type": error_type}, status=status)
