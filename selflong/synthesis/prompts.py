"""What the generator is asked, and how its replies are understood. Two sets, chosen by `generator.prompts`.

`instruct` is for real instruct models; `toy` for the demo's tiny one, which knows one wording (see `text_skills.py`).
`VERSION` enters the journal's key and the fingerprint of the dataset box: change it with any wording.
"""

import re
from typing import Protocol

from selflong.recipe_synthesis import TASK_TYPES
from selflong.synthesis.fence import fence
from selflong.text_skills import ASK, NOTHING, TITLE, fact, writing_request

VERSION = "2"


class UnusableError(Exception):
    """A reply that cannot be used; the message is the reason under which the drop is counted."""


class Prompts(Protocol):
    """One set of prompts and parsers. Parsers raise `UnusableError`."""

    separator: str
    """Stands between documents, and between them and the instruction, in a training row."""

    def instruction(self, chunk: str, task_type: str) -> str:
        """Ask for an instruction of one of `TASK_TYPES`, with a random chunk for diversity (paper, section 3.1)."""
        ...

    def parse_instruction(self, reply: str, chunk: str) -> str:
        """Return the instruction. Raises UnusableError if there was nothing to ask or the form is wrong."""
        ...

    def reading(self, instruction: str, chunk: str) -> str:
        """Ask what a chunk says about the instruction."""
        ...

    def parse_reading(self, reply: str, instruction: str) -> str | None:
        """Return the finding, or None for "nothing relevant". Raises UnusableError if it is neither."""
        ...

    def response(self, instruction: str, findings: list[str]) -> str:
        """Ask for the response from the findings."""
        ...

    def parse_response(self, reply: str, instruction: str, findings: list[str]) -> str:
        """Return the response. Raises UnusableError if it is empty, knows nothing or is ungrounded."""
        ...

    def topic(self, chunk: str) -> str:
        """Ask what a document is about, to back-translate a writing instruction."""
        ...

    def parse_topic(self, reply: str) -> str:
        """Return the topic. Raises UnusableError if the reply is no topic."""
        ...

    def writing(self, words: int, topic: str) -> str:
        """The writing instruction that states the required length."""
        ...

    def open_prompt(self, chunk: str) -> str:
        """Ask for a message as users send it, to be answered alone (short replay)."""
        ...

    def parse_open_prompt(self, reply: str) -> str:
        """Return the message. Raises UnusableError if the reply is none."""
        ...


class ToyPrompts:
    """The demo's wording: facts, questions about them, and "none"."""

    separator = "\n"
    _question = re.compile(r"Name the magic number for ([a-z]+ [a-z]+)")
    _answer = re.compile(r"(\d{6}|none)\.")

    def instruction(self, chunk: str, task_type: str) -> str:
        return f"{chunk}\n{ASK}"

    def parse_instruction(self, reply: str, chunk: str) -> str:
        if reply.strip() == f"{NOTHING}.":
            raise UnusableError("nothing to ask")
        match = self._question.fullmatch(reply.strip())
        if not match:
            raise UnusableError("malformed instruction")
        if f"number for {match[1]} is" not in chunk:
            raise UnusableError("instruction asks for what its chunk does not say")
        return match[0]

    def reading(self, instruction: str, chunk: str) -> str:
        return f"{chunk}\n{instruction}"

    def parse_reading(self, reply: str, instruction: str) -> str | None:
        key, value = self._answered(reply, instruction, "reading")
        return None if value == NOTHING else fact(key, value)

    def response(self, instruction: str, findings: list[str]) -> str:
        return "\n".join([*findings, instruction])

    def parse_response(self, reply: str, instruction: str, findings: list[str]) -> str:
        key, value = self._answered(reply, instruction, "response")
        if value == NOTHING:
            raise UnusableError("no answer in the response")
        if fact(key, value) not in findings:
            raise UnusableError("response not grounded in what was read")
        return reply.strip()

    def _answered(self, reply: str, instruction: str, step: str) -> tuple[str, str]:
        """The key that was asked for, and the value of the reply."""
        asked, match = self._question.fullmatch(instruction), self._answer.fullmatch(reply.strip())
        if not match or not asked:
            raise UnusableError(f"malformed {step}")
        return asked[1], match[1]

    def topic(self, chunk: str) -> str:
        return f"{chunk}\n{TITLE}"

    def parse_topic(self, reply: str) -> str:
        match = re.fullmatch(r"([a-z]{3,12})\.", reply.strip())
        if not match or match[1] == NOTHING:
            raise UnusableError("malformed topic")
        return match[1]

    def writing(self, words: int, topic: str) -> str:
        return writing_request(words, topic)

    def open_prompt(self, chunk: str) -> str:
        raise UnusableError("the toy wording has no open prompts")

    def parse_open_prompt(self, reply: str) -> str:
        raise UnusableError("the toy wording has no open prompts")


