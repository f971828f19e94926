"""`python -m fallow.workloads.convert GGUF FOLDER`: make a GGUF file trainable. A process of its own, so that whoever
asks needs no tensor libraries in memory. Prints `CODE what happened` on stderr and ends with 1 when it refuses; on
stdout lines of `DONE TOTAL what it does now`, which `read_progress` reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fallow.errors import FallowError, fail


def main(arguments: list[str]) -> int:
    """-> the exit status."""
    try:
        if len(arguments) != 2:
            raise fail("E2001", "The converter takes a GGUF file and the folder to make.")
        _convert(Path(arguments[0]), Path(arguments[1]))
    except FallowError as error:
        sys.stderr.write(f"\n{error.code} {error}\n")
        return 1
    return 0


def _convert(source: Path, folder: Path) -> None:
    _say(0, 0, "loading the libraries")
    try:
        from fallow.workloads.model import convert_gguf

        convert_gguf(source, folder, _say)
    except ImportError as error:
        raise fail("E1708", f"Converting needs {error.name}, which is not installed.") from error
    except OSError as error:
        raise fail("E1603", f"{folder} could not be written: {error.strerror or error}") from error


def _say(done: int, total: int, note: str) -> None:
    sys.stdout.write(f"{done} {total} {note}\n")
    sys.stdout.flush()


def read_progress(line: str) -> tuple[int, int, str] | None:
    """What a line of the converter says: done, total, what; None for what a library printed."""
    done, _, rest = line.strip().partition(" ")
    total, _, note = rest.partition(" ")
    return (int(done), int(total), note) if done.isdecimal() and total.isdecimal() and note else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
