"""The repair of iroh's byte-by-byte copy: still needed, correct, and not applied to anything else."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import iroh.iroh_ffi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.adapters.iroh_memmove import copies_bytewise, repair


@pytest.fixture(scope="module")
def pristine() -> ModuleType:
    """The binding as it was installed, beside the repaired one."""
    spec = importlib.util.spec_from_file_location("iroh.iroh_ffi_pristine", iroh.iroh_ffi.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_upstream_still_copies_byte_by_byte(pristine: ModuleType) -> None:
    assert copies_bytewise(pristine._UniffiRustBufferBuilder.write), (
        "iroh's binding no longer copies byte by byte: delete adapters/iroh_memmove.py, its call and this file"
    )


def test_another_implementation_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def better(self: object, value: bytes) -> None:
        self.rbuf.append(value)  # type: ignore[attr-defined]

    monkeypatch.setattr(iroh.iroh_ffi._UniffiRustBufferBuilder, "write", better)
    assert not repair()
    assert iroh.iroh_ffi._UniffiRustBufferBuilder.write is better


def test_repairing_twice_is_harmless() -> None:
    assert repair()
    assert repair()


@given(st.binary(max_size=5000), st.sampled_from([bytes, bytearray, memoryview]))
def test_bytes_cross_unchanged(data: bytes, kind: type) -> None:
    assert repair()
    converter = iroh.iroh_ffi._UniffiFfiConverterBytes
    assert converter.lift(converter.lower(kind(data))) == data


def test_a_failed_write_leaves_no_hole() -> None:
    repair()
    builder = iroh.iroh_ffi._UniffiRustBufferBuilder()
    builder.write(b"ab")
    builder.write(b"")
    builder.write(b"c" * 1000)
    buffer: Any = builder.finalize()
    assert buffer.len == 1002
    assert buffer.data[0:1002] == b"ab" + b"c" * 1000
    buffer.free()
