from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.files import hf_model
from tests.cli.terminal import Terminal
from tests.sdk.fake_node import job_view

from fallow.wire.local import Estimate, ImportPath, SubmitJob


@pytest.fixture
def words(tmp_path: Path) -> list[str | Path]:
    """A command line that trains."""
    (tmp_path / "data.txt").write_text("Some text to learn from.\n" * 20)
    model = hf_model(tmp_path / "model")
    return ["train", "--model", model, "--data", tmp_path / "data.txt", "--budget", "2"]


def test_the_price_is_shown_and_nothing_is_spent_without_a_yes(terminal: Terminal, words: list[str | Path]) -> None:
    said = terminal.fallow(*words)
    assert (said.code, said.error_code) == (2, "E2006")
    assert "about 0.003 cr to 0.009 cr, checks included; never above 2.00 cr" in said.err
    assert not terminal.node.requests(SubmitJob)


def test_training_ends_with_the_folder_and_the_rounds(
    terminal: Terminal, words: list[str | Path], tmp_path: Path
) -> None:
    said = terminal.fallow(*words, "--yes", "--out", tmp_path / "tuned", "--name", "mine")
    assert said.code == 0
    assert "3.100000" in said.out
    assert "caught: its answer was wrong" in said.err
    assert (tmp_path / "tuned" / "adapter_config.json").exists()


def test_the_options_become_the_recipe_and_the_terms(terminal: Terminal, words: list[str | Path]) -> None:
    terminal.json(
        *words, "-y", "--detach", "--method", "full", "--workers", "4", "--rounds", "5", "--steps", "6", "--rank", "16",
        "--learning-rate", "0.001", "--overlap", "--timeout", "1h", "--prefer", "speed", "--verify", "audit:rate=0.5",
    )  # fmt: skip
    (request,) = terminal.node.requests(SubmitJob)
    recipe = request.spec.work.recipe
    assert (recipe.method, recipe.rounds, recipe.inner_steps, recipe.learning_rate) == ("full", 5, 6, "0.001")
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.ahead) == (16, 32, 1)
    assert (request.spec.workers, request.spec.timeout_s, request.spec.prefer) == (4, 3600, "speed")
    assert request.spec.verify == "audit:rate=0.5"


def test_json_is_the_final_job(terminal: Terminal, words: list[str | Path]) -> None:
    answer = terminal.json(*words, "--yes")
    assert answer["phase"] == "done"
    assert [found["loss"] for found in answer["rounds"]] == ["3.500000", "3.100000"]


def test_detached_prints_the_id(terminal: Terminal, words: list[str | Path]) -> None:
    assert terminal.fallow(*words, "-y", "--detach").out.startswith("j_")


def test_a_dry_run_spends_nothing(terminal: Terminal, words: list[str | Path]) -> None:
    said = terminal.fallow(*words, "--dry-run").out
    assert "fits" in said  # who would take it
    assert "0.0005 cr per 1,000 tokens" in said
    assert terminal.json(*words, "--dry-run")["low_ucr"] == 3_000
    assert not terminal.node.requests(SubmitJob)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "E1703"), (b"\n\n  \n", "E1703"), (b"\xff\xfd\x00bad", "E1702"), (b'{"messages": 3}\n{"x": 1}\n', "E1702")],
)
def test_bad_data_is_refused_before_the_node_hears_of_it(
    terminal: Terminal, words: list[str | Path], content: bytes, code: str
) -> None:
    Path(words[4]).write_bytes(content)
    said = terminal.fallow(*words, "--yes")
    assert (said.code, said.error_code) == (2, code)
    assert not terminal.node.asked


def test_what_is_no_model_is_refused_before_anything_is_imported(terminal: Terminal, words: list[str | Path]) -> None:
    (Path(words[2]) / "config.json").unlink()
    assert terminal.fallow(*words, "--yes").error_code == "E1701"
    assert not terminal.node.requests(ImportPath)


def test_without_a_node_nothing_is_converted(terminal: Terminal, words: list[str | Path], tmp_path: Path) -> None:
    terminal.home = tmp_path / "elsewhere"
    assert terminal.fallow(*words, "--yes").error_code == "E2004"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--budget", "100"], "E1301"),
        (["--max-price", "0.0000001"], "E1002"),
        (["--learning-rate", "nan"], "E2001"),
        (["--learning-rate", "-1"], "E2001"),
        (["--out", "x", "--detach"], "E2001"),
        (["--out", "/"], "E2001"),
        (["--model", "/no/such"], "E2003"),
    ],
)
def test_what_cannot_be_done(terminal: Terminal, words: list[str | Path], more: list[str], code: str) -> None:
    said = terminal.fallow(*words, *more, "--yes")
    assert said.code in (2, 3)
    assert said.error_code == code
    assert not terminal.node.requests(SubmitJob)


def test_text_that_is_too_short_is_refused_before_anything_is_imported(
    terminal: Terminal, words: list[str | Path]
) -> None:
    Path(words[4]).write_text("hello")
    said = terminal.fallow(*words, "--yes")
    assert (said.code, said.error_code) == (2, "E1703")
    assert "at least 255" in said.err
    assert not terminal.node.asked


def test_a_way_to_verify_that_there_is_not(terminal: Terminal, words: list[str | Path]) -> None:
    said = terminal.fallow(*words, "--verify", "hope", "--yes")
    assert (said.code, said.error_code) == (2, "E2001")
    assert not terminal.node.asked


def test_a_job_that_failed_but_is_still_settling_is_no_success(
    terminal: Terminal, words: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = job_view(phase="settling", failure="no", failure_code="E1403", spent_ucr=1_000, locked_ucr=500)
    monkeypatch.setattr("tests.sdk.fake_node.job_view", lambda *_, **__: failed)
    monkeypatch.setattr("fallow.sdk.jobs.SETTLE_TRIES", 1)
    said = terminal.fallow(*words, "--yes")
    assert (said.code, said.error_code) == (3, "E1403")
    assert "0.0005 cr is locked until the leases are closed" in said.err


def test_a_market_that_cannot_take_it(terminal: Terminal, words: list[str | Path]) -> None:
    terminal.node.estimate = Estimate(1, 0, 0, ())
    said = terminal.fallow(*words, "--yes")
    assert (said.code, said.error_code) == (3, "E1201")


def test_a_job_that_fails_says_what_was_paid(
    terminal: Terminal, words: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = job_view(phase="failed", failure="every attempt failed", failure_code="E1403", spent_ucr=1_000)
    monkeypatch.setattr("tests.sdk.fake_node.job_view", lambda *_, **__: failed)
    said = terminal.fallow(*words, "--yes")
    assert (said.code, said.error_code) == (3, "E1403")
    assert "0.001 cr was paid" in said.err
