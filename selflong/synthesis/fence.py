"""A document inside one of our prompts stays data: it can neither close our tags nor write a chat's control tokens.

For what the generator is shown. A published row keeps its documents as they are: there `tokens.chat_ids` encodes the
control tokens of a content as ordinary text. A chat server encodes a prompt itself, so there the text must change.
"""

import re
from functools import lru_cache

# The tags of `InstructPrompts`.
TAGS = ("passage", "document", "notes", "text")


def fence(text: str, control_tokens: tuple[str, ...]) -> str:
    """Return `text` with a space after the first character of each of our tags and of each control token.

    `</document>` becomes `< /document>`, `<|eot_id|>` becomes `< |eot_id|>`: still readable, no longer a tag or token.
    `control_tokens` are those of the generator's tokenizer (`tokens.control_tokens`).
    """
    return _pattern(control_tokens).sub(r"\g<0> ", text)


@lru_cache
def _pattern(control_tokens: tuple[str, ...]) -> re.Pattern[str]:
    # Only the first character is matched and the rest looked ahead at, so that overlapping ones are all found.
    ours = rf"<(?=\s*/?\s*(?i:{'|'.join(TAGS)})\b)"
    theirs = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in control_tokens]
    return re.compile("|".join([ours, *theirs]))
