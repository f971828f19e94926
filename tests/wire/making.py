"""Hypothesis strategies for any wire struct, made from its own declaration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from types import ModuleType
from typing import Any

import msgspec
import msgspec.inspect as mi
from hypothesis import strategies as st

from fallow.kinds.generate import tasks as generate
from fallow.kinds.train import tasks as train
from fallow.wire import documents, ledger, local, messages, receipts, tasks, trees, worker
from fallow.wire.codec import Family

MODULES: tuple[ModuleType, ...] = (documents, tasks, messages, ledger, local, worker, receipts, trees, train, generate)
BASES = {documents.Document, messages.Message, worker.WorkerMessage}
SOME = 3
"""How many items a made list has at most, where it need not have more."""


def declared() -> list[type[msgspec.Struct]]:
    """Every struct of the wire, where it is declared, bases left out."""
    return [
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
        and value not in BASES
    ]


def union(kinds: Sequence[type[msgspec.Struct]]) -> Any:
    return reduce(or_, kinds)  # pyright: ignore[reportArgumentType]


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Values of `kind` within all of its constraints."""
    return _strategy(mi.type_info(kind))


def _strategy(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _strategy(field.type) for field in fields})
        case mi.CustomType(cls=cls) if issubclass(cls, Family):
            return st.one_of([structs(one) for one in cls.__subclasses__()])  # pyright: ignore[reportArgumentType]
        case mi.UnionType(types=types):
            return st.one_of([_strategy(one) for one in types])
        case mi.VarTupleType(item_type=item, min_length=least, max_length=most):
            some = min(max(SOME, least or 0), most or SOME)
            return st.lists(_strategy(item), min_size=least or 0, max_size=some).map(tuple)
        case mi.TupleType(item_types=types):
            return st.tuples(*(_strategy(one) for one in types))
        case mi.DictType(key_type=key, value_type=value):
            return st.dictionaries(_strategy(key), _strategy(value), max_size=SOME)
        case mi.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=min(most or 64, max(64, least or 0)))
        case mi.StrType(min_length=least, max_length=most):
            return st.text(min_size=least or 0, max_size=min(most or 20, 20))
        case mi.IntType(ge=least, le=most):
            return st.integers(least if least is not None else -(1 << 63), most if most is not None else (1 << 63) - 1)
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.LiteralType(values=values):
            return st.sampled_from(values)
        case mi.EnumType(cls=members):
            return st.sampled_from(list(members))
        case _:
            raise AssertionError(f"no wire struct should hold {info}")


def violations(kind: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """For each constrained field of `kind`, values just outside."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        for value in _outside(field.type):
            yield field.name, value


def _outside(info: mi.Type) -> Iterator[Any]:
    match info:
        case mi.BytesType(min_length=least, max_length=most):
            yield from [b"x" * (least - 1)] if least else []
            yield from [b"x" * (most + 1)] if most is not None else []
            yield "text"
        case mi.StrType(min_length=least, max_length=most):
            yield from [""] if least else []
            yield from ["x" * (most + 1)] if most is not None else []
            yield b"bytes"
        case mi.IntType(ge=least, le=most):
            yield from [least - 1] if least is not None else []
            yield from [most + 1] if most is not None else []
            yield from (1.0, True, "1", None)
        case mi.VarTupleType(item_type=mi.BytesType(max_length=width), max_length=most) if most and most <= 5000:
            yield (bytes(width or 0),) * (most + 1)
        case mi.LiteralType() | mi.EnumType():
            yield "something else"
        case mi.BoolType():
            yield from (0, 1, None)
        case _:
            yield 0.5  # no field of any struct takes a float


def unbounded(kind: type[msgspec.Struct]) -> Iterator[str]:
    """The fields of `kind` that may be of any size."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        if _free(field.type):
            yield f"{kind.__name__}.{field.name}"


def _free(info: mi.Type) -> bool:
    match info:
        case mi.BytesType(max_length=most) | mi.StrType(max_length=most) | mi.DictType(max_length=most):
            return most is None
        case mi.VarTupleType(item_type=item, max_length=most):
            return most is None or (not isinstance(item, mi.StructType) and _free(item))
        case mi.TupleType(item_types=types):
            return any(_free(one) for one in types)
        case mi.IntType(ge=least, le=most):
            return least is None or most is None
        case mi.UnionType(types=types):
            return any(_free(one) for one in types)
        case _:
            return False
