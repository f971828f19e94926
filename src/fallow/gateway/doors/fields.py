"""How bodies are read: null means that nothing is said, and what would be ignored is refused by name, since an ignored
`tools` or `top_k` gives wrong answers in silence. What asks for nothing (false, 0, an empty list) passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fallow.errors import FallowError, fail

MAX_TURNS = 1024
MAX_STOPS, MAX_STOP_CHARS = 16, 1000
MAX_TOKENS = 1 << 20
MAX_ALIKE = 16
MAX_NAME = 200


class BodyFields(BaseModel):
    """Some JSON object. `harmless` names what changes nothing in an answer; `neutral` gives values that ask for nothing
    although they are not empty."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    harmless: ClassVar[frozenset[str]] = frozenset()
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in cast(dict[str, Any], data).items() if value is not None}

    def unsupported(self, where: str = "") -> Iterator[str]:
        """The names of what would be ignored, here and in all that is in here."""
        for name, value in (self.model_extra or {}).items():
            if value and name not in self.harmless and value not in self.neutral.get(name, ()):
                yield f"{where}{name}"
        for name in type(self).model_fields:
            value = getattr(self, name)
            many = cast(Sequence[Any], value) if isinstance(value, list | tuple) else None
            for place, inner in enumerate([value] if many is None else many):
                if isinstance(inner, BodyFields):
                    yield from inner.unsupported(f"{where}{name}." if many is None else f"{where}{name}.{place}.")


class TextPart(BodyFields):
    """A part of a message's content; images and audio are refused."""

    harmless = frozenset({"cache_control", "annotations", "citations"})
    type: Literal["text", "input_text", "output_text"]
    text: str


Content = str | list[TextPart]


def text_of(content: Content) -> str:
    """What a message says."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class Stops(BodyFields):
    """`stop`, as several doors have it."""

    stop: str | tuple[str, ...] = ()

    def stops(self) -> tuple[str, ...]:
        """Raises UsageError E1904 for too many, too long or empty ones."""
        return read_stops("stop", self.stop)


def read_stops(name: str, stop: str | Sequence[str]) -> tuple[str, ...]:
    """Raises UsageError E1904 for too many, too long or empty ones."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stops) > MAX_STOPS:
        raise fail("E1904", f"{name}: {len(stops)} strings; at most {MAX_STOPS} are watched for.")
    if any(not 0 < len(text) <= MAX_STOP_CHARS for text in stops):
        raise fail("E1904", f"{name}: a string must have 1 to {MAX_STOP_CHARS} characters.")
    return stops


class SharedFields(Stops):
    """What OpenAI's two completions share."""

    model: str = Field(min_length=1, max_length=200)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[str, float] = Field(default={}, max_length=1024)
    n: int = Field(default=1, ge=1, le=MAX_ALIKE)
    seed: int | None = None
    stream: bool = False


B = TypeVar("B", bound=BodyFields)


def parse(kind: type[B], body: bytes) -> B:
    """Raises UsageError E1904 that names the first field that is wrong or not supported."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error
    if name := next(request.unsupported(), ""):
        raise fail("E1904", f"{name!r} is not supported."[:300])
    return request


def _refusal(error: ValidationError) -> FallowError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or "body"
    return fail("E1904", f"{place}: {first['msg']}."[:300])
