"""What simulated workers compute: outputs that follow from the task alone, in the right form for its kind."""

from __future__ import annotations

from fallow.kinds.train.tasks import TrainAudit, TrainFinish, TrainParams, TrainRound, TrainValue
from fallow.sim import chain
from fallow.sim.chain import digest, made
from fallow.wire import codec
from fallow.wire.tasks import Part, TaskOutput, TaskSpec


def honest_output(spec: TaskSpec) -> TaskOutput:
    """What the task really gives. Depends on neither its time limit nor who runs it."""
    body = digest(spec.kind, spec.params, spec.inputs, spec.seed)
    if spec.kind != "train":
        return TaskOutput(body, ())
    params = codec.decode(TrainParams, spec.params)
    if isinstance(params, TrainAudit):
        return chain.audited(spec, params)
    if isinstance(params, TrainRound) and params.recipe.exact:
        return chain.committed(spec, params)
    state = digest("state", params.manifests)
    if isinstance(params, TrainFinish):
        result = Part("adapter/weights", made(50, "adapter", body), 50)
        return TaskOutput(codec.encode(TrainValue(state, "1.500000", spec.units)), (result,))
    parts = [Part("update", made(100, "update", body), 100), Part("carry", made(800, "carry", body), 800)]
    if params.checkpoint:
        parts.append(Part("checkpoint", made(70, "checkpoint", params.round, params.manifests), 70))
    loss = f"{3 - params.round / 10:.6f}" if params.evaluate else ""
    parts.sort(key=lambda part: part.name)
    return TaskOutput(codec.encode(TrainValue(state, loss, spec.units)), tuple(parts))


def wrong_output(spec: TaskSpec, salt: object) -> TaskOutput:
    """A false answer in the right form. Equal salts give equal lies."""
    true = honest_output(spec)
    if spec.kind != "train" or not true.parts:
        return TaskOutput(digest("lie", salt, true.value), ())
    return TaskOutput(
        true.value, tuple(Part(p.name, made(p.size_bytes, "lie", salt, p.blob), p.size_bytes) for p in true.parts)
    )


def lane_value(params: bytes, seed: int) -> bytes:
    """The answer to a lane task."""
    return digest("lane", params, seed)
