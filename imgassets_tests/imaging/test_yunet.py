"""The network gives what OpenCV's own reading of the same file gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import imgassets.imaging.fuse_heads
from imgassets.errors import ModelError
from imgassets.imaging.fuse_heads import fuse_heads, fused_model_file
from imgassets.imaging.yunet import Network


@pytest.mark.parametrize("side", [96, 250, 384, 640])
@pytest.mark.parametrize("name", ["portrait_a", "portrait_b", "portrait_c", "astronaut"])
def test_the_faces_are_those_of_opencv(
    model: Path, photos: dict[str, bytes], name: str, side: int
) -> None:
    picture = cv2.imdecode(np.frombuffer(photos[name], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    scale = side / max(picture.shape[:2])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    theirs = cv2.FaceDetectorYN.create(str(model), "", picture.shape[1::-1], 0.5, 0.3, 5000)
    _, expected = theirs.detect(picture)
    found = Network(model).find(np.asarray(picture, np.uint8), 0.5)
    assert expected is not None
    np.testing.assert_allclose(found[:, :14], expected[:, :14], atol=0.05)
    np.testing.assert_allclose(found[:, 14], expected[:, 14], atol=1e-4)


def test_a_plain_picture_has_none(model: Path) -> None:
    found = Network(model).find(np.full((70, 50, 3), 200, np.uint8), 0.5)
    assert found.shape == (0, 15)


def _with_computed_weights(file: bytes) -> bytes:
    """As in a quantized file, the weights are no constants but come out of a node."""
    network = onnx.load_model_from_string(file)
    name = "bbox_head.multi_level_obj.1.conv1.weight"
    for node in network.graph.node:
        if name in node.input:
            node.input[list(node.input).index(name)] = "computed"
    network.graph.node.insert(0, onnx.helper.make_node("Identity", [name], ["computed"]))
    changed: bytes = network.SerializeToString()
    return changed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: file.replace(b"kps_32", b"kps_64"), "has no output kps_32"),
        (lambda _: b"no network at all", "is no ONNX file"),
        (_with_computed_weights, "are not those of YuNet in 32-bit floats"),
    ],
)
def test_another_network_is_told(
    model: Path, tmp_path: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(change(model.read_bytes()))
    with pytest.raises(ModelError, match=told):
        Network(other)


def test_the_rewritten_file_is_kept_and_made_anew_if_it_is_damaged(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imgassets.imaging.fuse_heads, "models_folder", lambda: tmp_path / "models")
    made = fused_model_file(model)
    (kept,) = (tmp_path / "models").iterdir()
    assert kept.read_bytes() == made
    kept.write_bytes(made[:100])
    assert fused_model_file(model) == made
    assert kept.read_bytes() == made


def test_where_nothing_can_be_kept_the_file_is_rewritten_all_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").write_text("no folder")
    monkeypatch.setattr(imgassets.imaging.fuse_heads, "models_folder", lambda: tmp_path / "models")
    assert fused_model_file(model) == fuse_heads(model.read_bytes())
