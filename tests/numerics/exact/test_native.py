from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fallow.numerics.exact import format as formats
from fallow.numerics.exact import native, product, routes
from fallow.numerics.exact.bindings import Kernels


def test_here_there_is_a_compiler() -> None:
    assert native.available(), native.reason()


def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLOW_EXACT_NATIVE", "0")
    assert native._find() == (None, "turned off by FALLOW_EXACT_NATIVE")


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert native._find() == (None, "no C compiler")


def test_a_compiler_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\ntest "$1" = --version && exit 0\necho no luck >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    found, why = native._find()
    assert found is None and "no luck" in why


def test_a_library_that_computes_wrong_is_not_used() -> None:
    class Wrong(Kernels):
        def product(self, *arguments: Any, **options: Any) -> torch.Tensor:
            return super().product(*arguments, **options) * (1 + 2**-23)

    kernels = native.kernels()
    assert kernels is not None
    assert native.agrees(kernels, 0)
    assert not native.agrees(Wrong(kernels.library), 0)


def test_two_builders_build_once_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[Path] = []

    def compiles(_: str, __: object, target: Path) -> None:
        built.append(target)
        target.write_bytes(b"library")

    monkeypatch.setattr(native, "_folders", lambda: [tmp_path / "cache"])
    monkeypatch.setattr(native, "_compile", compiles)
    builders = [threading.Thread(target=native._build, args=("cc", (), "exact-1.so")) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert built == [tmp_path / "cache" / "exact-1.so"]


def test_folders_that_others_may_write_to_are_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr(native, "_folders", lambda: [tmp_path / "open", tmp_path / "mine"])
    monkeypatch.setattr(native, "_compile", lambda _, __, target: target.write_bytes(b"library"))
    assert native._build("cc", (), "exact-1.so") == tmp_path / "mine" / "exact-1.so"
    planted = tmp_path / "open" / "exact-1.so"
    planted.write_bytes(b"planted")
    assert not native._ours(planted)


def test_the_key_knows_sources_compiler_and_options() -> None:
    keys = {native._key(b"gcc 1", ()), native._key(b"gcc 2", ()), native._key(b"gcc 1", ("-fopenmp",))}
    assert len(keys) == 3


def test_torch_s_own_threads_are_shared() -> None:
    assert native.available()
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "gomp" in line}
    assert len(loaded) == 1
    if os.cpu_count() == 1:
        assert torch.get_num_threads() == 1


def test_instruction_sets_can_be_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = formats.quantise(torch.randn(40, 100)), formats.quantise(torch.randn(50, 100))
    with routes.use("fp64"):
        expected = product.product(a, b)
    for index, name in enumerate(native.ISAS):
        with native.isa(name), routes.use("native"):
            assert native.cap() == index
            assert torch.equal(product.product(a, b), expected)
    monkeypatch.setenv("FALLOW_EXACT_ISA", "avx2")
    assert native.cap() == native.ISAS.index("avx2")
    with pytest.raises(ValueError, match="sse9"), native.isa("sse9"):
        pass


def test_no_cap_reaches_instructions_that_the_processor_lacks() -> None:
    """Asked for more than is there, the library takes the best that is. Each set by the flags that its file is compiled
    with."""
    needs = {
        "avx2": {"avx2"},
        "avx512bw": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        "avx512vnni": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    }
    info = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((set(line.split()) for line in info if line.startswith("flags")), set[str]())
    found = native.kernels()
    assert found is not None
    for cap in range(len(native.ISAS)):
        there = [name for name in native.ISAS[: cap + 1] if needs.get(name, set()) <= flags]
        assert found.isa(cap) == there[-1]
