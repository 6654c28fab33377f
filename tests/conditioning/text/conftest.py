"""Small encoders of other people's kinds, made here, in folders as they publish them."""

import pytest

CAPTIONS = [
    "a red heart", "a blue heart", "grinning face with big eyes", "the face of a mouse", "a red apple", "two green apples",
    "a house by the sea", "musical notes", "the red flag of a far country", "a mobile phone that is off", "waving hand",
]  # fmt: skip


@pytest.fixture(scope="session")
def own_tokenizer():
    """Byte pairs of a few captions."""
    from unnoise.conditioning.text.tokenizer import learn_tokenizer

    return learn_tokenizer(CAPTIONS, 320)


def word_pieces():
    """A tokenizer as BERT has one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [f"{mark}{chr(97 + i)}" for i in range(26) for mark in ("", "##")]
    names = [*special, *letters, "red", "heart", "face", "the", "of"]
    pieces = {piece: i for i, piece in enumerate(names)}
    inner = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return inner


@pytest.fixture(scope="session")
def folders(tmp_path_factory, own_tokenizer):
    """One folder for each kind of encoder, by its name, and the model of `transformers` that it was saved from."""
    import torch
    import transformers

    torch.manual_seed(0)
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    sizes = {"vocab_size": 400, "max_position_embeddings": 20}
    clip_config = transformers.CLIPTextConfig(
        **small, **sizes, projection_dim=12, bos_token_id=1, eos_token_id=3, pad_token_id=0
    )
    t5 = {"vocab_size": 400, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 3,
          "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "n_positions": 40}  # fmt: skip
    whole = transformers.CLIPConfig(
        text_config=clip_config.to_dict(), projection_dim=12,
        vision_config={**small, "image_size": 8, "patch_size": 4, "projection_dim": 12},
    )  # fmt: skip
    models = {
        "clip": transformers.CLIPTextModelWithProjection(clip_config),
        "clip without projection": transformers.CLIPTextModel(clip_config),
        "clip whole": transformers.CLIPModel(whole),
        "t5": transformers.T5EncoderModel(transformers.T5Config(**t5)),
        "t5 gated": transformers.T5EncoderModel(transformers.T5Config(**t5, feed_forward_proj="gated-gelu")),
        "bert": transformers.BertModel(transformers.BertConfig(**small, **sizes)),
        "roberta": transformers.RobertaModel(transformers.RobertaConfig(**small, **sizes, pad_token_id=1)),
        "distilbert": transformers.DistilBertModel(
            transformers.DistilBertConfig(
                vocab_size=400, max_position_embeddings=20, dim=16, n_layers=2, n_heads=2, hidden_dim=24
            )
        ),
    }
    made = {}
    for name, model in models.items():
        folder = tmp_path_factory.mktemp("encoders") / name.replace(" ", "-")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.eval().save_pretrained(folder)
        if "bert" in name:
            word_pieces().save(str(folder / "tokenizer.json"))
        else:
            (folder / "tokenizer.json").write_text(own_tokenizer.content)
        made[name] = folder, model
    return made
