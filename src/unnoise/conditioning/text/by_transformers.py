"""Text encoders of kinds that have no module here, computed by the library transformers, where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import BadOption, DataError, MissingExtra
from ...options import option
from .base import TextEncoder, text_encoders

_NOT_ABOUT_NUMBERS = {
    "architectures", "attn_implementation", "auto_map", "dtype", "experts_implementation", "output_attentions",
    "output_hidden_states", "quantization_config", "return_dict", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
"""Settings that name code, or how a model is run; whoever wrote a folder has no say in that."""


@dataclass(frozen=True)
class ByTransformersConfig:
    """Which encoder of transformers; all of it is read from its folder."""

    settings: str = option(help="the config.json of the encoder")
    width: int = option(help="numbers of a token's state", low=1)
    vocabulary: int = option(help="most tokens", low=1)
    length: int = option(77, help="tokens that are read at once", low=4, high=4096)
    heads: int = option(1, help="always 1 here: the settings say how many there are", low=1, high=1)


@text_encoders.register("transformers")
class ByTransformers(TextEncoder):
    """A model of the library transformers, of any kind that gives a state for every token; of two halves, the encoder.

    Its config and weights stand in a model's folder as those of every encoder do, but its code is that of the library that is
    installed: another version of it may compute other numbers, or call weights otherwise. No code of a folder is run.

    Raises:
        MissingExtra: transformers is not installed.
        DataError: It does not know such a model.
    """

    Config = ByTransformersConfig
    heads_divide = False

    def __init__(self, config: ByTransformersConfig) -> None:
        super().__init__(config)
        self.width = config.width
        self.inner = _encoder(_whole(json.loads(config.settings)))

    @classmethod
    def config_of(cls, settings: dict[str, Any]) -> Any:
        """See `TextEncoder.config_of`; not known without the weights, see `read`."""
        raise ValueError("the settings of such an encoder are read together with its weights")

    def train(self, mode: bool = True) -> ByTransformers:
        """As of any module; what is inside never drops anything, since what the library drops depends on no seed of a run."""
        super().train(mode)
        self.inner.eval()
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `TextEncoder.forward`."""
        states: Tensor = self.inner(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states


def read(settings: dict[str, Any], weights: Mapping[str, Tensor], folder: Path, length: int) -> ByTransformers:
    """The encoder that a folder holds, with its weights.

    Args:
        settings: Of its config.json.
        weights: All that stand in its files, by the names there.
        folder: For messages.
        length: Tokens that are to be read at once.

    Raises:
        MissingExtra: transformers is not installed.
        DataError: The library does not know such a model, weights are missing, or it gives no state for every token.
        BadOption: It cannot read so many tokens.
    """
    plain = _about_numbers(settings)
    try:
        with torch.device("meta"):
            cls = type(_whole(plain))
        with _silence():
            whole, info = cls.from_pretrained(
                None, config=_config(plain), state_dict=dict(weights), output_loading_info=True, dtype=torch.float32
            )
    except DataError as error:
        raise DataError(f"{folder / 'config.json'}: {error}") from None
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"transformers cannot put the weights in {folder} together: {_line(error)}") from None
    inner = _encoder(whole)
    _check_whole(whole, inner, info["missing_keys"], folder)
    made = _probed(inner, folder, length)
    encoder = ByTransformers(
        ByTransformersConfig(
            json.dumps(plain, sort_keys=True), made.shape[2], len(inner.get_input_embeddings().weight), length
        )
    )
    encoder.inner = inner
    return encoder


def _about_numbers(settings: Any) -> Any:
    """Settings without those that name code or say how a model is run, at any depth."""
    if isinstance(settings, list):
        return [_about_numbers(each) for each in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        name: _about_numbers(value)
        for name, value in settings.items()
        if name not in _NOT_ABOUT_NUMBERS and not name.startswith("_")
    }


def _library(kind: Any) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f"a text encoder of type {kind!r}", "transformers", "transformers") from None
    return transformers


def _config(settings: dict[str, Any]) -> Any:
    kind = settings.get("model_type")
    library = _library(kind)
    more = {name: value for name, value in settings.items() if name != "model_type"}
    try:
        return library.AutoConfig.for_model(kind, **more)
    except Exception as error:  # what the checks of its configs raise has no common root
        told = f"transformers {library.__version__}: {_line(error)}"
        raise DataError(f"no text encoder of type {kind!r} can be made by {told}") from None


def _whole(settings: dict[str, Any]) -> Any:
    """A model with fresh weights, both halves of it where it has two."""
    config = _config(settings)
    try:
        return _library(config.model_type).AutoModel.from_config(config, trust_remote_code=False)
    except (ValueError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"no text encoder of type {config.model_type!r} can be made: {_line(error)}") from None


def _encoder(whole: Any) -> Any:
    inner = whole.get_encoder() if whole.config.is_encoder_decoder else whole
    if hasattr(inner.config, "use_cache"):
        inner.config.use_cache = False  # a text is read once
    return inner.eval()


def _check_whole(whole: nn.Module, inner: nn.Module, missing: Any, folder: Path) -> None:
    """Refuses an encoder that lacks weights; those that only sum up a whole text are not used, and become zero."""
    own = {id(weight) for weight in inner.parameters()}
    for name, weight in whole.named_parameters():
        if name in missing and id(weight) in own:
            if "pooler" not in name:
                raise DataError(
                    f"{folder} lacks the weights {name!r} of the text encoder that its config.json describes"
                )
            nn.init.zeros_(weight)


@torch.no_grad()
def _probed(inner: Any, folder: Path, length: int) -> Tensor:
    """The states of a text as long as the encoder is to read."""
    ids = torch.zeros(1, length, dtype=torch.int64)
    try:
        states = inner(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except (IndexError, RuntimeError) as error:
        raise BadOption(
            f"conditioning.text.length: the encoder at {folder} cannot read {length} tokens at once: {_line(error)}"
        ) from None
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the model at {folder} gives no state for every token of a text: {_line(error)}") from None
    if not isinstance(states, Tensor) or states.shape[:2] != ids.shape or states.ndim != 3:
        raise DataError(f"the model at {folder} gives no state for every token of a text")
    return states


@contextmanager
def _silence() -> Iterator[None]:
    """Without the library's report of what it loads, which is checked here."""
    log = _library("").utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
