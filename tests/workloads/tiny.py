"""A tiny Llama with random weights and a byte-like tokenizer, made on the spot, and tasks to train it."""

from __future__ import annotations

from pathlib import Path

import torch
from blake3 import blake3
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fallow.kinds.rounds import RoundManifest
from fallow.kinds.train.tasks import TrainFinish, TrainRound, TrainValue
from fallow.wire import codec
from fallow.wire.tasks import Part, Recipe, TaskSpec
from fallow.workloads.task import TaskResult, TaskRun

TEXT = "".join(
    f"The {a} {b} went to the {c} and came home at {h} with {n} apples.\n"
    for a in ("old", "young", "tired", "happy")
    for b in ("farmer", "sailor", "baker", "teacher", "painter")
    for c in ("market", "river", "forest", "harbour")
    for h, n in (("noon", 3), ("night", 7), ("dawn", 12))
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "walk",
            "parameters": {
                "type": "object",
                "properties": {"to": {"enum": ["river", "market"]}, "hours": {"type": "integer", "maximum": 99}},
                "required": ["to", "hours"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "rest", "parameters": {"type": "object", "maxProperties": 0}}},
)


def make_model(folder: Path, seed: int = 1, context_tokens: int = 256) -> Path:
    """Write the model into `folder`; the same bytes for the same seed."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<end>", "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        eos_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def without_an_exact_form(folder: Path) -> Path:
    """The same tokenizer with a model of another form."""
    make_model(folder)
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=384, n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=0, bos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


RECIPE = Recipe(
    method="lora",
    lora_rank=4,
    sequence_tokens=32,
    batch_sequences=2,
    inner_steps=3,
    rounds=3,
    learning_rate="0.01",
    warmup_steps=1,
    holdout_sequences=8,
)


def make_work(params: TrainRound | TrainFinish, inputs: dict[str, Path], outdir: Path) -> TaskRun:
    """A task with its inputs named by their content, as a steward would make it."""
    outdir.mkdir(parents=True, exist_ok=True)
    parts = tuple(Part(name, blake3(content_of(path)).digest(), 1) for name, path in sorted(inputs.items()))
    task = TaskSpec("train", codec.encode(params), parts, 5, 1, 60, 1 << 30)
    return TaskRun(task, inputs, outdir, 1, lambda *_: None, lambda _: None)


def content_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.iterdir())) if path.is_dir() else path.read_bytes()


def value_of(outcome: TaskResult) -> TrainValue:
    return codec.decode(TrainValue, outcome.value)


def hashes_of(outcome: TaskResult) -> dict[str, bytes]:
    return {name: blake3(path.read_bytes()).digest() for name, path in outcome.files.items()}


def manifest_of(number: int, outcomes: list[TaskResult]) -> tuple[RoundManifest, dict[str, Path]]:
    """The manifest of a round and its update files as inputs for the next."""
    named = [(blake3(o.files["update"].read_bytes()).digest(), o.files["update"]) for o in outcomes]
    return RoundManifest(number, tuple(blob for blob, _ in named)), {f"update/{b.hex()}": path for b, path in named}
