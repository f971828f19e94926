"""The instruction sets that torch may be told to use here.

torch does what ATEN_CPU_CAPABILITY says without asking the processor, and the process dies at the first instruction
that is not there. What caps instead (FALLOW_EXACT_ISA, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS) needs no such care.
"""

from __future__ import annotations

import torch

CAPABILITIES = ("default", "avx2", "avx512")


def capabilities(best: str = "") -> tuple[str, ...]:
    """Those of CAPABILITIES that this processor has, lowest first; `best`: what torch chose of its own accord."""
    best = (best or torch.backends.cpu.get_cpu_capability()).lower()
    return CAPABILITIES[: CAPABILITIES.index(best) + 1] if best in CAPABILITIES else CAPABILITIES[:1]


def held_to(capability: str) -> dict[str, str]:
    """The environment of a process whose torch uses nothing above this one, nor anything that is not there."""
    there = capabilities()
    return {"ATEN_CPU_CAPABILITY": capability if capability in there else there[-1]}
