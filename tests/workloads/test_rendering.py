"""What is learned is what transformers' own marks say, for templates that have marks and for those that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workloads.templates import (
    CLOSED,
    ENDLESS,
    FORGETFUL,
    MARKED,
    OPENED,
    PLAIN,
    STRICT,
    TEXTUAL,
    THINKING,
    TWOFOLD,
    as_read,
    tokenizer,
)
from transformers import AutoTokenizer

from fallow.data.formats import plain
from fallow.data.rows import Chat, Completion, Prose
from fallow.data.shapes.registry import read_row
from fallow.errors import FallowError
from fallow.kinds.generate.tasks import ChatTurn, Generate
from fallow.workloads.packing import Passage
from fallow.workloads.rendering import ALL, Renderer, shown
from fallow.workloads.speech import read_prompt

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"x": {"type": "integer"}}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CHATS: dict[str, tuple[list[dict], list[dict]]] = {
    "one turn": ([say("user", "Where?"), say("assistant", "Home.")], []),
    "with a system": ([say("system", "Be kind."), say("user", "Where?"), say("assistant", "Home.")], []),
    "two turns": ([say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")], []),
    "ends with a question": ([say("user", "a"), say("assistant", "b"), say("user", "c")], []),
    "begins with an answer": ([say("user", "a"), say("assistant", "b"), say("assistant", "c")], []),
    "an empty answer": ([say("user", "a"), say("assistant", "")], []),
    "odd letters": ([say("user", "é😀"), say("assistant", " 😀\n\nü <end> ")], []),
    "tools": ([say("user", "1?"), say("assistant", "", tool_calls=[CALL]), say("tool", "2"),
               say("assistant", "2.")], [TOOL]),
    "words and a call": ([say("user", "1?"), say("assistant", "Hm.", tool_calls=[CALL, CALL])], [TOOL]),
}  # fmt: skip


WORDS = st.text(alphabet="ab é😀\n<", max_size=9) | st.sampled_from(["<end>", "<|user|>", "</think>"])
MARKS, NO_MARKS = tokenizer(MARKED), tokenizer(PLAIN)


def pieces(
    template: str | None, *rows: Any, loss: str = "assistant", bos: bool = False
) -> tuple[list[Passage], Renderer]:
    renderer = Renderer(tokenizer(template, bos=bos), loss)
    return list(renderer.pieces(rows)), renderer


def learned(template: str | None, *rows: Any, loss: str = "assistant", bos: bool = False) -> list[str]:
    """What is learned of each document, as text; what is not is dots."""
    words = tokenizer(template, bos=bos)
    found = pieces(template, *rows, loss=loss, bos=bos)[0]
    return [
        "".join(words.decode([t]) if on else "." for t, on in zip(piece.tokens, piece.learned, strict=True)).strip(".")
        for piece in found
    ]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("template", [MARKED, PLAIN], ids=["marked", "unmarked"])
def test_tokens_and_mask_are_those_of_transformers(name: str, template: str) -> None:
    messages, tools = CHATS[name]
    truth = tokenizer(MARKED).apply_chat_template(
        messages, tools=tools or None, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    (piece,), renderer = pieces(template, Chat(tuple(messages), tuple(tools)))
    assert piece.tokens.tolist() == truth["input_ids"]
    assert piece.learned.astype(int).tolist() == truth["assistant_masks"]
    assert (renderer.heard.several, renderer.heard.opens, renderer.heard.endless) == (0, 0, 0)
    (whole,), _ = pieces(template, Chat(tuple(messages), tuple(tools)), loss=ALL)
    assert whole.learned.all()
    assert whole.tokens.tolist() == truth["input_ids"]


@given(
    turns=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), WORDS), min_size=1, max_size=6)
)
def test_any_chat_is_masked_as_transformers_masks_it(turns: list[tuple[str, str]]) -> None:
    messages = [say(role, content) for role, content in turns]
    truth = MARKS.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    (piece,) = Renderer(NO_MARKS).pieces([Chat(tuple(messages))])
    assert piece.tokens.tolist() == truth["input_ids"]
    assert piece.learned.astype(int).tolist() == truth["assistant_masks"]


@pytest.mark.parametrize("template", [MARKED, PLAIN], ids=["marked", "unmarked"])
def test_weights_and_prompts_are_heeded(template: str) -> None:
    turns = [say("user", "a"), say("assistant", "b", weight=0), say("user", "c"), say("assistant", "d")]
    assert learned(template, Chat(tuple(turns))) == ["d<end>\n"]
    plain_turns = [{name: value for name, value in turn.items() if name != "weight"} for turn in turns]
    assert learned(template, Chat(tuple(plain_turns), (), 2)) == ["d<end>\n"]
    assert learned(template, Chat(tuple(turns[:2]))) == [""]


def test_marks_that_do_not_fit_the_answers() -> None:
    template = "{% generation %}{% for m in messages %}{{ m.content }}<end>{% endfor %}{% endgeneration %}"
    turns = (say("user", "a"), say("assistant", "b", weight=0), say("user", "c"), say("assistant", "d"))
    with pytest.raises(FallowError, match="marks 1 answers where there are 2"):
        pieces(template, Chat(turns, (), 0, "here"))


def test_a_template_that_forgets_thoughts_teaches_each_answer_as_it_was_given() -> None:
    turns = (
        say("user", "a"),
        say("assistant", "<think>x</think>b"),
        say("user", "c"),
        say("assistant", "<think>y</think>d"),
    )
    found, renderer = pieces(FORGETFUL, Chat(turns))
    texts = [tokenizer(None).decode(piece.tokens) for piece in found]
    assert texts == [
        "<|user|>a<end>\n<|assistant|>b<end>\n<|user|>c<end>\n<|assistant|><think>y</think>d<end>\n",
        "<|user|>a<end>\n<|assistant|><think>x</think>b<end>\n",
    ]
    assert learned(FORGETFUL, Chat(turns)) == ["<think>y</think>d<end>\n", "<think>x</think>b<end>\n"]
    assert renderer.heard.several == 1
    assert len(pieces(FORGETFUL, Chat((say("user", "a"), say("assistant", "b"))))[0]) == 1


def test_what_closes_a_whole_chat_is_no_other_way_of_writing_an_answer() -> None:
    turns = (say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d"))
    found, renderer = pieces(CLOSED, Chat(turns))
    assert (len(found), renderer.heard.several) == (1, 0)
    assert learned(CLOSED, Chat(turns))[0].replace(".", "") == "b</think>\nd</think>\n<end>"


def test_a_template_that_takes_arguments_for_text_gets_text() -> None:
    chat = Chat((say("user", "1?"), say("assistant", "", tool_calls=[CALL])), (TOOL,))
    assert learned(TEXTUAL, chat) == ['call add {"x": 1}<end>']
    with pytest.raises(FallowError, match="can only concatenate"):
        pieces("{{ 'a' + 1 }}", chat)


def test_answers_without_the_opening_that_the_template_gives_are_counted() -> None:
    chat = Chat((say("user", "a"), say("assistant", "<b>")))
    assert learned(THINKING, chat) == ["<b><end>"]
    assert pieces(THINKING, chat)[1].heard.opens == 1


def test_an_answer_without_an_end_is_counted() -> None:
    assert pieces(ENDLESS, Chat((say("user", "a"), say("assistant", "b"))))[1].heard.endless == 1


def test_a_template_that_writes_the_beginning_in_two_ways_is_refused() -> None:
    chat = Chat((say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")), place="x, line 1")
    with pytest.raises(FallowError) as caught:
        pieces(TWOFOLD, chat)
    assert caught.value.code == "E1702"
    assert caught.value.what.startswith("x, line 1: the model's chat template refuses the chat: it writes what comes")


def test_refusals_name_the_row() -> None:
    chat = Chat((say("system", "a"), say("assistant", "b")), place="x, line 7")
    with pytest.raises(FallowError, match=r"x, line 7: .*only two speak") as caught:
        pieces(STRICT, chat)
    assert caught.value.code == "E1702"
    with pytest.raises(FallowError, match="x, line 7 is a chat") as caught:
        pieces(None, chat)
    assert caught.value.code == "E1712"


def test_developers_speak_for_the_system_unless_they_are_known() -> None:
    chat = Chat((say("developer", "a"), say("assistant", "b")))
    known = PLAIN + "{# developer #}"
    for template, role in ((OPENED, "system"), (known, "developer")):
        (piece,), _ = pieces(template, chat)
        assert f"<|{role}|>a<end>" in tokenizer(None).decode(piece.tokens)


def test_what_the_template_writes_first_is_not_written_twice() -> None:
    (piece,), _ = pieces(OPENED, Chat((say("user", "a"), say("assistant", "b"))), bos=True)
    assert piece.tokens.tolist().count(tokenizer(None).bos_token_id) == 1


# no chats -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("text", ["The sky is blue.", "It ends.<end>", " é\n"])
def test_texts_begin_as_the_tokenizer_has_it_and_end(text: str, bos: bool) -> None:
    words = tokenizer(None, bos=bos)
    (piece,), _ = pieces(None, Prose(text), bos=bos)
    assert piece.tokens.tolist() == words(text if text.endswith("<end>") else text + "<end>")["input_ids"]
    assert piece.learned.all()
    assert piece.text


def test_parts_are_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (Prose("One. ", continues=True), Prose("Two.\n", continues=True), Prose("Three."))
    found = [pieces(None, *rows, bos=True)[0] for rows in (parts, (Prose("One. Two.\nThree."),))]
    assert [words.tokens.tolist().count(5) for (words,) in found] == [1, 1]
    monkeypatch.setattr(plain, "PART_CHARS", 4)
    assert len(pieces(None, Prose("One.\nTwo.\n"), Prose("Three."))[0]) == 2


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    ("prompt", "completion"), [("The sky is", " blue."), ("a b", "aker"), ("", "all"), ("é", "😀")]
)
def test_of_a_completion_what_follows_is_learned(prompt: str, completion: str, bos: bool) -> None:
    words = tokenizer(None, bos=bos)
    (piece,), _ = pieces(None, Completion(prompt, completion), bos=bos)
    asked, whole = words(prompt)["input_ids"], words(prompt + completion + "<end>")["input_ids"]
    same = next((at for at, pair in enumerate(zip(asked, whole, strict=False)) if pair[0] != pair[1]), len(asked))
    assert piece.tokens.tolist() == whole
    assert piece.learned.tolist() == [at >= same for at in range(len(whole))]
    (everything,), _ = pieces(None, Completion(prompt, completion), bos=bos, loss=ALL)
    assert everything.learned.all()


@pytest.mark.parametrize("bos", [False, True])
def test_the_beginning_is_what_transformers_puts_there(tmp_path: Path, bos: bool) -> None:
    ours, theirs = as_read(tmp_path, OPENED, bos=bos), AutoTokenizer.from_pretrained(tmp_path)
    (piece,) = Renderer(ours).pieces([Prose("The sky is blue.")])
    assert piece.tokens.tolist() == [*theirs("The sky is blue.")["input_ids"], theirs.eos_token_id]


@pytest.mark.parametrize("bos", [False, True])
def test_training_begins_as_serving_does(bos: bool) -> None:
    words = tokenizer(OPENED, bos=bos)
    asked = read_prompt(words, Generate((), "The sky", 1)).tokens
    (piece,), _ = pieces(OPENED, Prose("The sky is blue."), bos=bos)
    assert piece.tokens[: len(asked)].tolist() == asked
    chat = read_row({"messages": [say("user", "a"), say("assistant", "b")]}, "")[0]
    (piece,), _ = pieces(OPENED, chat, bos=bos)
    asked = read_prompt(words, Generate((ChatTurn("user", "a"),), "", 1)).tokens
    assert piece.tokens[: len(asked)].tolist() == asked
    assert not piece.learned[: len(asked)].any()


def test_what_is_shown_is_the_first_example_with_its_mask() -> None:
    renderer = pieces(PLAIN, Chat((say("user", "a" * 5000), say("assistant", "b"))))[1]
    assert renderer.heard.first is not None
    parts = shown(renderer.heard.first)
    assert [on for _, on in parts] == [False, True]
    assert parts[1][0] == "b<end>\n"
    assert len(parts[0][0]) < 700
    assert "[…]" in parts[0][0]
