"""Rewrite YuNet's model file so that the network runs faster.

YuNet has twelve heads: on each of its three grids one each for faces, objects, boxes and landmarks.
A head is a 1x1 convolution followed by a depthwise 3x3 convolution, and all heads of a grid read
the same tensor. Here the four heads of a grid are fused into one with sixteen channels: the same
sums in a seventh less time. Decoding the outputs is in `yunet`.

opencv_zoo's file also declares an input of 640x640 px. OpenCV ignores that, ONNX Runtime enforces
it; the rewritten file accepts any size that is a multiple of 32.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imgassets.errors import ModelError
from imgassets.folders import models_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import GraphProto, NodeProto, TensorProto

STRIDES = (8, 16, 32)
"""Strides of the three grids: pixels of the input between two cells."""
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""The heads of a grid, by OpenCV's names, and the number of channels of each."""

_VERSION = 1  # of the rewritten file; increase with each change, so that cached files are replaced


def load_fused_model(model: Path) -> bytes:
    """Read the rewritten file from the cache, or create it.

    It is cached in the models folder, because importing `onnx` is slow.

    Args:
        model: opencv_zoo's model file.

    Raises:
        ModelError: The file cannot be read, or is not a YuNet model.
    """
    try:
        source = model.read_bytes()
        return _read_cache(source) or _write_cache(fuse_heads(source), source)
    except OSError as error:
        why = str(error.strerror)
    except ValueError as error:
        why = str(error)
    raise ModelError(
        f"the face model {model} cannot be loaded: {why}; set faces.model_source to opencv_zoo's "
        "face_detection_yunet_2023mar.onnx, or to package"
    )


def fuse_heads(source: bytes) -> bytes:
    """Rewrite YuNet (Wu et al., Machine Intelligence Research 2023; opencv_zoo's 2023mar).

    Args:
        source: The content of the model file, with twelve outputs.

    Returns:
        A model file with the same input, but any height and width that are multiples of 32, and
        one output per grid: 1 x 16 x rows x columns. The channels are those of `HEADS` in their
        order; the first two are logits, before the sigmoid.

    Raises:
        ValueError: The file is not a YuNet model; the message says what is missing.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(source)
    except DecodeError:
        raise ValueError("it is not an ONNX file") from None
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    names = [_append_fused_head(graph, stride, producers, weights) for stride in STRIDES]
    del graph.output[:]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, None, None, None])
        for name in names
    )
    del graph.value_info[:]  # tensor sizes for an input of 640x640 px
    _, _, height, width = graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    slim = onnx.utils.Extractor(model).extract_model([graph.input[0].name], names)
    rewritten: bytes = slim.SerializeToString()
    return rewritten


def _append_fused_head(
    graph: GraphProto,
    stride: int,
    producers: Mapping[str, NodeProto],
    weights: Mapping[str, TensorProto],
) -> str:
    """Add the two fused convolutions of a grid to the graph.

    Args:
        graph: The network; nodes and weights are added to it.
        stride: The stride of the grid, in pixels.
        producers: The original nodes, by the names of their outputs.
        weights: The original weights and biases, by name.

    Returns:
        The name of the fused head's output.

    Raises:
        ValueError: The heads of this grid cannot be fused.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    heads = [_find_head(f"{kind}_{stride}", producers) for kind in HEADS]
    read: str
    read, *others = {pointwise.input[0] for pointwise, _ in heads}
    named = [list(node.input[1:]) for head in heads for node in head]
    if others or any(len(names) != 2 or not weights.keys() >= set(names) for names in named):
        raise ValueError(f"its heads of stride {stride} are not those of YuNet in 32-bit floats")
    for number, (side, groups) in enumerate(((1, 1), (3, sum(HEADS.values())))):
        output = f"heads_{stride}_{number}"
        parameters = [f"{output}_weights", f"{output}_biases"]
        for index, name in enumerate(parameters, start=1):
            parts = [numpy_helper.to_array(weights[head[number].input[index]]) for head in heads]
            graph.initializer.append(numpy_helper.from_array(np.concatenate(parts), name))
        pads = [side // 2] * 4
        graph.node.append(
            onnx.helper.make_node("Conv", [read, *parameters], [output], pads=pads, group=groups)
        )
        read = output
    return read


def _find_head(output: str, producers: Mapping[str, NodeProto]) -> tuple[NodeProto, NodeProto]:
    """Find the two convolutions, pointwise and depthwise, that produce an output of the network."""
    found: list[NodeProto] = []
    name = output
    while len(found) < 2 and name in producers:
        node = producers[name]
        if node.op_type == "Conv":
            found.append(node)
        name = node.input[0]
    if len(found) < 2:
        raise ValueError(
            f"it has no output {output} produced by two convolutions, as YuNet of 2023 has"
        )
    return found[1], found[0]


def _read_cache(source: bytes) -> bytes | None:
    """Read the rewritten file that an earlier process cached, unless it is damaged."""
    stem = _stem(source)
    for path in models_folder().glob(f"{stem}*.onnx"):
        with suppress(OSError):
            data = path.read_bytes()
            if path.stem == stem + _checksum(data):
                return data
    return None


def _write_cache(data: bytes, source: bytes) -> bytes:
    folder = models_folder()
    temporary = folder / f".{_stem(source)}{os.getpid()}.tmp"
    with suppress(OSError):  # without a writable folder, each process rewrites the file itself
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(folder / f"{_stem(source)}{_checksum(data)}.onnx")
    return data


def _stem(source: bytes) -> str:
    return f"{_checksum(source)}-fused{_VERSION}-"


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
