"""A corpus that every Python brings along: the language reference's topics and the standard library's docstrings.

PSF licence. Read from the sources with `ast`, so that nothing is imported or run. The text depends on the Python
version, which the manifest records.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED_FOLDERS = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "turtledemo",
}  # fmt: skip


def iter_python_docs() -> Iterator[tuple[str, str]]:
    """Yield (name, text): one text a topic, then one a module, in sorted order."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic:{name}", topics[name]
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS.isdisjoint(relative.parts):
            text = "\n\n".join(_docstrings(path))
            if text:
                yield relative.as_posix(), text


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            return  # the library ships a few files that are broken on purpose
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text.strip()
