"""The wording that the demo's tiny model is taught and asked in: one place for `training/` and `synthesis/`.

A real instruct model needs none of this; see `synthesis/prompts.py`.
"""

import re

ASK = "Ask:"
TITLE = "Title:"
NOTHING = "none"


def fact(key: str, value: str) -> str:
    """A fact, as it stands in documents and in notes."""
    return f"The magic number for {key} is {value}."


def question(key: str) -> str:
    """A question about one fact. It ends with the key: what a tiny model asks next must stand close by."""
    return f"Name the magic number for {key}"


def answer(value: str | None) -> str:
    """The reply to `question`; `None` is the refusal."""
    return f"{value or NOTHING}."


def writing_request(words: int, topic: str) -> str:
    """The instruction of a long-output sample."""
    return f"Write {words} words about {topic}."


def first_topic(text: str) -> str | None:
    """The first plain lower-case word of 4 to 8 letters in a text: what the tiny model calls its topic."""
    found = re.search(r"(?<![\w.(])[a-z]{4,8}(?![\w.(])", text)
    return found.group(0) if found else None
