"""From a program and its inputs to the runs of a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.wasm_programs import CAT, wasm

from fallow.errors import FallowError
from fallow.kinds.wasm.kind import read_task
from fallow.sdk.programs import RunPlan, guest_of, runs_of, settings_of
from fallow.wire.local import Imported


class Taking:
    """Takes nothing in; a tree is called after its path."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def import_path(self, path: object) -> Imported:
        self.taken.append(Path(str(path)).name)
        return Imported(str(path).encode()[-32:].rjust(32), 10, 1)


SETTINGS = settings_of(guest_of("wasm")[0], {})


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "prog.wasm").write_bytes(wasm(CAT))
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(folder)
    return tmp_path / "prog.wasm"


async def test_the_program_and_shared_files_go_to_all_runs(program: Path, tmp_path: Path) -> None:
    shared = tmp_path / "x" / "a.csv"
    found = await runs_of(Taking(), "wasm", program, RunPlan(("-v",), lines=[["1"], ["2"]], files=[shared]), SETTINGS)
    assert [part.name for part in found.inputs] == ["module", "in/a.csv"]
    assert [read_task(one).args for one in found.params] == [("-v", "1"), ("-v", "2")]
    assert found.units == 20_000


async def test_inputs_of_one_name_are_told_apart(program: Path, tmp_path: Path) -> None:
    inputs = [tmp_path / "x" / "a.csv", tmp_path / "y" / "a.csv"]
    found = await runs_of(Taking(), "wasm", program, RunPlan(inputs=inputs), SETTINGS)
    assert [read_task(one).name for one in found.params] == ["0-a.csv", "1-a.csv"]


async def test_nothing_is_taken_in_for_what_cannot_run(program: Path, tmp_path: Path) -> None:
    taking = Taking()
    broken = tmp_path / "broken.wasm"
    broken.write_bytes(b"?")
    plans = [(broken, RunPlan()), (program, RunPlan(inputs=[tmp_path / "no"])), (program, RunPlan(("a\0",)))]
    for path, plan in plans:
        with pytest.raises(FallowError):
            await runs_of(taking, "wasm", path, plan, SETTINGS)
    assert taking.taken == []


async def test_without_inputs_there_is_one_run(program: Path) -> None:
    found = await runs_of(Taking(), "wasm", program, RunPlan(), SETTINGS)
    assert [read_task(one).name for one in found.params] == [""]


def test_other_kinds_run_no_programs() -> None:
    with pytest.raises(FallowError, match="echo runs no programs"):
        guest_of("echo")
    with pytest.raises(FallowError, match="no setting 'speed'"):
        settings_of(guest_of("wasm")[0], {"speed": 1})
