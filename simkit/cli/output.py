"""Printing of commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import typer

# what moves a terminal's cursor, or ends a line where none should end
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def escaped(text: str) -> str:
    """Escape control characters: names and cells of anybody's files are told on a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def emit_json(data: Any) -> None:
    """Print an object, or a list with one object a line."""
    if isinstance(data, list):
        body = ",\n".join(json.dumps(item, default=plain) for item in data)
        typer.echo(f"[\n{body}\n]" if data else "[]")
    else:
        typer.echo(json.dumps(data, indent=1, default=plain))


def plain(value: Any) -> Any:
    """Turn numpy scalars and other leaves into JSON."""
    return value.item() if hasattr(value, "item") else str(value)


def emit_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], title: str = "") -> None:
    """Print rows as a table; `columns` maps a key to its heading."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, header_style="bold", title_justify="left")
    listed = [[_text(row.get(key)) for key in columns] for row in rows]
    for index, heading in enumerate(columns.values()):
        numeric = all(_is_number(line[index]) for line in listed) and bool(listed)
        table.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold")
    for line in listed:
        # brackets and colons in a name are markup and emojis to rich, but not in a Text
        table.add_row(*map(Text, line))
    console = Console()
    # a pipe has no width; a table must not be folded to 80 columns there
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _text(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _is_number(text: str) -> bool:
    return (
        text == "-"
        or text.replace(",", "")
        .replace(".", "")
        .lstrip("-+")
        .replace("e", "", 1)
        .replace("-", "", 1)
        .replace("+", "", 1)
        .isdigit()
    )
