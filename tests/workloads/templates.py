"""Chat templates of the kinds that models have, and tokenizers to go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workloads.tiny import TEXT, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fallow.workloads.hf_folder import read_tokenizer

SPECIAL = ["<end>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<s>", "<think>", "</think>"]
HEAD = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
ANSWER = (
    "{% if m.content %}{{ m.content }}{% endif %}{% for c in m.tool_calls %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<end>"
)
MARKED = (
    "{% if tools %}<|system|>{% for t in tools %}{{ t | tojson }}{% endfor %}<end>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}"
    "{% generation %}" + ANSWER + "\n{% endgeneration %}"
    "{% else %}{{ m.content }}<end>\n{% endif %}{% endfor %}" + HEAD
)
"""With the marks that `return_assistant_tokens_mask` goes by: what is learned is never in doubt."""

_UNLEARNED = "{% if m.weight == 0 %}" + ANSWER + "\n{% else %}{% generation %}"
WEIGHED = MARKED.replace("{% generation %}", _UNLEARNED).replace(
    "{% endgeneration %}", "{% endgeneration %}{% endif %}"
)
"""That also knows of weights, for those who do not."""


def without_marks(template: str) -> str:
    """The same for those who must find out."""
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


PLAIN = without_marks(MARKED)
FORGETFUL = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<end>\n{% endfor %}" + HEAD
)
"""Drops what was thought as soon as the chat goes on."""
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
"""Opens answers with a thought, which answers in a chat do not have."""
OPENED = "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}" + HEAD
STRICT = (
    "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}{{ raise_exception('only two speak') }}"
    "{% endif %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}" + HEAD
)
CLOSED = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</think>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}<end>{% endif %}"
)
"""Ends turns with one token and a whole chat with another."""
TEXTUAL = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls %}"
    "{{ 'call ' + c.function.name + ' ' + c.function.arguments }}{% endfor %}<end>{% endfor %}" + HEAD
)
"""Takes the arguments of calls for text."""
ENDLESS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}" + HEAD
TWOFOLD = "{{ messages | length }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}" + HEAD
"""Writes the beginning of a chat otherwise with every message."""


def tokenizer(template: str | None, *, bos: bool = False) -> Any:
    """A byte-like tokenizer; with `bos` it puts <s> before every text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if bos:
        raw.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", SPECIAL.index("<s>"))])
    found = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", bos_token="<s>", pad_token="<end>")
    found.chat_template = template
    return found


def as_read(folder: Path, template: str | None, *, bos: bool = False) -> Any:
    """The same as our worker reads it from a model's folder."""
    make_model(folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer(template, bos=bos).save_pretrained(folder)
    return read_tokenizer(folder)
