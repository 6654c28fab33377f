"""Networks that understand texts: what reaches them, what is made once, and what an empty text is."""

import json
from dataclasses import replace

import pytest
import torch

from unnoise.conditioning.text.base import text_encoders
from unnoise.conditioning.text.conditioning import PromptStates, TextConditioning
from unnoise.conditioning.text.folder import read_encoder
from unnoise.conditioning.text.network import TextNetwork, apart, together
from unnoise.errors import IncompatibleParts
from unnoise.nn.base import networks
from unnoise.registry import Choice

DEBERTA = {
    "model_type": "deberta-v2", "vocab_size": 320, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "max_position_embeddings": 12, "relative_attention": True, "position_biased_input": False,
}  # fmt: skip
ENCODERS = {
    "transformer": {"length": 12, "width": 8, "depth": 1, "heads": 2},
    "clip": {"length": 12, "width": 8, "depth": 1, "heads": 2, "hidden": 8},
    "bert": {"length": 12, "width": 8, "depth": 1, "heads": 2, "hidden": 8},
    "t5": {"length": 12, "width": 8, "depth": 1, "heads": 2, "head_width": 4, "hidden": 8},
    "transformers": {"length": 12, "width": 8, "settings": json.dumps(DEBERTA)},
}


def make(tokenizer, encoder="transformer", learned=True, classes=3, network="latent_unet", **more):
    """A network around an encoder, no weight of which is zero, and how it understands words."""
    torch.manual_seed(0)
    choice = text_encoders.build({"name": encoder, "vocabulary": tokenizer.size, **ENCODERS[encoder], **more})
    text = TextConditioning(choice, tokenizer, learned, ("a", "red", "heart", "the", "of"))
    sizes = {"latent_unet": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [1], "heads": 2},
             "dit": {"width": 8, "depth": 1, "heads": 2, "patch": 2},
             "mmdit": {"width": 8, "depth": 1, "heads": 2, "patch": 2, "pooled": 8}}  # fmt: skip
    fitted = text.fitted(networks.build({"name": network, **sizes[network]}))
    made = text.around(networks[network]((2, 4, 4), None, classes, fitted.config))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval(), text


def batch(size=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 2, 4, 4, generator=generator), 900 * torch.rand(size, generator=generator)


def test_every_encoder_is_tried():
    assert set(ENCODERS) == set(text_encoders)


@pytest.mark.parametrize(
    ("encoder", "network"), [*((encoder, "latent_unet") for encoder in ENCODERS), ("t5", "dit"), ("clip", "mmdit")]
)
@torch.no_grad()
def test_words_matter_and_padding_does_not(own_tokenizer, encoder, network):
    made, text = make(own_tokenizer, encoder, network=network)
    x, level = batch()
    heart, house = (made(x, level, {"text": text.ids([words] * 3)}) for words in ("a red heart", "a house"))
    assert (heart - house).abs().amax() > 1e-4
    if not made.text.reads_padding:
        short = text.ids(["a red heart"] * 3, 8)
        torch.testing.assert_close(made(x, level, {"text": short}), heart, rtol=1e-5, atol=1e-5)
    mixed = text.ids(["a red heart", "a house", "a red heart"])
    torch.testing.assert_close(made(x, level, {"text": mixed})[1], house[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learned", [True, False])
@torch.no_grad()
def test_no_condition_is_the_empty_text_and_the_null_condition(own_tokenizer, learned):
    made, text = make(own_tokenizer, learned=learned)
    x, level = batch()
    bare = made(x, level)
    torch.testing.assert_close(made(x, level, {"text": text.ids([""] * 3)}), bare)
    torch.testing.assert_close(made(x, level, made.null_condition(3)), bare)
    torch.testing.assert_close(made(x, level, made.null_condition(3, torch.device("cpu"))), bare)
    made.train()
    torch.testing.assert_close(made(x, level, made.null_condition(3, torch.device("cpu"))), bare)
    torch.testing.assert_close(made(x, level, made.null_condition(3)), bare)
    torch.testing.assert_close(made(x, level, {}), bare)


@torch.no_grad()
def test_what_is_kept_of_the_empty_text_is_forgotten_with_the_weights(own_tokenizer):
    made, _ = make(own_tokenizer)
    x, level = batch()
    before, weights = made(x, level), {name: value + 0.1 for name, value in made.state_dict().items()}
    made.load_state_dict(weights)
    again, _ = make(own_tokenizer)
    again.load_state_dict(weights)
    assert not torch.allclose(made(x, level), before)
    torch.testing.assert_close(made(x, level), again(x, level))
    for parameter in made.parameters():
        parameter.mul_(1.1)
    made.eval()
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x, level), again(x, level))


