"""A loopback embeddings server for tests: scripted vectors, faults on demand, a request log.

Shapes: OpenAI's API reference, "Create embeddings" (`object: list`, `data[].{object, index, embedding}`, `model`,
`usage.{prompt_tokens, total_tokens}`), which text-embeddings-inference (its OpenAPI: `OpenAICompatResponse`) and vLLM
(`EmbeddingResponse`) give back too; TEI's words for too many requests are those of its `Overloaded` error, HTTP 429.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tests.chat_server import Fault
from tests.loopback import LoopbackServer

OVERLOADED = Fault(status=429, body='{"error": "Model is overloaded", "error_type": "overloaded"}')


class EmbeddingsServer(LoopbackServer):
    """Serves `embed(text)` on an ephemeral port of 127.0.0.1 while the context lasts.

    `fault(number)` is asked for every request, counted from 0. Entries of `data` stand in reverse order: the protocol
    gives each its `index`, and promises nothing about the order.
    """

    def __init__(
        self, embed: Callable[[str], Sequence[float]], fault: Callable[[int], Fault | None] = lambda number: None
    ) -> None:
        self.embed, self.fault = embed, fault
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        super().__init__()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/embeddings", self._reply)

    @property
    def texts(self) -> list[str]:
        """Every text that was asked for, also by requests that failed."""
        return [text for request in self.requests for text in request["input"]]

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fault = self.fault(len(self.requests)) or Fault()
        self.requests.append(body)
        self.authorizations.append(request.headers.get("Authorization"))
        await asyncio.sleep(fault.delay_seconds)
        if fault.cut:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fault.status != 200 or fault.body is not None:
            return web.Response(status=fault.status, text=fault.body or "busy", headers=fault.headers)
        data = [
            {"object": "embedding", "index": i, "embedding": list(self.embed(text))}
            for i, text in enumerate(body["input"])
        ]
        tokens = sum(len(text.split()) for text in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "data": data[::-1], "model": body["model"], "usage": usage})
