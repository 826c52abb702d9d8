"""A causal language model of `transformers` with low-rank adapters (LoRA, Hu et al., arXiv 2106.09685, equation 3).

h = W x + (alpha / rank) B A x,  W pretrained, frozen and shared by all tasks, A and B in theta
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor, nn

from ..extras import require
from ..setting_types import Count, Rate
from ..types import Model, Params
from .from_module import from_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def causal_lm(*, inputs: tuple[int, ...], outputs: int, base: str, rank: Count = 4, alpha: Rate = 8.0) -> Model:
    """A pretrained causal language model with LoRA: symbols int64 [n, length] -> logits [n, length, vocabulary].

    All linear layers except the head get an adapter. The pretrained weights are frozen: held once for all tasks,
    outside theta.

    Args:
        inputs: the shape of a passage, (length,).
        outputs: the number of symbols in the data, at most the model's vocabulary.
        base: a folder that `transformers` reads, such as ``save_pretrained`` writes. Nothing is downloaded.
        rank: the rank of each adapter.
        alpha: adapters are multiplied by ``alpha / rank``.

    Returns:
        A model with the adapters as parameters: A random, B zero. So it begins as the pretrained model.

    Raises:
        Error: transformers or peft is not installed.
        ValueError: there is no such folder, or it holds no causal language model, or the model's vocabulary or context
            is too small for the data.
    """
    require("model.name = causal_lm", "language", "transformers", "peft")
    # on the CPU even if the caller needs only shapes, because the pretrained weights are always read
    with torch.device("cpu"), quietly():
        language_model = read_language_model(base)
        check_reads(language_model, base, inputs, outputs)
        module = with_adapters(language_model, rank, alpha)
    model = from_module(module)

    def init(generator: Generator) -> Params:
        params = model.init(generator)
        return {name: value if ".lora_B." in name else drawn_like(value, generator) for name, value in params.items()}

    return Model(init, model.apply)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the progress bars and warnings of both libraries: no user could act on them."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Logits(nn.Module):
    """The language model as a map from symbols to logits."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, symbols: Tensor) -> Tensor:
        """Symbols int64 [n, length] -> logits [n, length, vocabulary]."""
        mask = torch.ones_like(symbols)  # without a mask transformers waits for positions from the GPU in each call
        return self.language_model(input_ids=symbols, attention_mask=mask, use_cache=False).logits


def read_language_model(base: str) -> "PreTrainedModel":
    """The model in the folder; ValueError if there is none."""
    from transformers import AutoModelForCausalLM

    if not Path(base).is_dir():
        raise ValueError(
            f"base = {base}: no such folder; give one that transformers' save_pretrained wrote, or train a small one: "
            f"python -m fmaml.recipes.language_base --out {base}"
        )
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, local_files_only=True, use_safetensors=True, attn_implementation="eager", dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"base = {base}: holds no causal language model that transformers can read: {reason}"
        ) from None
    return model.eval()


def check_reads(language_model: "PreTrainedModel", base: str, inputs: tuple[int, ...], outputs: int) -> None:
    """ValueError unless the model reads passages of this shape and has at least ``outputs`` symbols."""
    if len(inputs) != 1:
        raise ValueError(f"inputs = {inputs}: needs passages of symbols, (length,); use conv4 or mlp")
    config: Any = language_model.config
    context: int = getattr(config, "max_position_embeddings", inputs[0])
    if config.vocab_size < outputs:
        raise ValueError(
            f"base = {base}: has {config.vocab_size} symbols, the data {outputs}; "
            f"for a base with its own tokenizer give data.tokenizer={base}"
        )
    if context < inputs[0]:
        raise ValueError(f"base = {base}: has a context of {context} symbols, a passage has {inputs[0]}; give fewer")


def with_adapters(language_model: "PreTrainedModel", rank: int, alpha: float) -> nn.Module:
    """The model with an adapter for every linear layer except the head; all other parameters are frozen."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=rank, lora_alpha=cast(Any, alpha), target_modules="all-linear", task_type="CAUSAL_LM")
    return Logits(get_peft_model(language_model, settings).eval())


def drawn_like(value: Tensor, generator: Generator) -> Tensor:
    """Random numbers of the same shape, normal with variance 1 / fan_in."""
    if torch.get_default_device().type == "meta":
        return torch.empty_like(value, device="meta")
    return torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