def test_an_encoder_learns_or_stays(own_tokenizer):
    for learned in (True, False):
        made, text = make(own_tokenizer, learned=learned)
        made.train()
        made(*batch(), {"text": text.ids(["a red heart", "", "a house"])}).square().sum().backward()
        silent = [name for name, p in made.text.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == ([] if learned else [name for name, _ in made.text.named_parameters()])


@torch.no_grad()
def test_what_is_remembered_is_what_is_worked_out_each_time(own_tokenizer):
    made, text = make(own_tokenizer)
    x, level = batch()
    cond = {"text": text.ids(["a red heart", "", "a house"]), "label": torch.tensor([0, 3, 1])}
    kept = made.remember(cond)
    assert "text" not in kept
    torch.testing.assert_close(made(x, level, kept), made(x, level, cond), rtol=1e-5, atol=1e-5)
    calls = []
    made.text.register_forward_hook(lambda *_: calls.append(1))
    made(x, level, kept)
    assert not calls


@torch.no_grad()
def test_prompts_are_read_once_each_and_weights_pull(own_tokenizer):
    made, text = make(own_tokenizer)
    calls = []
    made.text.register_forward_hook(lambda *_: calls.append(1))
    states = PromptStates(text, made, ["a red heart", None, "a red heart", "a (red:1.5) heart", "a (red:0) heart"])
    assert len(calls) == 4 + 2  # four that differ, and the empty text beside each that has weights
    told = states.rows(0, 5)
    assert torch.equal(told["context"][0], told["context"][2])
    plain = made.states(text.ids(["a red heart", ""]))
    torch.testing.assert_close(told["context"][:2], plain["context"], rtol=1e-5, atol=1e-6)
    assert torch.equal(told["context_mask"][:2], plain["context_mask"])
    empty = plain["context"][1].sum(0) / plain["context_mask"][1].sum()
    red = (told["context"][3] - told["context"][0]).abs().sum(1) > 1e-6
    own = told["context"][0, red]
    torch.testing.assert_close(told["context"][3, red], empty + 1.5 * (own - empty), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["context"][4, red], empty.expand(int(red.sum()), -1), rtol=1e-4, atol=1e-5)
    assert 0 < int(red.sum()) < len(own_tokenizer.pieces("a red heart")[0])


@pytest.mark.parametrize("encoder", ["transformer", "clip"])
@torch.no_grad()
def test_a_long_prompt_is_read_in_parts_and_said(own_tokenizer, encoder):
    made, text = make(own_tokenizer, encoder)
    long = "a red heart " * 10
    told = PromptStates(text, made, ["a red heart", long]).rows(0, 2)
    parts = len(own_tokenizer.pieces(long)[0]) // 10 + 1
    assert told["context"].shape == (2, parts * 12, 8)
    assert told["context_mask"][0, 12:].all() == made.text.reads_padding
    x, level = batch(2)
    alone = made(x[:1], level[:1], PromptStates(text, made, ["a red heart"]).rows(0, 1))
    if encoder == "transformer":
        torch.testing.assert_close(made(x, level, told)[:1], alone, rtol=1e-4, atol=1e-5)
    (note,) = text.notes([long, long])
    size = len(own_tokenizer.pieces(long)[0]) + 2
    assert note.startswith(
        f"prompt: {size} tokens are more than the 12 that the encoder reads at once: it is read in {parts} parts"
    )
    assert note.endswith(f"make it {size - 12} tokens shorter, about as many short words, and it is read as one")


def test_words_that_no_caption_has_are_named_with_the_nearest(own_tokenizer):
    _, text = make(own_tokenizer, length=40)
    assert text.notes(["a red heart", None, ""]) == []
    unseen = "prompt: no caption that the model learned from has the word"
    for prompt, told in (
        ("a (harts:1.2) heat", "'harts', 'heat'; it knows 'heart'"),
        ("a (harts:1.2) zorblax", "'harts', 'zorblax'; it knows 'heart', and 5 words in all, such as 'heart'"),
        ("the zorblax", "'zorblax'; it knows 5 words, such as 'heart'"),
    ):
        assert text.notes([prompt]) == [f"{unseen} {told}"]
    few = replace(text, words=("a", "red"))
    assert few.notes(["the"]) == [f"{unseen} 'the'; it knows 2 words, such as 'a', 'red'"]


def test_networks_that_do_not_fit_are_refused(own_tokenizer):
    _, text = make(own_tokenizer)
    with pytest.raises(
        IncompatibleParts, match="network 'unet' takes no words: choose one that has an option `context`"
    ):
        text.around(networks["unet"]((2, 8, 8)))
    wide = networks.build({"name": "latent_unet", "context": 9})
    assert text.fitted(wide) == wide
    with pytest.raises(
        IncompatibleParts, match=r"network\.context: the text encoder gives states of 8 numbers, .* takes 9"
    ):
        text.around(networks["latent_unet"]((2, 8, 8), None, 0, wide.config))
    vector = text.fitted(networks.build({"name": "mmdit", "width": 8, "heads": 2, "depth": 1, "pooled": 7}))
    with pytest.raises(IncompatibleParts, match=r"network\.pooled: .* gives 8 numbers for a whole text, .* takes 7"):
        text.around(networks["mmdit"]((2, 8, 8), None, 0, vector.config))


@torch.no_grad()
def test_all_is_kept_as_tensors_and_comes_back(own_tokenizer, folders):
    made, text = make(own_tokenizer)
    network, encoder = apart(made.state_dict())
    assert together(encoder, network).keys() == made.state_dict().keys()
    kept = text.kept(encoder)
    again = TextConditioning.of(text.describe(), kept)
    assert again == text
    pretrained = read_encoder(folders["bert"][0])
    given = TextConditioning(pretrained.encoder, pretrained.tokenizer, False, (), pretrained.weights)
    assert all(
        torch.equal(value, given.untouched()[f"text.{name}"]) for name, value in given.build().state_dict().items()
    )
    assert TextConditioning.of(given.describe(), given.kept(pretrained.weights)) == given
    assert isinstance(given.encoder, Choice)
    assert isinstance(made, TextNetwork)
