"""The section of a recipe that says how a model understands words, and how it is settled by the captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..conditioning.text.base import TextEncoder, text_encoders
from ..conditioning.text.conditioning import TextConditioning, encoder_of
from ..conditioning.text.folder import PretrainedEncoder, read_encoder
from ..conditioning.text.tokenizer import learn_tokenizer, words_of
from ..data.base import AnyDataset, Dataset
from ..errors import BadOption, DataError, ModelFolderError
from ..files import cache_folder
from ..model_folder import MODEL_FILE, model_place, read_description, read_parts
from ..options import Checked, option
from ..registry import Choice, Registry
from ..training.caption_store import CaptionStore
from ..training.captions import Captions, lines

MOST_CAPTIONS = 10_000
"""Captions that are looked at of data that is not in memory."""
SHORTEN = "shorten such captions, for this encoder cannot read more"
"""What helps where captions are longer than all that an encoder learned to read."""


class _AutoEncoders(Registry[TextEncoder]):
    """The text encoders, and "auto": a small one of our own, or the one at a path."""

    def build(self, spec: Any, where: str = "") -> Any:
        """None for "auto"; see `Registry.build`."""
        return None if spec in ("auto", None) else text_encoders.build(spec, where)

    def describe(self, part: Any) -> Any:
        """See `Registry.describe`."""
        return "auto" if part is None else text_encoders.describe(part)


@dataclass(frozen=True)
class TextSettings(Checked):
    """How a model understands words."""

    encoder: Choice | None = option(
        None,
        help="a text encoder that learns from nothing: see `unnoise list text-encoders`",
        one_of=_AutoEncoders("text encoder"),
    )
    path: str = option(
        "",
        help="a folder with a text encoder and its tokenizer: Hugging Face's CLIP, T5 or BERT's kin (others by "
        "the extra transformers); or a run with words",
    )
    length: int = option(
        0,
        help="tokens that the encoder at the path reads at once; 0: as in its run, or of others 77, or as many as they can",
        low=0,
    )
    learned: bool | Literal["auto"] = option(
        "auto", help="whether the encoder learns with the denoiser; auto: unless it comes from a path"
    )
    first: float = option(
        0.5,
        help="of pictures with several captions, how often the first is taken; the others share the rest",
        low=0,
        high=1,
    )
    apart: float = option(
        0.1, help="share of samples with a label and a caption that are trained with only one of them", low=0, high=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path and self.encoder is not None:
            raise BadOption("encoder: give one that learns from nothing, or the path of one, and not both")
        if not self.path and (self.length or self.learned is False):
            name = "length" if self.length else "learned"
            remedy = "say encoder.length" if self.length else "an encoder that nobody taught must learn"
            raise BadOption(f"{name}: is about an encoder at a path: {remedy}, or give a path")


@dataclass(frozen=True)
class ConditioningSettings(Checked):
    """What a model can be asked for beside the labels of its data."""

    text: TextSettings | None = option(None, help="words: the captions of the data; nothing of them is learned without")
    boxes: bool = option(False, help="boxes: where the data says that things stand")
    map: Literal["none", "area", "nearest"] = option(
        "none",
        help="label maps of the data, and how they come to the size of what the model works on: shares of a cell, or its middle",
    )


@dataclass(frozen=True)
class Words:
    """How a model will understand words, and what was noticed.

    Args:
        text: Of the model; None without words.
        captions: How captions are drawn while it is trained; None where they are not.
        notes: Lines for people.
    """

    text: TextConditioning | None = None
    captions: Captions | None = None
    notes: tuple[str, ...] = ()


def settled_words(
    settings: ConditioningSettings,
    train: AnyDataset,
    path: str,
    known: TextConditioning | None = None,
    section: str = "conditioning.text",
) -> Words:
    """How a model will understand words, settled by the captions of its data.

    Args:
        settings: Of the recipe.
        train: The training data.
        path: Where it lies, for messages.
        known: How the model that the run starts from understands them.
        section: Of the recipe, for messages.

    Raises:
        DataError: The data has no captions, or not for all samples, or there is no encoder at the path.
        BadOption: The encoder at the path cannot read so many tokens.
        MissingExtra: The `tokenizers` library is not installed.
    """
    if settings.text is None:
        return Words(known)
    whole = train.part(MOST_CAPTIONS)
    captions = [line for text in _captions_of(train, whole, path, section) for line in lines(text)]
    text, remedy = (known, SHORTEN) if known is not None else _understanding(settings.text, captions, section)
    length = text.length
    if whole is train and not text_encoders[text.encoder.name].reads_padding:  # then the longest is known
        length = min(length, -(-max(map(text.size, captions)) // 8) * 8)
    store = None if text.learned else CaptionStore(captions if whole is train else (), cache_folder() / "captions")
    drawn = Captions(text, settings.text.first, settings.text.apart, length, store)
    cut = text.too_long(captions)
    notes = [f"captions: {cut}, and what comes after is not learned: {remedy}"] if cut else []
    return Words(text, drawn, (*_overruled(settings.text, known, section), *notes))


def _overruled(settings: TextSettings, known: TextConditioning | None, section: str) -> Iterator[str]:
    """What is told where a recipe asks for another encoder than that of the model that its run starts from."""
    if known is None:
        return
    asked, there = settings.encoder, known.encoder
    other = asked is not None and (
        asked.name != there.name or replace(asked.config, vocabulary=there.config.vocabulary) != there.config
    )
    if settings.path or other:
        name = "path" if settings.path else "encoder"
        yield f"words: the model that the run starts from keeps its own encoder: {section}.{name} is not looked at"


def captions_again(settings: ConditioningSettings, text: TextConditioning | None) -> Captions | None:
    """How the captions of a run are drawn, once its model stands; None without words.

    Args:
        settings: Of the run's recipe.
        text: How the model understands words.
    """
    if settings.text is None or text is None:
        return None
    store = None if text.learned else CaptionStore()
    return Captions(text, settings.text.first, settings.text.apart, text.length, store)


def _understanding(settings: TextSettings, captions: Sequence[str], section: str) -> tuple[TextConditioning, str]:
    """How a model will understand words, and what helps where captions are longer than what it reads."""
    words = words_of(captions)
    if settings.path:
        found = _trained_here(settings.path, settings.length, section)
        if found is None:
            found = read_encoder(settings.path, settings.length, section)
        remedy = f"raise {section}.length" if found.most is None or found.length < found.most else SHORTEN
        text = TextConditioning(found.encoder, found.tokenizer, settings.learned is True, words, found.weights)
        return text, remedy
    choice = settings.encoder or text_encoders.build("transformer")
    tokenizer = learn_tokenizer(captions, choice.config.vocabulary)
    fitted = replace(choice, config=replace(choice.config, vocabulary=tokenizer.size))
    return TextConditioning(fitted, tokenizer, True, words), f"raise {section}.encoder.length"


def _trained_here(path: str, length: int, section: str) -> PretrainedEncoder | None:
    """The encoder of a CLIP or a diffusion model that unnoise trained, with its weights; None where no such model stands there.

    Raises:
        ModelFolderError: The model understands no words, or is damaged.
        BadOption: The encoder cannot read so many tokens, or so few.
    """
    place = Path(path).expanduser()
    if not any((each / MODEL_FILE).is_file() for each in (place, place / "model")):
        return None
    folder = model_place(place)
    described = read_description(folder)
    values = described.get("text") or (described.get("conditioning") or {}).get("text")
    parts = read_parts(folder, described)
    if values is None or "text" not in parts:
        raise ModelFolderError(
            f"the model at {path} understands no words: give a CLIP, or a model that learned captions"
        )
    text, weights = TextConditioning.of(values, parts["text"]), encoder_of(parts["text"])
    most = text.length if "positions" in weights else None
    found = PretrainedEncoder(text.encoder, text.tokenizer, weights, most)
    return found.reading(length or text.length, f"{section}.length: the encoder at {path}")


def _captions_of(train: AnyDataset, part: Dataset, path: str, section: str) -> Sequence[str]:
    if part.texts is None:
        why = next((line for line in train.skipped if line.startswith("captions: ")), None)
        told = why.removeprefix("captions: ") if why else "no sample has one"
        raise DataError(
            f"{section}: {path} has no captions to learn from ({told}): give every picture a caption (a .txt of "
            f"its name, a metadata.jsonl, or a text column), or leave {section} out"
        )
    if blank := sum(not text.strip() for text in part.texts):
        first = next(i for i, text in enumerate(part.texts) if not text.strip())
        raise DataError(
            f"{section}: {blank:,} of the {len(part.texts):,} captions of {path} are empty, e.g. that of sample "
            f"{first} of those that are looked at: write them, or leave these samples out"
        )
    return part.texts
