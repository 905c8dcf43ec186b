"""How a plan is laid out: titled sections of aligned columns, each above the formulas that made it."""

GIB, MIB = 2**30, 2**20


def section(title: str, body: str, formulas: list[str] | None = None) -> str:
    """A title, its table, and one line a formula."""
    return "\n".join([title, "=" * len(title), table(body, formulas or [])])


def table(body: str, formulas: list[str]) -> str:
    """A table and, below it, one line a formula."""
    return "\n".join([body, *(f"* {formula}" for formula in formulas)])


def columns(rows: list[list[str]]) -> str:
    """Align columns: numbers to the right, words to the left."""
    by_column = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in by_column]
    words = ("-", "off", "unknown")
    numeric = [all(not cell or cell[0].isdigit() or cell in words for cell in column[1:]) for column in by_column]
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def size(num_bytes: int) -> str:
    """GiB, or MiB below one."""
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:,.1f} MiB"
