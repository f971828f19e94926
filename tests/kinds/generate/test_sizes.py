"""What serving takes."""

from __future__ import annotations

from tests.kinds.train.test_sizes import SMOL, serve

from fallow.kinds.registry import kind_named
from fallow.units import GIB
from fallow.wire.local import ModelSize


def test_a_longer_context_takes_more_memory() -> None:
    kind = kind_named("generate")
    assert kind.ram_bytes(serve(SMOL, 8_192)) > kind.ram_bytes(serve(SMOL))


def test_a_file_that_is_mapped_takes_little_more_than_itself() -> None:
    gguf = ModelSize(stored_bytes=4 * GIB, layers=32, kv_width=1_024, vocabulary=32_000)
    assert 4 * GIB < kind_named("generate").ram_bytes(serve(gguf)) < 7 * GIB
