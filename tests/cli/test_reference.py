from __future__ import annotations

from pathlib import Path

from fallow.cli.main import COMMANDS
from fallow.cli.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_the_page_is_what_the_parsers_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m fallow.cli.reference docs/reference/cli.md"


def test_every_command_and_option_is_on_it() -> None:
    text = page()
    assert all(f"\n### fallow {name}\n" in text for name in COMMANDS)
    assert "| `--budget CR` | the most it may ever cost, in credits *(required)* |" in text
    assert "| `--prefer price\\|speed` |" in text
