"""`fmaml export`: a network as a file that runs without fmaml.

ONNX for any runtime of it, or `torch.export` for torch alone. The batch size is free. The bytes are compared with the
network itself before they are written.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import RunFailed
from ..files.atomic import write_durably
from .standalone import Exportable, Outputs, example

Format: TypeAlias = Literal["onnx", "torch"]
Run: TypeAlias = Callable[[Tensor], Outputs]

CHECKED_BATCHES = (1, 3, 17)
TOLERANCE = 1e-5  # of the outputs' largest magnitude, or of 1 if that is less
INPUT, BATCH = "x", "n"


@torch.no_grad()
def write_export(path: Path, exportable: Exportable, to: Format) -> None:
    """Write a network as ``to``, checked, whole or not at all.

    Raises RunFailed if the outputs of what was exported differ from the network's by more than 1e-5 of their magnitude.
    """
    encode, decode = FORMATS[to]
    with quiet():
        content = encode(exportable)
        check_outputs(decode(content), exportable, to)
    write_durably(path, content)


def check_outputs(run: Run, exportable: Exportable, to: str) -> None:
    """RunFailed if what was exported gives other outputs than the network, on random inputs of some batch sizes.

    Probabilities are compared with those of the exported logits: float32 rounds a large logit by more than 1e-5.
    """
    network = exportable.network
    for n in CHECKED_BATCHES:
        x = example(exportable.blueprint, n)
        found, (own, output) = run(x), next(iter(network(x).items()))
        for name, wanted in (network.named(found[own]) | {own: output}).items():
            error, most = float((found[name] - wanted).abs().max()), TOLERANCE * max(1.0, float(wanted.abs().max()))
            if not error <= most:
                raise RunFailed(
                    f"--to {to}: {name} of {n} examples are off by {error:.1e}, more than {most:.1e}; nothing was "
                    "written; export to the other format"
                )


def traced(exportable: Exportable) -> torch.export.ExportedProgram:
    """The network's operations on a batch of any size, without the paths of this machine's source files."""
    batch = {INPUT: {0: torch.export.Dim(BATCH)}}
    program = torch.export.export(exportable.network, (example(exportable.blueprint, 2),), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def encode_torch(exportable: Exportable) -> bytes:
    """The bytes of `torch.export.save`, with the metadata in its extra files."""
    buffer = io.BytesIO()
    torch.export.save(traced(exportable), buffer, extra_files=dict(exportable.metadata))
    return buffer.getvalue()


def decode_torch(content: bytes) -> Run:
    """The network in bytes that were just made."""
    return torch.export.load(io.BytesIO(content)).module()


def encode_onnx(exportable: Exportable) -> bytes:
    """The bytes of an ONNX model with the metadata in its metadata_props."""
    names = list(exportable.network(example(exportable.blueprint, 2)))
    program = torch.onnx.export(traced(exportable), input_names=[INPUT], output_names=names, verbose=False)
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # how torch came to each of them
    for key, text in exportable.metadata.items():
        model.metadata_props.add(key=key, value=text)
    name_batch(model)
    return model.SerializeToString()


def name_batch(model: Any) -> None:
    """Call the free axis of an ONNX model's inputs and outputs by its name."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


def decode_onnx(content: bytes) -> Run:
    """The network in the bytes of an ONNX model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(x: Tensor) -> Outputs:
        arrays = session.run(names, {INPUT: x.numpy()})
        return {name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)}

    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say to their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: dict[Format, tuple[Callable[[Exportable], bytes], Callable[[bytes], Run]]] = {
    "onnx": (encode_onnx, decode_onnx),
    "torch": (encode_torch, decode_torch),
}
