"""Folders that a stranger wrote, compared with what transformers makes of honest ones."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.workloads.tiny import TEMPLATE, TEXT, make_model
from transformers import AutoConfig, AutoTokenizer

from fallow.errors import FallowError
from fallow.workloads.hf_folder import end_tokens, network_class, read_config, read_tokenizer

TEXTS = (TEXT[:200], "<|user|>hi<end>", "  two  spaces\n\n", "漢字 ünï 12345", "")

LEFT = ("architectures", "dtype", "transformers_version", "_name_or_path")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def edit(path: Path, **change: object) -> None:
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | change))


def settings(config: Any) -> dict[str, Any]:
    """But for those that say where it came from."""
    return {name: value for name, value in config.to_dict().items() if name not in LEFT}


def code_of(act: Any, *args: Any) -> str:
    with pytest.raises(FallowError) as caught:
        act(*args)
    return caught.value.code


def test_honest_folders_mean_what_they_mean_to_transformers(model: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(model), read_tokenizer(model)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        ids = theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    assert (ours.eos_token_id, ours.pad_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.pad_token_id, None)
    assert ours.chat_template == theirs.chat_template == TEMPLATE
    assert settings(read_config(model)) == settings(AutoConfig.from_pretrained(model))
    assert network_class(read_config(model)).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt2", "phi3", "olmo2"])
def test_configurations_of_common_models_come_out_as_transformers_reads_them(tmp_path: Path, kind: str) -> None:
    theirs = AutoConfig.for_model(kind)
    theirs.save_pretrained(tmp_path)
    assert settings(read_config(tmp_path)) == settings(AutoConfig.from_pretrained(tmp_path))


def test_old_names_of_settings_are_read(model: Path) -> None:
    edit(model / "config.json", rope_parameters=None, rope_theta=123456.0)
    assert read_config(model).rope_parameters["rope_theta"] == 123456.0


@pytest.mark.parametrize("form", ["a name", {"content": "<end>", "lstrip": False, "__type": "AddedToken"}])
def test_special_tokens_stand_alone_or_in_a_table(model: Path, form: Any) -> None:
    edit(model / "tokenizer_config.json", eos_token=form if isinstance(form, dict) else "<end>")
    assert read_tokenizer(model).eos_token_id == 0


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_class": "../../keys/identity.key"},
        {"tokenizer_file": "../../keys/identity.key"},
        {"vocab_file": "../../keys/identity.key", "tokenizer_class": "CTRLTokenizer"},
        {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
        {"tokenizer_object": "x", "init_inputs": ["/etc/passwd"], "name_or_path": "/etc"},
        {"backend": "mistral-common", "extra_special_tokens": {"a": "/etc/passwd"}},
    ],
)
def test_a_tokenizers_settings_name_no_files_and_no_classes(model: Path, change: dict[str, Any]) -> None:
    wanted = [read_tokenizer(model)(text)["input_ids"] for text in TEXTS]
    edit(model / "tokenizer_config.json", **change)
    found = read_tokenizer(model)
    assert type(found).__name__ == type(read_tokenizer(model)).__name__ != "CTRLTokenizer"
    assert [found(text)["input_ids"] for text in TEXTS] == wanted


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.model", "merges.txt"])
def test_without_tokenizer_json_there_is_no_tokenizer(model: Path, name: str) -> None:
    (model / "tokenizer.json").rename(model / name)
    assert code_of(read_tokenizer, model) == "E1701"


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "../../x"}, {"model_type": None}, {"model_type": ["llama"]}, {"vocab_size": 1e300},
        {"hidden_act": "x" * 1_000}, {"rms_norm_eps": 1 << 70}, {"rope_parameters": {"a": {"b": {"c": {"d": 1}}}}},
        {"eos_token_id": list(range(100_000))}, {"quantization_config": {"quant_method": "gptq"}},
        {"hidden_size": -1}, {"num_hidden_layers": "2"},
    ],
)  # fmt: skip
def test_settings_that_no_model_has(model: Path, change: dict[str, Any]) -> None:
    edit(model / "config.json", **change)
    with pytest.raises(Exception, match=r"."):  # what transformers says itself is blamed on the model by load_model
        network_class(read_config(model)).from_pretrained(None, config=read_config(model), state_dict={})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_no_numbers(model: Path, word: str) -> None:
    text = (model / "config.json").read_text().replace('"vocab_size": ', f'"rms_norm_eps": {word}, "vocab_size": ')
    (model / "config.json").write_text(text)
    assert code_of(read_config, model) == "E1701"


def test_unknown_settings_are_left_behind(model: Path) -> None:
    edit(model / "config.json", auto_map={"AutoConfig": "evil.Evil"}, _attn_implementation="org/model:kernel", name="x")
    found = read_config(model)
    assert not hasattr(found, "auto_map")
    assert found._attn_implementation != "org/model:kernel"


def test_ends_come_from_the_generation_settings_too(model: Path) -> None:
    edit(model / "generation_config.json", eos_token_id=[3, 4, "x"], watermarking_config={"greenlist_ratio": math.pi})
    assert end_tokens(model) == {3, 4}
    (model / "generation_config.json").unlink()
    assert end_tokens(model) == set()


def test_templates_by_name_or_in_a_file(model: Path) -> None:
    (model / "chat_template.jinja").unlink(missing_ok=True)
    edit(
        model / "tokenizer_config.json",
        chat_template=[{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}],
    )
    assert read_tokenizer(model).chat_template == "d"
    (model / "chat_template.jinja").write_text("j")
    assert read_tokenizer(model).chat_template == "j"
    (model / "chat_template.jinja").write_text("j" * ((1 << 20) + 1))
    assert code_of(read_tokenizer, model) == "E1701"
