"""Expressions in specs: arithmetic and comparisons over field names, never Python's eval."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable
from typing import Any

from hwmodels import units
from hwmodels.errors import nearest

from ..errors import InputError

Lookup = Callable[[str], Any]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "round": round}
_GRAMMAR = "use field names, numbers, quoted quantities, + - * / // % **, comparisons, and, or, not, min, max"
# 9**9**9 would hang, and no design has such numbers
_LARGEST_POWER = 64
_LARGEST_BITS = 1024
_LONGEST = 1_000
_MOST_DIGITS = 20


class Expression:
    """A parsed expression such as ``lanes * tiles <= 4096 and memory.bandwidth < "100 GB/s"``.

    Parameters
    ----------
    text : str
        Arithmetic and comparisons over dotted names; quantities with a unit in quotes become the plain number in the
        unit that fields of their dimension have inside (Hz, byte, byte/s, nm, W, pJ, mm2).

    Raises
    ------
    InputError
        If it is not of this form.
    """

    def __init__(self, text: str):
        self.text = text
        if len(text) > _LONGEST:
            raise InputError(f"'{text[:40]}...' has {len(text):,} characters; an expression has at most {_LONGEST:,}")
        self.names: set[str] = set()
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self._check(self._tree)
        except InputError:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            shown = text if len(text) <= 80 else f"{text[:80]}..."
            raise InputError(f"'{shown}' is not an expression; {_GRAMMAR}") from None

    def require(self, known: Iterable[str]) -> None:
        """Refuse names that are not among those known."""
        listed = set(known)
        for name in sorted(self.names - listed):
            raise InputError(f"'{self.text}': unknown name '{name}'" + nearest(name, listed))

    def value(self, lookup: Lookup) -> Any:
        """Evaluate with names looked up.

        Raises
        ------
        InputError
            If an operation does not fit its values (text where a number is needed, a division by zero).
        """
        try:
            return _evaluate(self._tree, lookup)
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"'{self.text}' cannot be computed: {error}") from None

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.Name() | ast.Attribute():
                self.names.add(_dotted(node, self.text))
            case ast.Constant(value=str(value)) if value[:1].isdigit():
                node.value = units.plain(value)
            case ast.Constant(value=bool() | int() | float() | str()):
                pass
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=inner):
                self._check(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._check(left)
                self._check(right)
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                for part in parts:
                    self._check(part)
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
                for part in (left, *others):
                    self._check(part)
            case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _FUNCTIONS:
                for part in parts:
                    self._check(part)
            case _:
                raise InputError(f"'{self.text}': '{ast.unparse(node)}' is not allowed here; {_GRAMMAR}")


def _dotted(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise InputError(f"'{text}': '{ast.unparse(node)}' is not a field name; {_GRAMMAR}")


def _evaluate(node: ast.expr, lookup: Lookup) -> Any:
    match node:
        case ast.Name() | ast.Attribute():
            return lookup(_dotted(node, ""))
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=op, operand=inner):
            found = _evaluate(inner, lookup)
            return not found if isinstance(op, ast.Not) else -found if isinstance(op, ast.USub) else +found
        case ast.BinOp(left=left, op=op, right=right):
            first, second = _evaluate(left, lookup), _evaluate(right, lookup)
            return _arithmetic(op, first, second)
        case ast.BoolOp(op=op, values=parts):
            test = all if isinstance(op, ast.And) else any
            return test(_evaluate(part, lookup) for part in parts)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_evaluate(part, lookup) for part in parts]
        case ast.Compare(left=left, ops=ops, comparators=others):
            values = [_evaluate(part, lookup) for part in (left, *others)]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, values, values[1:], strict=False))
        case ast.Call(func=ast.Name(id=name), args=parts):
            return _call(name, [_evaluate(part, lookup) for part in parts])
    raise TypeError(ast.unparse(node))


def _arithmetic(op: ast.operator, first: Any, second: Any) -> Any:
    """Compute with numbers alone: a text or a list times a number would fill the memory."""
    for value in (first, second):
        if not isinstance(value, (int, float)):
            raise TypeError(f"arithmetic needs numbers, not {'nothing' if value is None else repr(value)[:40]}")
    if isinstance(op, ast.Pow):
        bits = first.bit_length() if isinstance(first, int) else 0
        if abs(second) > _LARGEST_POWER or bits * second > _LARGEST_BITS:
            raise OverflowError(f"a power of {second} is too large")
    value = _BINARY[type(op)](first, second)
    if isinstance(value, complex):
        raise ArithmeticError(f"{first} ** {second} is not a real number")
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        raise OverflowError("a whole number is too large")
    return value


def _call(name: str, values: list[Any]) -> Any:
    # the decimal places of `round` may ask for a number of as many digits
    if name == "round" and len(values) == 2 and not (isinstance(values[1], int) and abs(values[1]) <= _MOST_DIGITS):
        raise ValueError(f"round takes at most {_MOST_DIGITS} decimal places")
    return _FUNCTIONS[name](*values)
