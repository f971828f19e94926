"""When a machine counts as idle, by its owner's rule. Whoever owns the machine comes first.

A rule is text: `always`, or conditions joined by `and`:

    input 10m            nobody touched keyboard, mouse or terminal for ten minutes
    cpu 30               programs that are not ours use less than 30 % of all cores
    gpu 10               ... and less than 10 % of any GPU
    hours 22:00-07:00    only between these times of day (local; may wrap over midnight); may be given twice
    days mon-fri,sun     only on these days (the day on which the hours began)

`idle` alone means `input 10m and cpu 30 and gpu 10`. What cannot be read on a machine (no display, no GPU) does not
keep it busy, except where nothing at all that the rule asks for can be read: then the machine never counts as idle.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MINUTES_PER_DAY = 24 * 60
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_RULE_CHARS = 400

_HOURS = re.compile(r"^([01]?\d|2[0-4]):([0-5]\d)-([01]?\d|2[0-4]):([0-5]\d)$")
_SPAN = re.compile(r"^(\d{1,5})([smh])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Window:
    """From one minute of the day to another; it wraps over midnight when it ends before it begins."""

    from_minute: int
    to_minute: int


@dataclass(frozen=True)
class IdleRule:
    """What must hold for the machine to count as idle; None means "does not matter". `quiet_s` is how long it must hold
    before work begins; stopping needs no wait."""

    input_s: int | None = None
    cpu_percent: int | None = None
    gpu_percent: int | None = None
    windows: tuple[Window, ...] = ()
    days: frozenset[int] = frozenset(range(7))
    quiet_s: int = 20

    @property
    def always(self) -> bool:
        """Whether nothing can make the owner's machine busy."""
        watches = (self.input_s, self.cpu_percent, self.gpu_percent)
        return all(w is None for w in watches) and not self.windows and len(self.days) == 7


@dataclass(frozen=True)
class Reading:
    """What was measured: seconds since the last user input, use by programs that are not ours in percent of all cores
    and of the busiest GPU (None where that cannot be read), and the local day (0 is Monday) and minute of the day."""

    input_s: float | None
    cpu_percent: float | None
    gpu_percent: float | None
    day: int
    minute: int


@dataclass(frozen=True)
class IdleState:
    """Whether the machine is idle now, why not if not, and since when (monotonic) all conditions have held."""

    idle: bool = False
    reason: str = "just started"
    quiet_since_s: float | None = None


ALWAYS = IdleRule(quiet_s=0)
USUAL = IdleRule(input_s=600, cpu_percent=30, gpu_percent=10)


def parse(text: str) -> IdleRule:
    """Read a rule. Raises ValueError, saying what is wrong, for anything else."""
    words = " ".join(text.lower().split())
    if words == "always":
        return ALWAYS
    if not words or len(words) > MAX_RULE_CHARS:
        raise ValueError("an idle rule is `always`, `idle`, or conditions such as `input 10m and hours 22:00-07:00`")
    rule = IdleRule()
    for condition in words.split(" and "):
        rule = _add(rule, condition)
    return rule


def decide(rule: IdleRule, before: IdleState, reading: Reading, now_s: float) -> IdleState:
    """Whether the machine is idle now. It becomes busy at once and idle only after `quiet_s` without a break, so that
    work does not start and stop with every key press."""
    reason = busy_because(rule, reading, before.idle)
    if reason:
        return IdleState(False, reason, None)
    since_s = now_s if before.quiet_since_s is None else before.quiet_since_s
    if before.idle or now_s - since_s >= rule.quiet_s:
        return IdleState(True, "", since_s)
    return IdleState(False, f"quiet for {int(now_s - since_s)} of {rule.quiet_s} s", since_s)


def busy_because(rule: IdleRule, reading: Reading, idle_before: bool = False) -> str:
    """The condition that does not hold, in words; "" when all do. While idle, the thresholds for CPU and GPU are a
    quarter higher, so that measuring noise at the threshold does not flip the answer."""
    if rule.always:
        return ""
    if not _within_hours(rule, reading):
        return "outside the owner's hours"
    slack = 1.25 if idle_before else 1.0
    watched = (
        (rule.input_s, reading.input_s, 0, "the owner is using the machine"),
        (rule.cpu_percent, reading.cpu_percent, slack, "other programs use the processor"),
        (rule.gpu_percent, reading.gpu_percent, slack, "other programs use the GPU"),
    )
    asked = [row for row in watched if row[0] is not None]
    if asked and all(row[1] is None for row in asked):
        return "nothing that the rule asks for can be measured here"
    for limit, measured, factor, reason in asked:
        if limit is None or measured is None:
            continue
        if measured < limit if factor == 0 else measured >= limit * factor:
            return reason
    return ""


def _within_hours(rule: IdleRule, reading: Reading) -> bool:
    windows = rule.windows or (Window(0, MINUTES_PER_DAY),)
    return any(_in_window(window, rule.days, reading) for window in windows)


def _in_window(window: Window, days: frozenset[int], reading: Reading) -> bool:
    if window.from_minute < window.to_minute:
        return reading.day in days and window.from_minute <= reading.minute < window.to_minute
    if reading.minute >= window.from_minute:
        return reading.day in days
    return reading.minute < window.to_minute and (reading.day - 1) % 7 in days


def _add(rule: IdleRule, condition: str) -> IdleRule:
    name, _, value = condition.partition(" ")
    if name == "idle" and not value:
        usual = replace(USUAL, windows=rule.windows, days=rule.days)
        return replace(
            usual, **{k: v for k, v in vars(rule).items() if k.endswith(("_s", "_percent")) and v is not None}
        )
    if name == "input":
        return replace(rule, input_s=_span(value))
    if name in ("cpu", "gpu"):
        return replace(rule, **{f"{name}_percent": _percent(value)})
    if name == "hours":
        return replace(rule, windows=(*rule.windows, _window(value)))
    if name == "days":
        return replace(rule, days=_days(value))
    if name == "quiet":
        return replace(rule, quiet_s=_span(value))
    raise ValueError(f"not a condition of an idle rule: {condition!r} (known: input, cpu, gpu, hours, days, quiet)")


def _span(text: str) -> int:
    found = _SPAN.match(text)
    if found is None:
        raise ValueError(f"not a time span: {text!r} (write 90s, 10m or 2h)")
    return int(found[1]) * _SECONDS[found[2]]


def _percent(text: str) -> int:
    if not text.rstrip("%").isdecimal() or not 0 < int(text.rstrip("%")) <= 100:
        raise ValueError(f"not a percentage: {text!r} (write 1 to 100)")
    return int(text.rstrip("%"))


def _window(text: str) -> Window:
    found = _HOURS.match(text)
    if found is None:
        raise ValueError(f"not hours: {text!r} (write 22:00-07:00)")
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if first >= MINUTES_PER_DAY or last > MINUTES_PER_DAY or first == last:
        raise ValueError(f"not hours: {text!r} (between 00:00 and 24:00, and not empty)")
    return Window(first, last)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"not days: {text!r} (write mon-fri,sun)")
        start, stop = DAYS.index(first), DAYS.index(last or first)
        found.update((start + step) % 7 for step in range((stop - start) % 7 + 1))
    return frozenset(found)
