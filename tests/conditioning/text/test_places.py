import pytest
import torch

from unnoise.conditioning.text.base import text_encoders
from unnoise.conditioning.text.conditioning import PromptStates, TextConditioning
from unnoise.conditioning.text.places import word_places
from unnoise.nn.latent_unet import LatentUNet, LatentUNetConfig


@pytest.fixture
def text(own_tokenizer):
    encoder = text_encoders.build(
        {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "length": 8, "vocabulary": own_tokenizer.size}
    )
    return TextConditioning(encoder, own_tokenizer)


def test_the_tokens_of_a_word_spell_it(text):
    tokens = text.ids(["grinning face with eyes"], length=60)[0]
    long = TextConditioning(text_encoders.build({**text_encoders.describe(text.encoder), "length": 60}), text.tokenizer)
    for word, places in word_places(long, "grinning (face:1.4) with eyes"):
        spelled = text.tokenizer._inner.decode([int(tokens[i]) for i in places])
        assert spelled.strip() == word


def test_every_token_of_a_long_prompt_belongs_to_one_word_and_is_where_the_network_is_told_of_it(text):
    prompt = "a red heart the face of a mouse and two green apples by the sea"
    places = [place for _, some in word_places(text, prompt) for place in some]
    assert len(set(places)) == len(places) == len(text.tokenizer.pieces(prompt)[0])
    network = text.around(
        LatentUNet((3, 8, 8), config=LatentUNetConfig(width=8, multipliers=(1,), attention=(0,), context=16))
    )
    told = PromptStates(text, network, [prompt])
    mask = told.rows(0, 1)["context_mask"][0]
    before, after = text.tokenizer.frame
    framed = (len(before) + len(after)) * len(mask) // text.length
    assert mask[torch.tensor(places)].all()
    assert int(mask.sum()) == len(places) + framed


def test_words_are_those_that_a_person_wrote(text):
    assert [word for word, _ in word_places(text, "a (red heart:1.3), please")] == ["a", "red", "heart,", "please"]
