"""The repair of iroh's Python binding, in one place so that it can be deleted in one piece.

The generated binding copies every `bytes` argument into Rust's buffer one byte at a time in Python (6 MB/s). `repair`
replaces that one method by a single `memmove` (200 MB/s and more). The way out of Rust's buffers is a slice of a ctypes
pointer, which is one copy in C already, and is left alone.
"""

from __future__ import annotations

import ctypes
from typing import Any

import iroh.iroh_ffi

_BUILDER = "_UniffiRustBufferBuilder"


def _builder() -> Any:
    return getattr(iroh.iroh_ffi, _BUILDER, None)


def copies_bytewise(method: Any) -> bool:
    """Whether this is the loop over single bytes that the repair replaces: it enumerates the value. Any other code is
    somebody's better idea, and is left alone."""
    code = getattr(method, "__code__", None)
    return code is not None and "enumerate" in code.co_names and "_reserve" in code.co_names


def _write(self: Any, value: bytes | bytearray | memoryview) -> None:
    size = len(value)
    with self._reserve(size):  # allocates; `rbuf` may be a new buffer afterwards
        start = ctypes.addressof(self.rbuf.data.contents) + self.rbuf.len
        ctypes.memmove(start, value if isinstance(value, bytes) else bytes(value), size)


def repair() -> bool:
    """Replace the method if it still copies byte by byte; -> whether the repair is in place. Repeating it is
    harmless."""
    builder = _builder()
    if builder is None:
        return False
    current = builder.write
    if current is not _write and copies_bytewise(current):
        builder.write = _write
    return builder.write is _write
