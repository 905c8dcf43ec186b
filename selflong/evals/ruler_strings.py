"""RULER's prompt strings, read from the installed lm-eval: neither copied into this project nor imported.

Importing lm-eval's modules takes 12 s and 1 GB and tries a download, so their source is parsed with `ast`. Declared
repairs: one misspelt word in the variable-tracking prefix, and the leading space of two answer prefixes. Each string is
then compared with the SHA-256 of NVIDIA/RULER's own (main, c3f5e3b), so a changed package is noticed at once.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selflong.errors import UserError

# First 16 hex digits of the SHA-256 of NVIDIA/RULER's strings at c3f5e3b (scripts/data/synthetic/constants.py).
SHA256_PREFIXES = {
    "niah_template": "b373c00e238df12b",
    "niah_answer_prefix": "994f3a46e763414f",
    "vt_template": "fcfaf2eab2bc3e35",
    "vt_answer_prefix": "4a4e9010ec4141a3",
    "cwe_template": "45fff5d17627b65a",
    "cwe_answer_prefix": "8ee526599bbc7372",
    "fwe_template": "a0c7b873cf500d6c",
    "fwe_answer_prefix": "9a72271c5762c96d",
    "qa_template": "18a659c9723f24f1",
    "qa_answer_prefix": "255204f061d7e266",
    "noise_line": "c2fcf70de6081e6f",
    "needle_sentence": "8b1728a938426e42",
    "document_header": "ce8bd2851618becf",
}


_REMEDY = 'pip install "lm-eval[ruler]==0.4.13"'


@cache
def load_ruler_strings() -> Mapping[str, str]:
    """Read and check all strings: templates with `str.format` placeholders; every answer prefix begins with one space.

    Raises UserError if lm-eval is missing or its strings are not RULER's.
    """
    folder = _package_folder("lm_eval") / "tasks" / "ruler"
    try:
        trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))}
        found = _collect(trees)
    except (KeyError, StopIteration, OSError) as error:
        raise UserError("lm-eval", f"its RULER sources cannot be read ({error!r})", _REMEDY) from error
    for name, text in found.items():
        if sha256_prefix(text) != SHA256_PREFIXES[name]:
            raise UserError("lm-eval", f"{name} is not RULER's", _REMEDY)
    return MappingProxyType(found)


def sha256_prefix(text: str) -> str:
    """First 16 hex digits of the SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def load_words(kind: str) -> tuple[str, ...]:
    """Return wonderwords' list of `noun`, `adjective` or `verb`, sorted and distinct (a tuple: it is cached)."""
    path = _package_folder("wonderwords") / "assets" / f"{kind}list.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(sorted({line.strip() for line in lines if line.strip()}))


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("ruler", f"the package {name} is not installed", _REMEDY)
    return Path(spec.submodule_search_locations[0])


def _collect(trees: dict[str, ast.Module]) -> dict[str, str]:
    vt = _constant(trees["vt_utils"], "CONFIG")["variable_tracking"]
    cwe, fwe, qa = (_constant(trees[f"{task}_utils"], "CONFIG") for task in ("cwe", "fwe", "qa"))
    return {
        "niah_template": _constant(trees["niah_utils"], "TEMPLATE"),
        "niah_answer_prefix": " " + _plural_prefix(trees["prepare_niah"]),
        "vt_template": vt["template"],
        "vt_answer_prefix": vt["answer_prefix"].replace("assgined", "assigned"),
        "cwe_template": cwe["template"],
        "cwe_answer_prefix": cwe["answer_prefix"],
        "fwe_template": fwe["template"],
        "fwe_answer_prefix": fwe["answer_prefix"],
        "qa_template": qa["template"],
        "qa_answer_prefix": " " + qa["answer_prefix"],
        "noise_line": _longest_assigned(trees["prepare_niah"], "haystack"),
        "needle_sentence": _constant(trees["prepare_niah"], "NEEDLE"),
        "document_header": _constant(trees["qa_utils"], "DOCUMENT_PROMPT"),
    }


def _assigned(tree: ast.Module, name: str) -> list[ast.expr]:
    """Values assigned to `name`, at any depth, in source order."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
    ]


def _constant(tree: ast.Module, name: str) -> Any:
    """The literal first assigned to `name`."""
    return ast.literal_eval(next(iter(_assigned(tree, name))))


def _longest_assigned(tree: ast.Module, name: str) -> str:
    """The longest string literal assigned to `name`: other assignments to it are calls or names."""
    literals = [v.value for v in _assigned(tree, name) if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return max(literals, key=len)


def _plural_prefix(tree: ast.Module) -> str:
    """The f-string of `gen_prefix` for several values, as a template with named placeholders."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "gen_prefix" and isinstance(value, ast.IfExp):
                return _f_string_template(value.orelse)
    raise KeyError("gen_prefix")


def _f_string_template(node: ast.expr) -> str:
    if not isinstance(node, ast.JoinedStr):
        raise KeyError("gen_prefix is no f-string")
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            parts.append("{" + ast.unparse(part.value) + "}")
    return "".join(parts)
