"""Prompts: their weights, their tokens, and what is said of them."""

import hashlib
import subprocess
import sys

import pytest

from unnoise.conditioning.text.prompts import read_prompt
from unnoise.conditioning.text.tokenizer import TextTokenizer, learn_tokenizer, split_words, words_of
from unnoise.errors import BadOption, DataError

from .conftest import CAPTIONS


@pytest.mark.parametrize(
    ("prompt", "text", "heavy"),
    [
        ("a red heart", "a red heart", {}),
        ("a (red:1.3) heart", "a red heart", {"red": 1.3}),
        ("(a red heart:0.5)", "a red heart", {"a red heart": 0.5}),
        ("((very:2) red:1.5) heart", "very red heart", {"very": 3.0, " red": 1.5}),
        ("a face (smiling)", "a face (smiling)", {}),
        ("flag: (old:1.2) (new)", "flag: old (new)", {"old": 1.2}),
        (r"a \(red:1.3\) heart", "a (red:1.3) heart", {}),
        ("unclosed (red:1.3", "unclosed (red:1.3", {}),
        ("red:1.3) heart", "red:1.3) heart", {}),
        ("(away:-1)", "away", {"away": -1.0}),
        ("(a:b)", "(a:b)", {}),
        ("", "", {}),
    ],
)
def test_weights_are_read_and_leave_the_text(prompt, text, heavy):
    read = read_prompt(prompt)
    assert read.text == text
    assert len(read.weights) == len(text)
    expected = [1.0] * len(text)
    for words, weight in heavy.items():
        at = text.index(words)
        expected[at : at + len(words)] = [weight] * len(words)
    assert list(read.weights) == pytest.approx(expected)
    assert read.plain == (not heavy)


def test_a_weight_out_of_range_is_refused():
    with pytest.raises(BadOption, match=r"between -10 and 10, got .*11.* in '\(red:11\)'"):
        read_prompt("(red:11)")


def test_weights_belong_to_the_tokens_of_their_words(own_tokenizer):
    ((ids, weights),) = own_tokenizer.chunks(read_prompt("a (red:1.3) heart"), 32)
    ((bare, ones),) = own_tokenizer.chunks(read_prompt("a red heart"), 32)
    assert ids == bare
    assert set(ones) == {1.0}
    red = own_tokenizer.pieces("a red")[0][len(own_tokenizer.pieces("a")[0]) :]
    assert [token for token, weight in zip(ids, weights, strict=True) if weight == 1.3] == red


def test_a_long_prompt_comes_in_framed_parts_that_lose_nothing(own_tokenizer):
    prompt = read_prompt("a red heart and a blue heart and two green apples by the sea")
    ((whole, _),) = own_tokenizer.chunks(prompt, 1000)
    parts = own_tokenizer.chunks(prompt, 8)
    assert len(parts) > 2
    assert [len(ids) for ids, _ in parts[:-1]] == [8] * (len(parts) - 1)
    assert {(ids[0], ids[-1]) for ids, _ in parts} == {(whole[0], whole[-1])} == {(1, 2)}
    assert [token for ids, _ in parts for token in ids[1:-1]] == whole[1:-1]
    assert own_tokenizer.chunks(read_prompt(""), 8) == [([1, 2], [1.0, 1.0])]


def test_no_text_is_unknown_and_case_does_not_matter(own_tokenizer):
    inner = own_tokenizer._inner
    for text in ("zorblax", "héllo", "日本語", "😀 smile", "A Red HEART"):
        assert inner.decode(own_tokenizer.pieces(text)[0]).strip() == text.lower()
    assert own_tokenizer.pieces("A RED Heart")[0] == own_tokenizer.pieces("a red heart")[0]


def test_a_tokenizer_learned_elsewhere_from_the_same_captions_is_the_same(own_tokenizer):
    code = (
        f"from unnoise.conditioning.text.tokenizer import *\nimport hashlib\nt = learn_tokenizer({CAPTIONS!r}, 320)\n"
    )
    code += "print(hashlib.sha256(t.content.encode()).hexdigest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == hashlib.sha256(own_tokenizer.content.encode()).hexdigest()
    assert own_tokenizer == learn_tokenizer(CAPTIONS, 320)
    assert 260 < own_tokenizer.size <= 320


def test_words_are_counted_without_what_stands_between():
    assert split_words("Woman: medium-light skin tone, bald (or not)!") == [
        "woman", "medium-light", "skin", "tone", "bald", "or", "not",
    ]  # fmt: skip
    assert words_of(["b a", "a c", "a b"]) == ("a", "b", "c")


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(DataError, match="cannot be read"):
        _ = TextTokenizer("{}").size
