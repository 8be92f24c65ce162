"""Builds dataclasses from the plain values of YAML files and checkpoints, and checks every field. Standard library only."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class PlainError(ValueError):
    """A value that does not fit. The message says where it is, and what is allowed."""


def checked(kind: type[T], values: object, where: str) -> T:
    """Build an instance of a dataclass; its fields may be dataclasses, tuples, dicts, `X | None` and plain values.

    Args:
        kind: The dataclass.
        values: A mapping from its fields to plain values. Where the type asks for it, lists become tuples and ints floats.
        where: Where the values come from, for messages.

    Raises:
        PlainError: A key is misspelt (the message suggests the nearest one) or missing, or a value has the wrong type or is
            refused by the dataclass itself.
    """
    if not isinstance(values, Mapping):
        raise PlainError(f"{where} must be lines of `key: value`.")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    check_keys(values, known, where)
    types_of = get_type_hints(kind)
    given = {key: _value(types_of[key], value, f"{where}: {key}") for key, value in values.items()}
    try:
        return kind(**given)
    except PlainError:
        raise
    except ValueError as error:
        raise PlainError(f"{where}: {error}") from error


def check_keys(values: Mapping, known: Mapping[str, Field], where: str, what: str = "key") -> None:
    """Check that every key is a field, and that every field without a default has a key.

    Raises:
        PlainError: A key is unknown (the message suggests the nearest field), or a field is missing.
    """
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, 1, cutoff=0)[0]
            raise PlainError(f"{where}: there is no {what} {key!r}; did you mean {nearest!r}?")
    missing = [name for name, field in known.items() if _is_required(field) and name not in values]
    if missing:
        raise PlainError(f"{where} lacks {', '.join(missing)}.")


def _is_required(field: Field) -> bool:
    return field.default is field.default_factory is MISSING


def _value(kind: Any, value: object, where: str) -> Any:
    if is_dataclass(kind):
        return checked(kind, value, where)  # type: ignore[arg-type]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _value(inner[0], value, where)
    if origin is dict and isinstance(value, Mapping):
        return {_value(inner[0], key, where): _value(inner[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        return _values(inner, value, where)
    return _plain(origin or kind, value, where)


def _plain(kind: Any, value: object, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        named = {
            str: "text",
            float: "a number",
            int: "a whole number",
            bool: "true or false",
            dict: "lines of `key: value`",
        }
        raise PlainError(f"{where}={value!r} must be {named.get(kind, 'a list')}.")
    return value


def _values(kinds: tuple[Any, ...], values: Sequence[object], where: str) -> tuple[Any, ...]:
    of_each = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
    if len(of_each) != len(values):
        raise PlainError(f"{where}={list(values)!r} must have {len(of_each)} values.")
    return tuple(_value(one, each, f"{where}[{n}]") for n, (one, each) in enumerate(zip(of_each, values, strict=True)))
