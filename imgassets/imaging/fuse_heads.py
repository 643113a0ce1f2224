"""YuNet's file, rewritten so that a look takes less time.

YuNet has twelve heads: on each of its three grids one for faces, one for objects, one for boxes and
one for landmarks. A head is a convolution of one pixel and then one of three by three, channel by
channel, and all heads of a grid read the same. Here the four become one of sixteen channels: the
same sums in a seventh less time. What the outputs mean is in `yunet`.

opencv_zoo's file also says that its input is 640 pixels square, which OpenCV overlooks and ONNX
Runtime holds to; in the rewritten file any size will do.
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

    from onnx import NodeProto

STRIDES = (8, 16, 32)
"""Pixels between two places of the network's grids."""
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""The heads of a grid, by OpenCV's names, and how many channels each gives."""

_VERSION = 1  # to be raised with each change of what is written, since old files are kept


def fused_model_file(model: Path) -> bytes:
    """The rewritten file; it is kept among the models, since importing `onnx` takes long.

    Raises:
        ModelError: the file cannot be read, or is no such network.
    """
    try:
        source = model.read_bytes()
        return _kept(source) or _keep(fuse_heads(source), source)
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
        source: the file, with the twelve outputs.

    Returns:
        A file with the same input in any height and width that are multiples of 32, and with one
        output a grid: 1 x 16 x rows x columns, the channels those of `HEADS` in their order, the
        first two before their sigmoid.

    Raises:
        ValueError: it is no such network; the message says what it lacks.
    """
    import numpy as np
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        model = onnx.load_model_from_string(source)
    except DecodeError:
        raise ValueError("it is no ONNX file") from None
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = []
    for stride in STRIDES:
        heads = [_head(f"{kind}_{stride}", makers) for kind in HEADS]
        read, *others = {pointwise.input[0] for pointwise, _ in heads}
        named = [list(node.input[1:]) for head in heads for node in head]
        if others or any(len(names) != 2 or not weights.keys() >= set(names) for names in named):
            raise ValueError(
                f"its heads of stride {stride} are not those of YuNet in 32-bit floats"
            )
        for number, (side, groups) in enumerate(((1, 1), (3, sum(HEADS.values())))):
            made = f"heads_{stride}_{number}"
            given = [f"{made}_weights", f"{made}_biases"]
            for place, name in enumerate(given, start=1):
                parts = [
                    numpy_helper.to_array(weights[head[number].input[place]]) for head in heads
                ]
                graph.initializer.append(numpy_helper.from_array(np.concatenate(parts), name))
            pads = [side // 2] * 4
            graph.node.append(
                onnx.helper.make_node("Conv", [read, *given], [made], pads=pads, group=groups)
            )
            read = made
        outputs.append(
            onnx.helper.make_tensor_value_info(read, onnx.TensorProto.FLOAT, [1, None, None, None])
        )
    del graph.output[:]
    graph.output.extend(outputs)
    del graph.value_info[:]  # the sizes for an input of 640 pixels
    _, _, height, width = graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    names = [output.name for output in outputs]
    slim = onnx.utils.Extractor(model).extract_model([graph.input[0].name], names)
    rewritten: bytes = slim.SerializeToString()
    return rewritten


def _head(output: str, makers: Mapping[str, NodeProto]) -> tuple[NodeProto, NodeProto]:
    """The two convolutions that an output of the network is made by."""
    found: list[NodeProto] = []
    name = output
    while len(found) < 2 and name in makers:
        node = makers[name]
        if node.op_type == "Conv":
            found.append(node)
        name = node.input[0]
    if len(found) < 2:
        raise ValueError(
            f"it has no output {output} made by two convolutions, as YuNet of 2023 has"
        )
    return found[1], found[0]


def _kept(source: bytes) -> bytes | None:
    """The rewritten file that an earlier process kept, if it is whole."""
    stem = _stem(source)
    for path in models_folder().glob(f"{stem}*.onnx"):
        with suppress(OSError):
            data = path.read_bytes()
            if path.stem == stem + _checksum(data):
                return data
    return None


def _keep(data: bytes, source: bytes) -> bytes:
    folder = models_folder()
    temporary = folder / f".{_stem(source)}{os.getpid()}.tmp"
    with suppress(OSError):  # where nothing can be kept, each process makes it anew
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(folder / f"{_stem(source)}{_checksum(data)}.onnx")
    return data


def _stem(source: bytes) -> str:
    return f"{_checksum(source)}-fused{_VERSION}-"


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
