"""`python -m fallow.workloads.convert GGUF FOLDER`: make a GGUF file trainable. A process of its own, so that whoever
asks needs no tensor libraries in memory. Prints `CODE what happened` on stderr and ends with 1 when it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

from fallow.errors import FallowError, fail


def main(arguments: list[str]) -> int:
    """-> the exit status."""
    try:
        if len(arguments) != 2:
            raise fail("E2001", "The converter takes a GGUF file and the folder to make.")
        source, folder = Path(arguments[0]), Path(arguments[1])
        try:
            from fallow.workloads.model import convert_gguf
        except ImportError as error:
            raise fail("E1708", f"Converting needs {error.name}, which is not installed.") from error
        convert_gguf(source, folder)
    except FallowError as error:
        sys.stderr.write(f"{error.code} {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"E1603 {folder} could not be written: {error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