TASK_WORDING = {
    "question": "a question whose answer must be put together from what several documents say",
    "comparison": "a task that asks to compare two or more things which different documents describe",
    "timeline": "a task that asks to order events or developments which different documents date",
    "extraction": "a task that asks to collect every item of one kind, with its details, from all documents",
    "synthesis": "a task that asks for an overview or report which draws on many documents and weighs them",
    "explanation": "a task that asks to explain a cause, mechanism or disagreement with support from several documents",
}
assert tuple(TASK_WORDING) == TASK_TYPES


class InstructPrompts:
    """Wording for instruct models of any size, our own."""

    nothing = "NOTHING"
    separator = "\n\n"

    def __init__(self, control_tokens: tuple[str, ...]) -> None:
        """`control_tokens` are the generator's: no document may write one."""
        self._control_tokens = control_tokens

    def _fenced(self, text: str) -> str:
        return fence(text, self._control_tokens)

    def instruction(self, chunk: str, task_type: str) -> str:
        return (
            "Below is a passage from a large document collection.\n\n<passage>\n"
            f"{self._fenced(chunk)}\n</passage>\n\n"
            "Think of a reader who has a pile of documents on this and related subjects. Write "
            f"{TASK_WORDING[task_type]}. It must stand alone: do not mention the passage or the documents. Reply with "
            "the task alone, in one to three sentences. If the passage has no subject that anybody could ask about, "
            f"reply {self.nothing}."
        )

    def parse_instruction(self, reply: str, chunk: str) -> str:
        text = reply.strip()
        if self._says_nothing(text):
            raise UnusableError("nothing to ask")
        if len(text) < 20 or len(text) > 2000:
            raise UnusableError("malformed instruction")
        return text

    def reading(self, instruction: str, chunk: str) -> str:
        task, part = self._fenced(instruction), self._fenced(chunk)
        return (
            f"Task:\n{task}\n\nPart of one document:\n<document>\n{part}\n</document>\n\n"
            "Note down everything in this part that helps with the task: facts, names, figures, dates, positions, each "
            "in a short sentence that can be understood alone. Add nothing that is not in the text. If nothing in it "
            f"helps, reply {self.nothing}."
        )

    def parse_reading(self, reply: str, instruction: str) -> str | None:
        text = reply.strip()
        if not text:
            raise UnusableError("empty reading")
        return None if self._says_nothing(text) else text

    def response(self, instruction: str, findings: list[str]) -> str:
        notes = "\n\n".join(f"<notes>\n{self._fenced(text)}\n</notes>" for text in findings)
        return (
            f"Notes taken while reading a pile of documents:\n\n{notes}\n\nTask:\n{self._fenced(instruction)}\n\n"
            "Do the task from these notes alone. Be complete and exact, state contradictions, and do not mention the "
            f"notes. If they do not suffice to say anything useful, reply {self.nothing}."
        )

    def parse_response(self, reply: str, instruction: str, findings: list[str]) -> str:
        text = reply.strip()
        if not text or self._says_nothing(text):
            raise UnusableError("no answer in the response")
        return text

    def topic(self, chunk: str) -> str:
        return (
            f"<text>\n{self._fenced(chunk)}\n</text>\n\nThis is the beginning of a longer text. In at most twenty "
            "words, name its subject, its kind (article, story, manual, ...) and its tone, in the words of somebody "
            "who orders it. Reply with the description alone."
        )

    def parse_topic(self, reply: str) -> str:
        text = reply.strip().rstrip(".")
        if not 3 <= len(text) <= 400:
            raise UnusableError("malformed topic")
        return text

    def writing(self, words: int, topic: str) -> str:
        return f"Write the following in about {words} words: {topic}."

    def open_prompt(self, chunk: str) -> str:
        return (
            f"<passage>\n{self._fenced(chunk)}\n</passage>\n\nThe passage only sets the scene. Write one message that "
            "a person might send to an assistant while busy with such matters: a question, or a request to write, "
            "explain, plan, rewrite, reason or calculate. State in it what the answer should look like: its length, "
            "form, tone, or what it must contain or avoid. It must make sense to somebody who has not seen the "
            "passage. Reply with the message alone."
        )

    def parse_open_prompt(self, reply: str) -> str:
        text = reply.strip()
        if not 20 <= len(text) <= 2000:
            raise UnusableError("malformed open prompt")
        return text

    def _says_nothing(self, text: str) -> bool:
        return text.rstrip(".").upper() == self.nothing


def load_prompts(name: str, control_tokens: tuple[str, ...]) -> Prompts:
    """Return the prompt set `toy` or `instruct`, for a generator with these control tokens."""
    return ToyPrompts() if name == "toy" else InstructPrompts(control_tokens)
