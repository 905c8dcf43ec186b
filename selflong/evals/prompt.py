"""How a row becomes the text that a model sees: shared by the builders, which count it, and by the run, which sends it.

RULER's answer prefix stands after the assistant header (the model continues it), which lighteval cannot do by itself.
"""

from typing import Any

from selflong.tokens import DATE


def render_prompt(tokenizer: Any, question: str, answer_prefix: str = "") -> str:
    """Return user turn, assistant header and answer prefix; plain text if the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        return question + answer_prefix
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, date_string=DATE)
    return str(text) + answer_prefix


def adds_special_tokens(tokenizer: Any) -> bool:
    """Whether the tokenizer shall add its BOS: a chat template has written it already, and two would be wrong."""
    return not tokenizer.chat_template


def count_tokens(tokenizer: Any, prompt: str) -> int:
    """Tokens of a rendered prompt, as the run will tokenize it."""
    encoded = tokenizer(prompt, add_special_tokens=adds_special_tokens(tokenizer), verbose=False)
    return len(encoded["input_ids"])
