"""The one way to ask a model: a budget check, the journal, then the model. Used by synthesis; evaluation may follow.

`ChatModel` is what `llm/endpoint.py` (a chat server) and `llm/in_process.py` (transformers) implement.
"""

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selflong.errors import UserError
from selflong.llm.journal import Journal

Message = dict[str, str]


@dataclass(frozen=True)
class Reply:
    """One answer of a model. `finish_reason` is "stop" or "length" (cut by `max_tokens`)."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class ChatModel(Protocol):
    """A model that answers chat messages greedily."""

    @property
    def identity(self) -> str:
        """Model name and revision or weights' hash: part of the journal's key, never an address or a token."""
        ...

    async def complete(self, messages: Sequence[Message], max_tokens: int) -> Reply:
        """Answer with at most `max_tokens` tokens."""
        ...

    async def close(self) -> None:
        """Release connections or memory."""
        ...


class Engine:
    """Asks one model, never twice the same, never more than its context length; counts calls by step."""

    def __init__(
        self,
        model: ChatModel,
        journal: Journal,
        context_length: int,
        count_tokens: Callable[[Sequence[Message]], int] | None,
        prompt_version: str,
    ) -> None:
        """`count_tokens` counts a prompt with its chat template; None leaves the check to the server."""
        self.model, self.journal, self.context_length = model, journal, context_length
        self.count_tokens, self.prompt_version = count_tokens, prompt_version
        self.calls: collections.Counter[str] = collections.Counter()
        self.reused = 0
        self.longest_call_tokens = 0

    async def ask(self, step: str, content: str, max_tokens: int) -> Reply:
        """Ask one user turn. `step` (instruction, reading, response …) names the call in the counts.

        Raises UserError if prompt and answer could exceed the model's context length.
        """
        messages = [{"role": "user", "content": content}]
        if self.count_tokens:
            needed = self.count_tokens(messages) + max_tokens
            if needed > self.context_length:
                raise UserError(
                    f"{step} call",
                    f"needs {needed} tokens, the generator has {self.context_length}",
                    "lower reading.chunk_tokens or generator.max_*_tokens in synthesis.yaml",
                )
        key = self.journal.key(self.model.identity, self.prompt_version, messages, max_tokens)
        stored = self.journal.get(key)
        if stored is None:
            reply = await self.model.complete(messages, max_tokens)
            self.journal.put(key, reply.__dict__)
        else:
            reply = Reply(**stored)
            self.reused += 1
        self.calls[step] += 1
        self.longest_call_tokens = max(self.longest_call_tokens, reply.prompt_tokens + reply.completion_tokens)
        return reply


class CallFailedError(Exception):
    """STUB"""
