"""A `ChatModel` in this process by transformers: batched greedy generation on whatever device torch finds.

Calls that wait at the same time form one batch. A batch is started when every coroutine of the event loop waits for
this model, so its make-up depends on the samples alone, never on timing: same samples, same bytes.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selflong.llm.engine import GREEDY, Message, Reply
from selflong.llm.stats import Traffic
from selflong.manifest import file_sha256
from selflong.tokens import chat_ids

# Event-loop rounds without a new call after which all coroutines are taken to wait for this model. A gather of
# gathers needs four rounds to hand a result down; with no input or output in the loop nothing can take longer.
QUIET_ROUNDS = 12
ROWS_PER_BATCH = 128


class InProcessModel:
    """Answers chat messages with a local checkpoint."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "left"
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.model.eval()
        weights = sorted(folder.glob("*.safetensors"))
        self.identity = "weights:" + ",".join(file_sha256(path)[:16] for path in weights)
        self.sampling, self.traffic = GREEDY, Traffic()
        self.waiting: list[tuple[Sequence[Message], int, asyncio.Future[Reply]]] = []
        self.watcher: asyncio.Task[None] | None = None

    async def complete(self, messages: Sequence[Message], max_tokens: int) -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.waiting.append((messages, max_tokens, answer))
        if self.watcher is None:
            self.watcher = asyncio.create_task(self._answer_when_quiet())
        return await answer

    async def close(self) -> None:
        """Nothing is held open."""

    async def _answer_when_quiet(self) -> None:
        seen, quiet = 0, 0
        while quiet < QUIET_ROUNDS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self.waiting) == seen else 0
            seen = len(self.waiting)
        batch, self.waiting, self.watcher = self.waiting, [], None
        # Longest first, so that a batch pads little; ties by prompt, so that the order of arrival does not matter.
        prompts = [self._render(messages) for messages, _, _ in batch]
        order = sorted(range(len(batch)), key=lambda i: (batch[i][1], -len(prompts[i]), prompts[i]))
        for start in range(0, len(order), ROWS_PER_BATCH):
            chosen = order[start : start + ROWS_PER_BATCH]
            try:
                replies = self._generate([prompts[i] for i in chosen], [batch[i][1] for i in chosen])
            except Exception as error:
                for i in chosen:
                    batch[i][2].set_exception(error)
                continue
            for i, reply in zip(chosen, replies, strict=True):
                batch[i][2].set_result(reply)

    def _render(self, messages: Sequence[Message]) -> list[int]:
        return chat_ids(self.tokenizer, messages, add_generation_prompt=True)

    def _generate(self, prompts: list[list[int]], limits: list[int]) -> list[Reply]:
        """Greedy answers to a batch; each is cut at its own limit."""
        import torch

        started = time.monotonic()
        longest = max(map(len, prompts))
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            output: Any = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max(limits), do_sample=False, pad_token_id=pad
            )
        replies = []
        for prompt, limit, tokens in zip(prompts, limits, output[:, longest:].tolist(), strict=True):
            tokens = tokens[:limit]
            stopped = end in tokens
            written = tokens[: tokens.index(end)] if stopped else tokens
            text = self.tokenizer.decode(written, skip_special_tokens=True)
            reason, seconds = "stop" if stopped else "length", time.monotonic() - started
            replies.append(Reply(text, reason, len(prompt), len(written) + stopped, seconds))
        return replies
