"""A meta-trained language model that reads a text and goes on learning from it, in constant memory."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.checkpoint_format import flatten
from ..errors import Error
from ..files.plain_text import printable
from ..losses import bits
from ..types import Batch, Params
from .blueprint import Blueprint, fill_theta
from .model_file import Metadata, read_model, write_model

TRAINED = ("data", "model", "algorithm")  # settings of chunks, and of how they are learnt


class Reader:
    """Predicts each chunk of a text, then learns it, as in training; see `Learner.stream`.

    Chunks have the size of those in training. Bytes wait until their chunk is complete. So the same text gives the same
    numbers, however it is cut into calls.
    """

    def __init__(self, metadata: Metadata, blueprint: Blueprint, params: Params) -> None:
        """Error if the model was not trained on streams of bytes."""
        data, algorithm = metadata["config"]["data"], blueprint.algorithm
        name = printable(str(metadata.get("name")), kept="")
        if algorithm["name"] != "streamed" or blueprint.targets != "symbols" or data.get("tokenizer"):
            raise Error(f"{name}: was not trained on streams of bytes; train such a model with `fmaml run stream`")
        if algorithm["inner"] != "sgd" or not algorithm["chunks"]:
            raise Error(f"{name}: stream needs algorithm.inner = sgd and one chunk or more; train with these")
        self.metadata, self.template = metadata, blueprint.template(blueprint.outputs)
        self.network = replace(blueprint, algorithm={**algorithm, "chunks": 1}).build(blueprint.outputs)
        self.length: int = blueprint.inputs[0]
        self.chunk_bytes: int = data["shots"] // algorithm["chunks"] * self.length
        self.params = params
        self.pending = b""
        self.chunks_read = 0

    def read(self, text: str | bytes | bytearray) -> list[float]:
        """Read more text: the bits per byte of each chunk that it completes, predicted before it is learnt."""
        self.pending += as_bytes(text)
        found: list[float] = []
        while len(self.pending) > self.chunk_bytes:  # one byte more, which is the last to predict
            found.append(self._learn(self.pending[: self.chunk_bytes + 1]))
            self.pending = self.pending[self.chunk_bytes :]
        return found

    @torch.no_grad()
    def _learn(self, text: bytes) -> float:
        symbols = torch.tensor(list(text))
        chunk = Batch(*(part.view(-1, self.length) for part in (symbols[:-1], symbols[1:])))
        before = float(bits(self.network.model.apply(self.params, chunk.x), chunk.y))
        params = self.network.algorithm.adapt(self.params, chunk)
        if not all(bool(p.isfinite().all()) for p in params.values()):
            raise ValueError(f"stream: the parameters diverge at chunk {self.chunks_read}; train with a lower inner_lr")
        self.params, self.chunks_read = params, self.chunks_read + 1
        return before

    @torch.no_grad()
    def next_byte(self) -> Tensor:
        """The probability of each next byte, [256], after the bytes of the current passage; ValueError before any."""
        if not self.pending:
            raise ValueError("next_byte: nothing was read yet; read a text first")
        passage = self.pending[(len(self.pending) - 1) // self.length * self.length :]
        return self.network.model.apply(self.params, torch.tensor([list(passage)]))[0, -1].softmax(-1)

    def save(self, path: str | Path) -> None:
        """Write the state as one file, which `Learner.stream` continues; Error if the file cannot be written."""
        state = {"kind": "stream", "pending": self.pending.hex(), "chunks_read": self.chunks_read}
        try:
            write_model(Path(path), flatten(self.params), {**self.metadata, **state})
        except OSError as error:
            raise Error(f"{path}: {error.strerror}; name a file that can be written") from None

    def resume(self, path: Path) -> None:
        """Continue from a saved state; Error if the file holds none, or one of a model trained in another way."""
        tensors, metadata = read_model(path)
        pending, count = (metadata or {}).get("pending"), (metadata or {}).get("chunks_read")
        if not isinstance(pending, str) or type(count) is not int or len(pending) > 2 * self.chunk_bytes:
            raise Error(f"{path}: not the state of a stream; name a file that its `save` has written")
        if any((metadata or {}).get("config", {}).get(key) != self.metadata["config"][key] for key in TRAINED):
            raise Error(f"{path}: the state of another model; load the model that has read this text")
        try:
            self.pending = bytes.fromhex(pending)
        except ValueError:
            raise Error(f"{path}: damaged (pending); name another file") from None
        self.params, self.chunks_read = fill_theta(self.template, tensors, str(path)), count


def as_bytes(text: str | bytes | bytearray) -> bytes | bytearray:
    """The text in UTF-8; TypeError or ValueError if it has none."""
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"read: text is of type {type(text).__name__}; give a string or bytes")
    try:
        return text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        found = f"character {error.start}, {error.object[error.start]!r}, is half of a pair, which UTF-8 lacks"
        raise ValueError(f"read: {found}; give the bytes of the text") from None
