"""Answers that must have a form: whether they have it, and what following it costs.

`python benchmarks/structured.py FOLDER [--each N] [--speed tiny smol]`: FOLDER holds schemas of a public suite, one a
file, in folders by kind (JSONSchemaBench's `data`, which is not part of this repository). So many of each kind are
answered by a tiny model with random weights, in exact arithmetic, which by itself writes no JSON at all; each answer
that ended is judged by the package jsonschema. Then tokens a second with a schema and without, in turns. Some minutes.
Writes `results/structured.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _record import OURS, ROOT, Figure, Record
from exact_equality import converted

sys.path.insert(0, str(ROOT))
KINDS, MAX_TOKENS, STREAMS, TURNS, SPEED_TOKENS = 12, 700, 8, 5, 96
CLOSING = ('"', "}", "]", '"}', "]}")
"""Made likelier: a model that draws at random does not come to an end of a text otherwise."""
LIKELIER = 350
PLENTY = {
    "type": "array",
    "minItems": 10_000,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
}


def chosen(folder: Path, each: int) -> Iterator[Path]:
    """The same of each kind at every run."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir())[:KINDS]:
        files = sorted(kind.glob("*.json"))
        yield from random.Random(kind.name).sample(files, min(each, len(files)))


class Judge:
    """Has schemas answered, and counts."""

    def __init__(self, engine: Any, bias: tuple[tuple[int, int], ...]) -> None:
        self._engine, self._bias = engine, bias
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.bad: list[list[str]] = []
        self.tokens = 0

    def ask(self, path: Path) -> None:
        """Answer one schema."""
        from fallow.errors import FallowError
        from fallow.kinds.generate.tasks import Generate

        schema = json.loads(path.read_text("utf-8"))
        guide = json.dumps({"json_schema": schema})
        request = Generate((), "The old farmer", MAX_TOKENS, temperature="1", guide=guide, bias=self._bias)
        said: list[str] = []
        try:
            value = self._engine.answer(request, 1, lambda piece: said.append(piece) is None)
        except FallowError as error:
            with self._lock:
                what = "broke off" if any(said) else "refused"
                self.counts[what] += 1
                self.refused[str(error)[:60]] += 1
                if any(said):
                    self.bad.append([path.name, str(error)[:200]])
            return
        what, why = ("cut", "") if value.finish != "stop" else judged(schema, value.text)
        with self._lock:
            self.tokens += value.completion_tokens
            self.counts[what] += 1
            if what == "invalid":
                self.bad.append([path.name, why, value.text[:200]])


def judged(schema: Any, text: str) -> tuple[str, str]:
    """ "valid", "invalid" or, where jsonschema knows no such schema, "not judged", and why."""
    import jsonschema
    from jsonschema.validators import validator_for

    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        kind(schema).validate(json.loads(text))
    except jsonschema.ValidationError as error:
        return "invalid", error.message[:200]
    except ValueError as error:
        return "invalid", str(error)
    except Exception as error:  # noqa: BLE001  (no schema: nothing can be said of the answer)
        return "not judged", str(error)[:100]
    return "valid", ""


def suite(record: Record, folder: Path, each: int) -> dict[str, Any]:
    """Answer the suite's schemas."""
    from tests.workloads.tiny import make_model

    from fallow.workloads.engine_exact import ExactEngine
    from fallow.workloads.model import load_model

    with tempfile.TemporaryDirectory() as scratch:
        model = load_model(make_model(Path(scratch) / "model", 1, 2048))
    names = model.tokenizer.get_vocab()
    bias = tuple((names[text], LIKELIER) for text in CLOSING if text in names)
    judge = Judge(ExactEngine(model, None, 0, STREAMS, 2), bias)
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(judge.ask, chosen(folder, each)))
    counts = judge.counts
    for what in ("valid", "invalid", "broke off", "refused", "cut", "not judged"):
        record.add(Figure(OURS, f"schemas: {what}", "schemas", [counts[what]]))
    kept = counts["valid"] / max(1, counts["valid"] + counts["invalid"] + counts["broke off"])
    record.add(Figure(OURS, "answers that ended and are valid", "share", [kept], goal=1.0))
    return {"tokens": judge.tokens, "refused": judge.refused.most_common(40), "bad": judge.bad}


def speed(record: Record, name: str) -> None:
    """Tokens a second with a schema, beside those without."""
    from tests.workloads.tiny import make_model

    from fallow.kinds.generate.tasks import Generate
    from fallow.workloads.engine_exact import ExactEngine
    from fallow.workloads.model import load_model

    with tempfile.TemporaryDirectory() as scratch:
        model = load_model(Path(converted()) if name == "smol" else make_model(Path(scratch) / "model", 1, 1024))
        engine = ExactEngine(model, None, 1024, 1, 2)
    guides = {"without": "", "with": json.dumps({"json_schema": PLENTY})}
    rates: dict[str, list[float]] = {how: [] for how in guides}
    never = tuple((end, -10_000) for end in sorted(model.ends))
    for turn in range(TURNS + 1):
        for how, guide in guides.items():
            request = Generate((), "The old farmer", SPEED_TOKENS, temperature="1", guide=guide, bias=never)
            times: list[float] = []
            made = engine.answer(request, turn, lambda _, times=times: times.append(time.perf_counter()) is None)
            if turn:  # the first warms up
                rates[how].append((made.completion_tokens - 1) / (times[-1] - times[0]))
    for how, values in rates.items():
        record.add(Figure(OURS, f"{name} model, {how} a schema", "tokens/s", values))
    shares = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    record.add(Figure(OURS, f"{name} model, tokens/s with a schema, of those without", "share", shares, goal=0.9))


def main() -> None:
    """The whole benchmark."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--each", type=int, default=60)
    asked.add_argument("--speed", nargs="*", default=["tiny", "smol"])
    args = asked.parse_args()
    claim = "an answer with a schema is valid or refused before its first token, and costs at most a tenth of the speed"
    record = Record(__file__, claim)
    raw = suite(record, args.folder, args.each)
    for name in args.speed:
        speed(record, name)
    print(record.write(raw))


if __name__ == "__main__":
    main()
