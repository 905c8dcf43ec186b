"""Plays an instruct model by rule: answers each of our prompts from the prompt's own content."""

import re
from collections.abc import Sequence

from tests.chat_server import Message


def answer(messages: Sequence[Message]) -> str:
    """The reply to any prompt of `InstructPrompts`, or to an open prompt that it wrote itself."""
    prompt = messages[-1]["content"]
    if passage := between(prompt, "passage"):
        words = content_words(passage)
        if len(words) < 3:
            return "NOTHING"
        if "sets the scene" in prompt:
            return f"Please explain {words[0]} and {words[1]} to me in three short sentences."
        return f"Compare what is said on {words[0]} and {words[1]}, and explain {words[2]}."
    if document := between(prompt, "document"):
        asked = set(content_words(prompt[: prompt.index("<document>")]))
        told = [line for line in document.splitlines() if asked & set(content_words(line))]
        return " ".join(told[0].split()[:12]) if told else "NOTHING."
    if notes := between(prompt, "notes"):
        return "In short: " + " ".join(reversed(notes.split()[:10]))  # in other words, or it would be a copy
    if text := between(prompt, "text"):
        return "A manual on " + " and ".join(content_words(text)[:2])
    return "Gladly: " + " ".join(content_words(prompt)[:8])


def between(prompt: str, tag: str) -> str:
    """The text in the first <tag>…</tag>."""
    found = re.search(f"<{tag}>\n(.*?)\n?</{tag}>", prompt, re.DOTALL)
    return found[1] if found else ""


def content_words(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[a-z]{6,9}", text.lower())))
