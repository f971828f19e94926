"""Small files that pass for models and adapters without tensor libraries."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def hf_model(folder: Path) -> Path:
    """A folder in Hugging Face's layout with one weight of four numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 128})
    )
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """One token a byte, an end, and a template for chats."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [],
        trainers.BpeTrainer(vocab_size=257, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False),
    )
    raw.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
    opening = "{% if add_generation_prompt %}assistant: {% endif %}"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<end>", "chat_template": template + opening})
    )


def gguf_model(path: Path) -> Path:
    """A file that begins as GGUF files do."""
    path.write_bytes(b"GGUF" + bytes(60))
    return path
