"""All forms of jobs, one line each. Whoever asks for a shape of a job that came from outside imports `shape_of` from
here, so that all are known."""

from __future__ import annotations

from fallow.rules.steward.shape import SHAPES, Shape, shape_named, shape_of
from fallow.rules.steward.shapes.lanes import LaneShape, ServeShape
from fallow.rules.steward.shapes.rounds import RoundsShape
from fallow.rules.steward.shapes.tasks import TasksShape
from fallow.wire.local import BatchJob, LaneJob, ServeJob, TrainJob

__all__ = ["LIST", "SHAPES", "Shape", "shape_named", "shape_of"]

LIST = SHAPES[BatchJob] = TasksShape()
"""What a list of inputs is, when nobody says."""
SHAPES[TrainJob] = RoundsShape()
SHAPES[ServeJob] = ServeShape()
SHAPES[LaneJob] = LaneShape()
