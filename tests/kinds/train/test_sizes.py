"""What work is given: measured figures, growth, bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.kinds.kind import MOST_BYTES
from fallow.kinds.registry import kind_named
from fallow.kinds.train.sizes import MOST_S
from fallow.rules import market
from fallow.units import GIB, MIB
from fallow.wire import codec
from fallow.wire.local import BatchJob, JobSpec, LaneJob, ModelSize, ServeJob, TrainJob
from fallow.wire.tasks import Recipe

MEASURED = Path(__file__).parents[3] / "benchmarks" / "results" / "worker_memory.json"
SMOL = ModelSize(
    stored_bytes=269_060_280, parameters=134_515_008, trained=460_800, layers=30, width=576, inner=1_536,
    vocabulary=49_152, kv_width=192, heads=9,
)  # fmt: skip
SEVEN_B = ModelSize(
    stored_bytes=13_476_831_232, parameters=6_738_415_616, trained=4_194_304, layers=32, width=4_096, inner=11_008,
    vocabulary=32_000, kv_width=4_096, heads=32,
)  # fmt: skip
U64 = st.integers(0, (1 << 64) - 1)


def train(size: ModelSize, **changes: Any) -> TrainJob:
    return TrainJob(bytes(32), bytes(32), Recipe(changes.pop("method", "lora"), **changes), 1_000, size)


def serve(size: ModelSize, context_tokens: int = 2_048) -> ServeJob:
    return ServeJob("m", bytes(32), b"", 1, context_tokens, size=size)


def test_every_measured_peak_is_below_what_is_asked_for_now() -> None:
    """`benchmarks/worker_memory.py` wrote what its workers held and the job that each of them had."""
    raw = json.loads(MEASURED.read_text("utf-8"))["raw"]
    assert len(raw) >= 12
    for name, case in raw.items():
        spec = codec.recall(JobSpec, bytes.fromhex(case["spec"]))
        asked = market.kind_of(spec).ram_bytes(spec.work)
        assert 1.1 * max(case["peaks_bytes"]) <= asked <= 3 * min(case["peaks_bytes"]), name


def test_work_of_which_nothing_is_said_gets_what_its_kind_always_got() -> None:
    nothing = ModelSize()
    assert kind_named("train").ram_bytes(train(nothing)) == 3 * GIB
    assert kind_named("generate").ram_bytes(serve(nothing)) == 2 * GIB
    assert kind_named("echo").ram_bytes(LaneJob("echo", 2)) == 256 * MIB
    assert kind_named("train").timeout_s(train(nothing), 1 << 40) == 3_600
    assert kind_named("generate").timeout_s(BatchJob("generate", (b"",), (), 1), 7) == 900
    assert kind_named("spin").timeout_s(BatchJob("spin", (b"",), (), 1), 7) == 900
    assert kind_named("train").lease_ms(train(nothing), 1 << 40, 5) == 5


def test_what_was_said_before_there_were_sizes_can_still_be_read() -> None:
    """Homes hold jobs that were written without the last field."""
    for work in (train(SMOL), serve(SMOL)):
        whole = msgspec.msgpack.decode(codec.encode(work))
        found = codec.recall(type(work), msgspec.msgpack.encode(whole[:-1]))
        assert found == msgspec.structs.replace(work, size=ModelSize())


def test_a_larger_model_needs_a_larger_machine() -> None:
    assert kind_named("train").ram_bytes(train(SEVEN_B)) > 27 * GIB
    assert kind_named("generate").ram_bytes(serve(SEVEN_B)) > 27 * GIB


@pytest.mark.parametrize(
    "change",
    [
        {"sequence_tokens": 256}, {"batch_sequences": 4}, {"lora_rank": 8, "method": "full"},
    ],
)  # fmt: skip
def test_more_work_at_once_takes_more_memory(change: dict[str, Any]) -> None:
    size = msgspec.structs.replace(SMOL, trained=SMOL.parameters) if "method" in change else SMOL
    assert kind_named("train").ram_bytes(train(size, **change)) > kind_named("train").ram_bytes(train(SMOL))


def test_time_follows_the_work_and_leases_outlast_it() -> None:
    assert kind_named("train").timeout_s(train(SMOL), 2_048) == 3_600
    long_s = kind_named("train").timeout_s(train(SEVEN_B), 2_048)
    assert long_s > 13_476  # at 8 Mbit/s it takes this long to come
    assert kind_named("train").timeout_s(train(SEVEN_B), 200_000) > long_s
    assert kind_named("train").lease_ms(train(SEVEN_B), 2_048, 3_600_000) == 2_000 * long_s
    assert kind_named("train").lease_ms(train(SMOL), 2_048, 240_000) == 240_000


@given(
    size=st.builds(ModelSize, **dict.fromkeys(ModelSize.__struct_fields__, U64)),
    batch=U64, length=U64, steps=U64, exact=st.booleans(), units=U64,
)  # fmt: skip
def test_no_figure_of_anybody_goes_beyond_what_an_order_can_say(
    size: ModelSize, batch: int, length: int, steps: int, exact: bool, units: int
) -> None:
    changes = {"batch_sequences": batch, "sequence_tokens": length, "inner_steps": steps}
    work = train(size, arithmetic="exact" if exact else "fp32", **changes)
    for kind, one in (("train", work), ("generate", serve(size, length))):
        assert 0 < kind_named(kind).ram_bytes(one) <= max(MOST_BYTES, 3 * GIB)
        assert 0 < kind_named(kind).timeout_s(one, units) <= MOST_S
        assert kind_named(kind).lease_ms(one, units, 1_000) <= 2_000 * MOST_S
