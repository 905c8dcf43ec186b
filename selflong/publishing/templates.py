"""How a card is rendered: sandboxed Jinja in which values are data, and a missing or empty fact stops the card.

In: a template of `dataset_cards/` or `model_cards/` and facts of manifests. Out: Markdown. Used by `cards.py`.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selflong.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def template_folder(name: str) -> Path:
    """Return `dataset_cards` or `model_cards`: inside the package when installed, beside it in a checkout."""
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def render(folder: str, template: str, values: dict[str, Any]) -> str:
    """Render one template. Raises UserError if it asks for a fact that is missing, None or of the wrong type."""
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(template_folder(folder)),
        undefined=StrictUndefined,
        finalize=_reject_none,
        autoescape=False,  # the product is Markdown; the filters below keep values inside their cell, line or fence
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, cell=cell, line=line, code=code, fenced=fenced, excerpt=excerpt)
    try:
        return environment.get_template(template).render(values)
    except (UndefinedError, TypeError) as error:
        raise UserError(f"{folder}/{template}", f"a fact is missing: {error}", "rebuild the box it names") from error


def _reject_none(value: Any) -> Any:
    if value is None:
        raise TypeError("None where the card needs a value")
    return value


def number(value: Any) -> str:
    """Format a count with thousands, a float to four digits. Raises TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def line(value: Any) -> str:
    """Put a value on one line."""
    return " ".join(str(_reject_none(value)).split())


def cell(value: Any) -> str:
    """Put a value into one cell of a Markdown table."""
    return line(value).replace("|", r"\|")


def code(value: Any) -> str:
    """Inline code that backticks in the value cannot end."""
    text = line(value)
    marks = "`" * (_longest_run_of_backticks(text) + 1)
    padding = " " if "`" in text else ""
    return f"{marks}{padding}{text}{padding}{marks}"


def fenced(value: Any) -> str:
    """A code block that backticks in the value cannot end."""
    text = str(_reject_none(value))
    marks = "`" * max(3, _longest_run_of_backticks(text) + 1)
    return f"{marks}text\n{text}\n{marks}"


def excerpt(value: str, head: int, tail: int) -> str:
    """Return the first `head` and last `tail` characters of a long text, and how many are left out between."""
    left_out = len(value) - head - tail
    if left_out <= 0:
        return value
    return f"{value[:head]}\n[… {left_out:,} characters left out …]\n{value[len(value) - tail :]}"


def _longest_run_of_backticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
