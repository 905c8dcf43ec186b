"""Strict YAML: a mapping becomes a frozen dataclass, or an error that names the key and the nearest right one."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from selflong.errors import UserError

T = TypeVar("T")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping with the safe loader. Raises UserError if the file is missing, broken or no mapping."""
    if not path.is_file():
        raise UserError(path, "no such file", "give a recipe directory that holds it")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(path, " ".join(str(error).split()), "mend the YAML") from error
    if not isinstance(content, dict):
        raise UserError(path, "is not a mapping", "write `key: value` lines")
    return content


def reject_unknown(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise UserError for the first key that is not known, with the nearest known name."""
    known = list(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise UserError(where, f"{key} is not a key", remedy)


def build(kind: type[T], content: Any, where: str) -> T:
    """Build the dataclass `kind` from a mapping: unknown keys, missing keys and wrong types are UserErrors."""
    if not isinstance(content, Mapping):
        raise UserError(where, f"expected a mapping, got {content!r}", "write `key: value` lines")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    reject_unknown(content, [f.name for f in fields], where)
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in content:
            values[field.name] = _convert(hints[field.name], content[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(where, f"{field.name} is missing", "add it")
    try:
        return kind(**values)
    except ValueError as error:  # a dataclass's own __post_init__ check: "what; remedy"
        what, _, remedy = str(error).partition("; ")
        raise UserError(where, what, remedy or "change the value") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong_type(where, "a mapping", value)
        return {
            (_convert(int, k, where) if arguments[0] is int else str(k)): _convert(arguments[1], v, f"{where}.{k}")
            for k, v in value.items()
        }
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong_type(where, "a list", value)
        return tuple(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is typing.Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
            remedy = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(map(str, arguments))}"
            raise UserError(where, f"{value!r} is not a choice", remedy)
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong_type(where, hint.__name__, value)
    return value


def _wrong_type(where: str, expected: str, value: Any) -> UserError:
    return UserError(where, f"expected {expected}, got {value!r} ({type(value).__name__})", "change the value")
