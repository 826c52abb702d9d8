"""`fmaml export`: write a network as a file that runs without fmaml.

ONNX runs in any ONNX runtime, `torch.export` in torch alone. The batch size is free. The exported network is compared
with the original before it is written.
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
    """Export a network as ``to``, check it, and write it atomically.

    Raises RunFailed if the outputs of the exported network differ by more than 1e-5 of their magnitude.
    """
    encode, decode = FORMATS[to]
    with quiet():
        content = encode(exportable)
        check_outputs(decode(content), exportable, to)
    write_durably(path, content)


def check_outputs(run: Run, exportable: Exportable, to: str) -> None:
    """Raise RunFailed if the exported network gives other outputs, on random inputs of some batch sizes.

    Probabilities are compared with those of the exported logits, because float32 rounds large logits by more than 1e-5.
    """
    network = exportable.network
    for n in CHECKED_BATCHES:
        x = example(exportable.blueprint, n)
        found, (own, output) = run(x), next(iter(network(x).items()))
        for name, wanted in (network.named(found[own]) | {own: output}).items():
            error, most = float((found[name] - wanted).abs().max()), TOLERANCE * max(1.0, float(wanted.abs().max()))
            if not error <= most:
                raise RunFailed(
                    f"--to {to}: {name} of {n} examples are off by {error:.1e}, more than {most:.1e}. Nothing was "
                    "written; export to the other format"
                )


def traced(exportable: Exportable) -> torch.export.ExportedProgram:
    """Trace the network on a batch of any size, without the paths of this machine's source files."""
    batch = {INPUT: {0: torch.export.Dim(BATCH)}}
    program = torch.export.export(exportable.network, (example(exportable.blueprint, 2),), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def encode_torch(exportable: Exportable) -> bytes:
    """Encode by `torch.export.save`, with the metadata in its extra files."""
    buffer = io.BytesIO()
    torch.export.save(traced(exportable), buffer, extra_files=dict(exportable.metadata))
    return buffer.getvalue()


def decode_torch(content: bytes) -> Run:
    """Load the network from the bytes of `encode_torch`."""
    return torch.export.load(io.BytesIO(content)).module()


def encode_onnx(exportable: Exportable) -> bytes:
    """Encode as an ONNX model, with the metadata in its metadata_props."""
    names = list(exportable.network(example(exportable.blueprint, 2)))
    program = torch.onnx.export(traced(exportable), input_names=[INPUT], output_names=names, verbose=False)
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # traces of torch's exporter
    for key, text in exportable.metadata.items():
        model.metadata_props.add(key=key, value=text)
    name_batch(model)
    return model.SerializeToString()


def name_batch(model: Any) -> None:
    """Name the free axis of an ONNX model's inputs and outputs."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


def decode_onnx(content: bytes) -> Run:
    """Load the network from the bytes of an ONNX model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(x: Tensor) -> Outputs:
        arrays = session.run(names, {INPUT: x.numpy()})
        return {name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)}

    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' messages for their own developers."""
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
