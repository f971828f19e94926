"""The vectors of sections 4 to 14 against the plain-Python reference, and against what we compute now."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from typing import Any

import pytest
from tests.numerics.exact import make_operator_vectors as made
from tests.numerics.exact import processor
from tests.numerics.exact import reference_ops as ref

from fallow.numerics.exact import kernels

VECTORS: dict[str, Any] = {name: json.loads((made.FOLDER / f"{name}.json").read_text("utf-8")) for name in made.FILES}
PLAIN = {
    "exp": ref.exp64,
    "log": ref.log64,
    "sin": lambda x: ref.sincos64(x)[0],
    "cos": lambda x: ref.sincos64(x)[1],
}


def read(value: Any) -> Any:
    if isinstance(value, list):
        return [read(item) for item in value]
    if not isinstance(value, str):
        return value
    return struct.unpack(">f" if len(value) == 8 else ">d", bytes.fromhex(value))[0]


def case_of(case: dict[str, Any]) -> dict[str, Any]:
    return {key: read(value) if key not in ("kind", "setting") else value for key, value in case.items()}


def f32s(value: Any) -> Any:
    return made._bits(value, ">f")


def f64s(value: Any) -> Any:
    return made._bits(value, ">d")


def columns(rows: list[list[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def every(file: str, group: str) -> Any:
    return pytest.mark.parametrize("case", VECTORS[file][group])


@pytest.mark.parametrize("name", made.FILES)
@pytest.mark.parametrize("route", ["compiled", "torch"])
def test_the_files_are_what_the_script_writes(name: str, route: str) -> None:
    if route == "compiled":
        assert (made.FOLDER / f"{name}.json").read_text("utf-8") == made.text(name)
    else:
        with kernels.paused():
            assert (made.FOLDER / f"{name}.json").read_text("utf-8") == made.text(name)


@pytest.mark.parametrize("capability", processor.capabilities())
def test_torch_s_own_kernels_agree_under_every_instruction_set(capability: str) -> None:
    """What torch falls back to, in a process of its own: the choice is made when it starts."""
    script = (
        "from tests.numerics.exact import make_operator_vectors as made; import hashlib;"
        "print(hashlib.sha256(''.join(map(made.text, made.FILES)).encode()).hexdigest())"
    )
    settings = processor.held_to(capability) | {"FALLOW_EXACT_NATIVE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | settings, cwd=made.FOLDER.parents[2], check=True,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    files = "".join((made.FOLDER / f"{name}.json").read_text("utf-8") for name in made.FILES)
    assert done.stdout.strip() == hashlib.sha256(files.encode()).hexdigest()


@pytest.mark.parametrize("name", PLAIN)
def test_functions(name: str) -> None:
    (case,) = VECTORS["functions"][name]
    assert [f32s(ref.f32(PLAIN[name](x))) for x in read(case["x"])] == case["y"]


def test_the_gated_product() -> None:
    (case,) = VECTORS["functions"]["silu_mul"]
    rows = list(zip(read(case["gate"]), read(case["up"]), read(case["dy"]), strict=True))
    assert f32s([ref.f32(ref.silu64(gate) * up) for gate, up, _ in rows]) == case["y"]
    assert f32s([ref.f32((dy * up) * ref.silu_slope(gate)) for gate, up, dy in rows]) == case["d_gate"]
    assert f32s([ref.f32(dy * ref.silu64(gate)) for gate, _, dy in rows]) == case["d_up"]


@every("sums", "gridsum")
def test_sums(case: dict[str, Any]) -> None:
    assert f64s(ref.gridsum(read(case["terms"]))) == case["sum"]


@every("sums", "tokens")
def test_terms_of_tokens(case: dict[str, Any]) -> None:
    terms = read(case["terms"])
    assert [ref.token_terms(column, len(terms)) for column in columns(terms)] == case["entries"]


@every("sums", "embedding")
def test_embedding(case: dict[str, Any]) -> None:
    ids, dy = case["ids"], read(case["dy"])
    assert case["rows"] == sorted(set(ids))
    for row, entries in zip(case["rows"], case["entries"], strict=True):
        mine = columns([terms for at, terms in zip(ids, dy, strict=True) if at == row])
        assert [ref.token_terms(column, len(ids)) for column in mine] == entries


@every("softmax", "softmax")
def test_softmax(case: dict[str, Any]) -> None:
    c = case_of(case)
    assert f32s(ref.softmax(c["x"], c["start"], c["stop"], c["scale"])) == case["p"]
    assert f32s(ref.softmax_backward(c["p"], c["dp"], c["scale"])) == case["dx"]


@every("norms", "rms_norm")
def test_rms_norm(case: dict[str, Any]) -> None:
    c = case_of(case)
    pairs = [ref.rms_norm(row, c["w"], 1e-5) for row in c["x"]]
    assert (f32s([y for y, _ in pairs]), f64s([r for _, r in pairs])) == (case["y"], case["r"])
    rows = list(zip(c["dy"], c["x"], c["r"], strict=True))
    assert f32s([ref.rms_norm_backward(dy, x, c["w"], r) for dy, x, r in rows]) == case["dx"]
    terms = [[(a * b) * r for a, b in zip(dy, x, strict=True)] for dy, x, r in rows]
    assert [ref.token_terms(column, len(rows)) for column in columns(terms)] == case["dw"]


@every("rotary", "frequencies")
def test_frequencies(case: dict[str, Any]) -> None:
    c = case_of(case)
    assert f32s(ref.frequencies(c["size"], c["base"], c["kind"], c["setting"])) == case["inverse"]


@every("rotary", "tables")
def test_tables(case: dict[str, Any]) -> None:
    angles = [[ref.f32(float(at) * inverse) for inverse in read(case["inverse"])] for at in case["positions"]]
    found = [[ref.sincos64(angle) for angle in row] for row in angles]
    assert f32s([[ref.f32(cosine) for _, cosine in row] for row in found]) == case["cos"]
    assert f32s([[ref.f32(sine) for sine, _ in row] for row in found]) == case["sin"]


@every("rotary", "rotate")
def test_rotation(case: dict[str, Any]) -> None:
    rows = list(zip(read(case["x"]), read(case["cos"]), read(case["sin"]), strict=True))
    assert f32s([ref.rotate(x, cos, sin) for x, cos, sin in rows]) == case["y"]
    assert f32s([ref.rotate(x, cos, [-value for value in sin]) for x, cos, sin in rows]) == case["back"]


@every("losses", "cross_entropy")
def test_cross_entropy(case: dict[str, Any]) -> None:
    loss, gradient = ref.cross_entropy(read(case["x"]), case["target"])
    assert (f32s(loss), f32s(gradient)) == (case["loss"], case["gradient"])


@every("losses", "total")
def test_totals(case: dict[str, Any]) -> None:
    assert ref.total_loss(read(case["losses"])) == case["total"]


@every("draws", "draws")
def test_draws(case: dict[str, Any]) -> None:
    name = case["seed"], case["stream"], case["position"], case["index"]
    word = ref.word(*name)
    assert word == case["word"]
    assert f32s((2 * (word >> 9) + 1) * 2.0**-24) == case["uniform"]
    assert f64s(ref.gumbel64(*name)) == case["gumbel64"]


@every("choose", "order")
def test_order(case: dict[str, Any]) -> None:
    assert ref.order(read(case["x"])) == case["order"]


@every("choose", "top_p")
def test_top_p(case: dict[str, Any]) -> None:
    assert ref.top_p(read(case["x"]), read(case["p"])) == case["kept"]


@every("choose", "sample")
def test_sample(case: dict[str, Any]) -> None:
    c = case_of(case)
    name = c["seed"], c["stream"], c["position"]
    assert ref.sample(c["x"], c["temperature"], name, c["k"], c["p"]) == case["chosen"]


def test_the_reference_notices_a_flipped_bit() -> None:
    (case,) = VECTORS["functions"]["exp"]
    x = read(case["x"][-1])
    nudged = struct.unpack(">f", (int(case["x"][-1], 16) + 1).to_bytes(4, "big"))[0]
    assert f32s(ref.f32(ref.exp64(x))) == case["y"][-1]
    assert f32s(ref.f32(ref.exp64(nudged))) != case["y"][-1]
