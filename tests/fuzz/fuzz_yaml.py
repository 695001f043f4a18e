"""YAML that is valid, nearly valid, or nonsense: every shipped file changed in its values, keys, shape and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML


class Raw(str):
    """A scalar as it stands in YAML."""


class Map(list[Any]):
    """A mapping as pairs, so that a key may be there twice."""


NASTY = [
    Raw(text)
    for text in (
        ".nan",
        ".inf",
        "-.inf",
        "1e400",
        "-1",
        "0",
        "-0.0",
        "0.5",
        "1",
        "2",
        "3",
        "7",
        "1e-320",
        "9" * 25,
        "9" * 5000,
        "1" + "0" * 18,
        "4294967296",
        "9223372036854775808",
        "2147483648",
        "yes",
        "no",
        "on",
        "true",
        "false",
        "True",
        "~",
        "null",
        "''",
        "' '",
        "64 KB",
        "64 KiB",
        "'64 kib'",
        "0x10",
        "0o17",
        "1_000",
        "2026-01-01",
        "2026-02-31",
        "12:30:00",
        "!!python/object:os.system [ls]",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!int x",
        "!!float [1]",
        "&a [*a]",
        "*nowhere",
        "&b {c: *b}",
        '"\\x07"',
        '"\\e[31mred"',
        '"\\0"',
        "'\N{SNOWMAN}'",
        "[]",
        "{}",
        "[1, [2, [3]]]",
        "{a: {b: {c: 1}}}",
        "[" * 60 + "]" * 60,
        "1 GHz",
        "700",
        "700 MHz",
        "1 ghz",
        "1e9 Hz",
        "-1 GHz",
        "1 GB/s",
        "1 byte/cycle",
        "1 furlong",
        "1 mm^2",
        "1 pJ",
        "-3 pJ",
        "1e30 pJ",
        "9**9**9 Hz",
        "1 W",
        "45 nm",
        "'nan Hz'",
        "'inf W'",
        "default_45nm",
        "cnvlutin",
        "random:0.5",
        "random:nan",
        "random:-1",
        "2:4",
        "../../etc/passwd",
        "'p$5'",
        "'_x'",
        "'{0}'",
        "'%s'",
        "'a\n\n  b'",
        "'" + "x" * 3000 + "'",
        "1 +",
        "lanes",
        "'__class__'",
        "'9**9**9 < 1'",
    )
]
KEYS = [
    "lanes",
    "rows",
    "columns",
    "clock",
    "name",
    "kernel",
    "params",
    "value",
    "status",
    "source",
    "extra",
    "",
    "memory",
    "bandwidth",
    "memory.bandwidth",
    "type",
    "r",
    "from",
    "to",
    "points",
    "step",
    "scale",
    "model_config",
    "__class__",
    "a\nb",
    "\N{SNOWMAN}",
]
UNITS = [
    "GHz",
    "MHz",
    "Hz",
    "GB/s",
    "GiB/s",
    "KiB",
    "KB",
    "MiB",
    "byte",
    "bit",
    "pJ",
    "fJ",
    "nm",
    "W",
    "mW",
    "mm^2",
    "s",
    "",
    "parsec",
]


def tree_of(text: str) -> Any:
    """Read YAML into lists, pairs and scalars."""
    return _paired(YAML(typ="safe", pure=True).load(text))


def _paired(node: Any) -> Any:
    if isinstance(node, dict):
        return Map([key, _paired(value)] for key, value in node.items())
    return [_paired(one) for one in node] if isinstance(node, list) else node


def written(node: Any, top: bool = True) -> str:
    """Write a tree as YAML, keys of the top level on lines of their own."""
    if isinstance(node, Map):
        pairs = [f"{_scalar(key)}: {written(value, False)}" for key, value in node]
        return "\n".join(pairs) + "\n" if top and pairs else "{" + ", ".join(pairs) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(written(one, False) for one in node) + "]"
    return _scalar(node)


def _scalar(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, bool) or node is None:
        return json.dumps(node)
    return json.dumps(node) if isinstance(node, str) else str(node)


def _places(node: Any) -> list[tuple[list[Any], int]]:
    """Where values stand: a list and an index into it."""
    found: list[tuple[list[Any], int]] = []
    for index, one in enumerate(node if isinstance(node, list) else []):
        at = (one, 1) if isinstance(node, Map) else (node, index)
        found += [at, *_places(at[0][at[1]])]
    return found


def _maps(node: Any) -> list[Map]:
    inner = [one for part in (node if isinstance(node, list) else []) for one in _maps(part)]
    return [node, *inner] if isinstance(node, Map) else inner


def _value(draw: Any, tree: Any, nasty: Sequence[Any]) -> None:
    if places := _places(tree):
        holder, index = draw(st.sampled_from(places))
        holder[index] = draw(st.sampled_from(nasty))


def _near(draw: Any, tree: Any, nasty: Sequence[Any]) -> None:
    """Change a value a little: another size, sign, type or unit, or that of another place."""
    scalars = [(h, i) for h, i in _places(tree) if not isinstance(h[i], list)]
    if not scalars:
        return
    holder, index = draw(st.sampled_from(scalars))
    value = holder[index]
    kind = draw(st.integers(0, 4))
    if kind == 0 and isinstance(value, int | float):
        holder[index] = draw(
            st.sampled_from([-value, value * 10, value * 1000, value / 3, value + 1, str(value), 10**9, value // 2])
        )
    elif kind == 1 and isinstance(value, str) and value[:1].isdigit():
        holder[index] = f"{value.split()[0]} {draw(st.sampled_from(UNITS))}"
    elif kind == 2:
        holder[index] = draw(
            st.sampled_from([[value], [value, value], Map([["value", value]]), str(value) + "x", str(value).upper()])
        )
    elif kind == 3:
        holder[index] = draw(st.one_of(st.integers(-5, 300), st.floats(), st.booleans(), st.integers()))
    else:
        other, place = draw(st.sampled_from(scalars))
        holder[index] = other[place]


def _key(draw: Any, tree: Any, nasty: Sequence[Any]) -> None:
    """Drop, misspell, add or repeat a key."""
    if not (maps := [one for one in _maps(tree) if one]):
        return
    chosen = draw(st.sampled_from(maps))
    at = draw(st.integers(0, len(chosen) - 1))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        del chosen[at]
    elif kind == 1:
        chosen[at][0] = str(chosen[at][0])[:-1] + draw(st.sampled_from(["", "s", "x", " "]))
    elif kind == 2:
        chosen.append([draw(st.sampled_from(KEYS)), draw(st.sampled_from(nasty))])
    elif kind == 3:
        chosen.append(list(chosen[at]))
    else:
        chosen[at][0] = draw(st.sampled_from([*KEYS, Raw("1"), Raw("true"), Raw("~"), Raw("? [a]"), Raw("<<")]))


CHANGES: list[Callable[[Any, Any, Sequence[Any]], None]] = [_value, _near, _near, _key]


def _spoiled(draw: Any, data: bytes) -> bytes:
    """Change bytes: cut, another encoding, characters that text does not have."""
    at = draw(st.integers(0, len(data)))
    bit = draw(
        st.sampled_from(
            [
                b"\x00",
                b"\xff",
                b"\xe9",
                b"\x1b[2J",
                b"\t",
                b"\r",
                b"\x85",
                b"---\n",
                b"...\n",
                b"%YAML 9.9\n---\n",
                b"{",
                b"]",
                b'"',
                b": ",
                b"- ",
                b"&a ",
                b"*a ",
                b"|",
                b"\n\n",
                b"#",
                b"@",
                b"`",
                b"\xed\xa0\x80",
            ]
        )
    )
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data.decode("utf-8", "replace").encode(
            draw(st.sampled_from(["utf-16", "utf-8-sig", "cp1252", "utf-32"])), "replace"
        )
    if kind == 2:
        return data.replace(b"\n", b"\r\n")
    return data[:at] + bit + data[at:]


@st.composite
def documents(draw: Any, texts: Sequence[str], most: int = 3, nasty: Sequence[Any] = ()) -> bytes:
    """One of `texts` with up to `most` changes of its tree, and at times of its bytes."""
    tree = tree_of(draw(st.sampled_from(list(texts))))
    for _ in range(draw(st.integers(0, most))):
        draw(st.sampled_from(CHANGES))(draw, tree, [*nasty, *NASTY])
    data = written(tree).encode("utf-8", "surrogatepass")
    return _spoiled(draw, data) if draw(st.integers(0, 7)) == 0 else data
