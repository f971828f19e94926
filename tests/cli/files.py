"""Small files that pass for models and adapters without tensor libraries."""

from __future__ import annotations

import json
from pathlib import Path


def hf_model(folder: Path) -> Path:
    """A folder in Hugging Face's layout with one weight of four numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 128})
    )
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def gguf_model(path: Path) -> Path:
    """A file that begins as GGUF files do."""
    path.write_bytes(b"GGUF" + bytes(60))
    return path
