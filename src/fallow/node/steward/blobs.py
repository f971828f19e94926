"""What stays in a steward's store: what its owner brought, until a job takes it; of a job, everything while it runs,
then its results, and nothing once it is not shown any more. What does not stay is not deleted, only no longer kept from
making room: a receipt's work can be done again from it for as long as there is room. Functions here block: call them in
a thread."""

from __future__ import annotations

from collections.abc import Iterable

from fallow.node.folders import with_files
from fallow.ports import Blobs
from fallow.rules.steward.events import JobEnded
from fallow.rules.steward.shapes.registry import shape_of
from fallow.units import BlobId
from fallow.wire.local import Work

IMPORTED = "owner"
"""Whose name the owner's files are pinned in until a job takes them, or the node starts again: nobody says that they
will not go through with a job."""


def job_owner(job: bytes) -> str:
    """Whose name the blobs of a running job are pinned in."""
    return f"job/{job.hex()}"


def _results_owner(job: bytes) -> str:
    return f"result/{job.hex()}"


def take_inputs(blobs: Blobs, job: bytes, work: Work) -> None:
    """From now on the owner's files that `work` is about are kept as the job's. What is not here stays a matter of the
    providers. Raises UnavailableError E1602 for what turns out to be damaged."""
    for blob in filter(blobs.has, map(BlobId, shape_of(work).inputs(work))):
        blobs.hand_over(with_files(blobs, blob), IMPORTED, job_owner(job))


def keep_results(blobs: Blobs, ended: JobEnded) -> None:
    """Of a job that has ended, keep the results alone. Doing so again changes nothing."""
    results = [BlobId(part.blob) for output in ended.outputs if output is not None for part in output.parts]
    blobs.hand_over(results, job_owner(ended.job), _results_owner(ended.job))
    blobs.unpin_all(job_owner(ended.job))


def forget(blobs: Blobs, jobs: Iterable[bytes]) -> None:
    """Keep nothing of these jobs."""
    for job in jobs:
        blobs.unpin_all(job_owner(job))
        blobs.unpin_all(_results_owner(job))
