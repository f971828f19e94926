"""What `fallow verify --replay` says, and that no receipt makes it stumble. That it does what it says is tested with
real networks (`tests/e2e/test_replay.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.terminal import Terminal
from tests.kinds.train.test_trace import claimed, round_spec
from tests.sdk.fake_node import RECEIPT
from tests.wire.parties import (
    ORDER,
    PROVIDER,
    cheats_receipt,
    claim_of,
    deal,
    receipt,
    sealed,
)

from fallow.adapters import hardware
from fallow.cli.replay import _accusation, _data, _money, _text, _write_evidence
from fallow.kinds.generate.tasks import Generate, GenerateValue
from fallow.kinds.replay import Difference, ReplayPlan
from fallow.kinds.train.trace import Cut
from fallow.node.replay import Done
from fallow.rules.replay import plan, report
from fallow.wire import codec, local
from fallow.wire.claims import output_hash, task_id, task_leaf
from fallow.wire.receipts import Receipt, TaskWork
from fallow.wire.tasks import Part, Recipe, TaskOutput, TaskSpec

SEED = b"\x05" * 32
EXACT = Recipe("lora", inner_steps=10, batch_sequences=2, sequence_tokens=64, rounds=3, arithmetic="exact")


def of_work(task: TaskSpec, output: TaskOutput, numerics: str = "") -> Receipt:
    """A receipt that holds, of any task; nobody checked it."""
    made = deal(PROVIDER, msgspec.structs.replace(ORDER, kind=task.kind, numerics=numerics))
    claim, index, path = claim_of(made, task_leaf(task_id(task), output_hash(output), task.units), 25)
    found = receipt(made)
    return msgspec.structs.replace(
        found, claim=claim, index=index, path=path, work=TaskWork(task, output), evidence=(), verdict="cleared",
        standings=(), draw=None, undrawn=(),
    )  # fmt: skip


def a_round(recipe: Recipe = EXACT, steps: int = 10) -> Receipt:
    task, _ = round_spec(recipe)
    return of_work(task, claimed(steps, Cut(2, 1)))


def an_answer(numerics: str) -> Receipt:
    params = codec.encode(Generate((), "hello", 4))
    task = TaskSpec("generate", params, (Part("model", b"m" * 32, 0),), 3, 9, 60, 1 << 30)
    return of_work(task, TaskOutput(codec.encode(GenerateValue("hi", "stop", 2, 3)), ()), numerics)


def written(folder: Path, name: str, of: Receipt) -> Path:
    path = folder / name
    path.write_bytes(sealed(of))
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# what cannot be done again --------------------------------------------------------------------------------------------


def test_an_echo_holds_but_has_nothing_to_be_done_again(member: Terminal, tmp_path: Path) -> None:
    file = written(tmp_path, "a.receipt", receipt())
    said = member.fallow("verify", file, "--replay")
    assert (said.code, said.error_code) == (3, "E1504")
    assert "The receipt holds" in said.out
    assert "Not done again" in said.out
    assert "Nothing was bought by this. The lease is settled" in said.err
    shown, redone, error = lines(member.fallow("verify", file, "--replay", "--json").out)
    assert shown["ok"] is True
    assert redone["receipt"] == shown["receipt"]
    assert (redone["replay"]["agrees"], redone["replay"]["error"]["code"]) == (None, "E1504")
    assert error["error"]["code"] == "E1504"


def test_fp32_says_what_to_do(member: Terminal, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(EXACT, arithmetic="fp32")
    said = member.fallow("verify", written(tmp_path, "a.receipt", a_round(recipe)), "--replay")
    assert (said.code, said.error_code) == (3, "E1504")
    assert "--arithmetic exact" in said.err


@pytest.mark.parametrize("steps", [0, 11, 1 << 63])
def test_a_recipe_made_to_hurt(member: Terminal, tmp_path: Path, steps: int) -> None:
    made = a_round(msgspec.structs.replace(EXACT, inner_steps=steps))
    said = member.fallow("verify", written(tmp_path, "a.receipt", made), "--replay")
    assert (said.code, said.error_code) == (2, "E1707")


def test_without_a_node_what_is_missing_is_named(member: Terminal, tmp_path: Path) -> None:
    member.home = tmp_path / "nobody"
    file = written(tmp_path, "a.receipt", an_answer(hardware.numerics(1)))
    said = member.fallow("verify", file, "--replay")
    assert (said.code, said.error_code) == (5, "E1602")
    assert "model (b_6d6d6d6d6d6d)" in said.err
    assert "fallow up   # or give --model" in said.err


def test_another_class_of_machine(member: Terminal, tmp_path: Path) -> None:
    said = member.fallow("verify", written(tmp_path, "a.receipt", an_answer("vax/t1")), "--replay")
    assert (said.code, said.error_code) == (3, "E1504")


def test_a_receipt_that_does_not_hold_is_not_done_again(member: Terminal, tmp_path: Path) -> None:
    good, bad = written(tmp_path, "good.receipt", receipt()), tmp_path / "bad.receipt"
    bad.write_bytes(good.read_bytes()[:-1] + b"?")
    said = member.fallow("verify", good, bad, "--replay", "--json")
    assert said.code == 3
    assert [next(iter(line)) for line in lines(said.out)] == ["receipt", "receipt", "receipt", "error"]
    assert lines(said.out)[-1]["error"]["code"] == "E1501"  # the worst of several


def test_a_job_stands_for_its_receipts(member: Terminal) -> None:
    member.node.receipt = sealed(receipt())
    assert member.json("verify", "j_aaaa")["ok"] is True
    assert member.node.requests(local.GetReceipt) == [local.GetReceipt(RECEIPT)]
    assert member.fallow("verify", "j_ffff").error_code == "E2002"


@pytest.mark.parametrize(
    "words",
    [["--links", "2"], ["--seed", "00"], ["--replay", "--links", "0"], ["--replay", "--links", "many"],
     ["--replay", "--seed", "xyz"], ["--replay", "--seed", "00" * 33], ["--replay", "--seed", ""]],
)  # fmt: skip
def test_options_that_do_not_fit(member: Terminal, tmp_path: Path, words: list[str]) -> None:
    file = written(tmp_path, "a.receipt", receipt())
    assert member.fallow("verify", file, *words).error_code == "E2001"


# what is said of what was done ----------------------------------------------------------------------------------------


def done_with(of: Receipt, *rows: Difference, kept: Path | None = None, links: int = 2) -> tuple[ReplayPlan, Done]:
    found = plan(of, links, SEED)
    assert isinstance(found, ReplayPlan)
    return found, Done(found, rows, (Part("model", b"m" * 32, 0),), kept)


def test_agreement_is_said_with_what_it_proves() -> None:
    found, done = done_with(a_round())
    text = _text(found, done, report(found), SEED)
    assert "Done again on this machine, at no cost: 2 of the 20 links of round 1 of 3" in text
    assert "It agrees" in text
    assert "Not checked: the other 18 links of the round; " in text
    assert "skipped 10 % of its steps would have been found with 19.5 %" in text
    assert f"--seed {SEED.hex()}" in text
    data = _data(found, done, report(found), SEED, None)
    assert (data["agrees"], data["cost_ucr"], data["links_of_round"]) == (True, 0, 20)


def test_a_difference_is_said_and_proves_nothing_else() -> None:
    rows = [Difference(f"link {number}", "a" * 64, "b" * 64) for number in range(10)]
    found, done = done_with(a_round(), *rows)
    text = _text(found, done, report(found), SEED)
    assert "DIFFERS" in text
    assert "and 2 more" in text
    assert "proves" not in text
    assert _data(found, done, report(found), SEED, None)["proves"] == ""


def test_evidence_lies_beside_the_receipt_and_is_enough(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    row = Difference("link 3", "aa", "bb")
    found, done = done_with(a_round(), row, kept=tmp_path / "kept")
    file = written(tmp_path, "a.receipt", a_round())
    path = _write_evidence(str(file), file.read_bytes(), found, done, report(found), SEED)
    assert path == tmp_path / "a.receipt.evidence.json"
    body = json.loads(path.read_text("utf-8"))
    assert body["differences"] == [{"where": "link 3", "expected": "aa", "found": "bb"}]
    assert (body["seed"], body["links"]) == (SEED.hex(), list(found.drawn))
    assert body["started_from"] == [{"name": "model", "blob": "b_" + (b"m" * 32).hex()}]
    assert (tmp_path / "kept" / f"{body['receipt']}.receipt").read_bytes() == file.read_bytes()


def test_evidence_of_an_id_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path)
    found, done = done_with(a_round(), Difference("link 3", "aa", "bb"), kept=tmp_path / "kept")
    path = _write_evidence("r_abc", b"data", found, done, report(found), SEED)
    assert path.parent == tmp_path
    assert path.name.startswith("r_")


def test_evidence_that_cannot_lie_there_lies_with_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    file = written(tmp_path, "a.receipt", a_round())
    (tmp_path / "a.receipt.evidence.json").mkdir()
    found, done = done_with(a_round(), Difference("link 3", "aa", "bb"), kept=tmp_path / "kept")
    path = _write_evidence(str(file), b"data", found, done, report(found), SEED)
    assert path == tmp_path / "kept" / "evidence.json"


def test_an_accusation_says_where_the_money_is_and_what_to_type(tmp_path: Path) -> None:
    row, evidence = Difference("link 3", "aa", "bb"), tmp_path / "e.json"
    made = a_round()
    found, done = done_with(made, row)
    error = _accusation("a.receipt", made, found, done, evidence)
    assert (error.code, str(evidence) in error.cause) == ("E1503", True)
    assert error.next_step.startswith("fallow verify a.receipt --replay --links all")
    found, done = done_with(made, row, links=20)
    assert str(evidence) in _accusation("a.receipt", made, found, done, evidence).next_step
    early = msgspec.structs.replace(made, settlement=None)
    error = _accusation("a.receipt", early, found, done, evidence)
    assert error.next_step.startswith("fallow cancel j_")
    assert "not settled" in error.money


def test_a_model_that_the_receipt_does_not_name_is_a_reason_to_doubt_oneself(tmp_path: Path) -> None:
    found, done = done_with(an_answer("vax/t1"), Difference("the answer's text", "a", "b"))
    error = _accusation("a", an_answer("vax/t1"), found._replace(names_inputs=False), done, tmp_path)
    assert "was not the model that was served" in error.cause


def test_where_the_money_is() -> None:
    assert _money(receipt()).startswith("The lease is settled: 0.00005 cr was paid")
    assert _money(cheats_receipt()).startswith("The lease is settled: 0.00 cr was paid")
    assert _money(msgspec.structs.replace(receipt(), settlement=None, voucher=None)).endswith(
        "0.00 cr of its escrow is promised."
    )
