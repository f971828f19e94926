"""Parquet, and Arrow files as `datasets` saves them. Read by pyarrow, which is an extra: a stranger's file never gets
to it, since rows are written as JSON lines before they travel."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from fallow.data.formats.format import Format, Record
from fallow.data.rows import RowError, refusal
from fallow.data.source import Source
from fallow.errors import FallowError, fail

BATCH_ROWS = 64


class Parquet(Format):
    """A Parquet file."""

    name = "Parquet"
    everywhere = False

    def knows(self, source: Source) -> bool:
        return source.first.startswith(b"PAR1") and not source.packed

    def records(self, source: Source) -> Iterator[Record]:
        reader = _module("pyarrow.parquet")
        yield from _rows(source, lambda: reader.ParquetFile(source.path).iter_batches(batch_size=BATCH_ROWS))


class Arrow(Format):
    """An Arrow file, with or without a table of contents."""

    name = "Arrow"
    everywhere = False

    def knows(self, source: Source) -> bool:
        streamed = source.first.startswith(b"\xff\xff\xff\xff") and source.suffix == ".arrow"
        return (streamed or source.first.startswith(b"ARROW1\0\0")) and not source.packed

    def records(self, source: Source) -> Iterator[Record]:
        module = _module("pyarrow")

        def batches() -> Iterator[Any]:
            with module.memory_map(str(source.path)) as file:
                if source.first.startswith(b"ARROW1"):
                    reader = module.ipc.open_file(file)
                    whole = (reader.get_batch(number) for number in range(reader.num_record_batches))
                else:
                    whole = iter(module.ipc.open_stream(file))
                for batch in whole:
                    for start in range(0, batch.num_rows, BATCH_ROWS):
                        yield batch.slice(start, BATCH_ROWS)

        yield from _rows(source, batches)


def _rows(source: Source, batches: Any) -> Iterator[Record]:
    number = 0
    found: Any = None
    while True:
        try:
            found = found or iter(batches())
            batch = next(found, None)
            rows: list[Any] = [] if batch is None else batch.to_pylist()
        except (MemoryError, FallowError):
            raise
        except Exception as error:  # pyarrow raises anything for a file that is damaged
            what = f"is a damaged file ({' '.join(str(error).split())[:100]})"
            raise refusal(source.place(number + 1, "row"), RowError(what)) from error
        if batch is None:
            return
        for row in rows:
            number += 1
            yield Record(source.place(number, "row"), _without_blanks(row))


def _without_blanks(value: Any) -> Any:
    """Without the empty fields that a table gives to every row because some row has them."""
    if isinstance(value, dict):
        return {name: _without_blanks(inner) for name, inner in value.items() if inner is not None}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_without_blanks(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _module(name: str) -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module(name)
    except ImportError as error:
        what = "Reading Parquet and Arrow files takes the package pyarrow."
        raise fail("E1708", what, next_step="pip install 'fallow[data]'") from error
