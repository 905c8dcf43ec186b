"""A generator that understands the toy wording by rule, so that the workflow can be tested without training a model.

`wrong` makes it misread every value in the same way: labels must then follow it, not what was inserted.
"""

import re
from collections.abc import Sequence

from selflong.llm.engine import GREEDY, Message, Reply
from selflong.llm.stats import Traffic

FACT = re.compile(r"The magic number for ([a-z]+ [a-z]+) is (\d{6})\.")


class ToyReader:
    """Implements `ChatModel`."""

    def __init__(self, wrong: bool = False, delay_rounds: int = 0) -> None:
        self.wrong, self.delay_rounds = wrong, delay_rounds
        self.identity, self.sampling, self.traffic = f"toy-reader-{wrong}", GREEDY, Traffic()
        self.asked: list[str] = []

    async def complete(self, messages: Sequence[Message], max_tokens: int) -> Reply:
        content = messages[0]["content"]
        self.asked.append(content)
        text = self.answer(content)
        return Reply(text, "stop", len(content.split()), len(text.split()))

    async def close(self) -> None:
        """Nothing to release."""

    def answer(self, content: str) -> str:
        facts = dict(FACT.findall(content))
        if content.endswith("Ask:"):
            return f"Name the magic number for {min(facts)}" if facts else "none."
        if content.endswith("Title:"):
            return "things."
        key = re.search(r"Name the magic number for (.*)$", content)[1]  # type: ignore[index]
        value = facts.get(key, "none")
        is_response_call = all(FACT.fullmatch(line) for line in content.split("\n")[:-1])
        if self.wrong and value != "none" and not is_response_call:
            value = f"{(int(value) + 1) % 1_000_000:06d}"
        return f"{value}."
