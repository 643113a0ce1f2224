from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from imgassets.demo.catalogue import Kind, documents, expected
from imgassets.demo.server import CatalogueServer, is_served
from imgassets.errors import CatalogueServerError


def test_every_url_of_the_documents_returns_the_bytes_of_the_file_or_404(
    catalogue_folder: Path,
) -> None:
    with CatalogueServer(catalogue_folder) as server, requests.Session() as session:
        listed = {
            url for doc in documents(server.url) for url in doc["product_images"] if url is not None
        }
        for url in listed:
            answer = session.get(url, timeout=10)
            path = url.removeprefix(server.url).partition("?")[0]
            if expected()[path].kind is Kind.MISSING:
                assert answer.status_code == 404
            else:
                assert answer.status_code == 200
                assert answer.content == (catalogue_folder / path[1:]).read_bytes()
        assert server.requests == dict.fromkeys(expected(), 1)


def test_the_content_type_follows_the_suffix_even_if_the_format_differs(
    catalogue_folder: Path,
) -> None:
    types = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
    entries = [e for e in expected().values() if e.kind is not Kind.MISSING]
    with CatalogueServer(catalogue_folder) as server, requests.Session() as session:
        for entry in entries:
            head = session.head(server.url + entry.path, timeout=10)
            assert head.headers["Content-Type"] == types[Path(entry.path).suffix]


def test_an_unchanged_file_returns_304(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    with CatalogueServer(tmp_path) as server, requests.Session() as session:
        first = session.get(f"{server.url}/a.jpg", timeout=10)
        assert first.headers["Last-Modified"].endswith("GMT")
        tag = {"If-None-Match": first.headers["ETag"]}
        again = session.get(f"{server.url}/a.jpg", headers=tag, timeout=10)
        (tmp_path / "a.jpg").write_bytes(b"another")
        changed = session.get(f"{server.url}/a.jpg", headers=tag, timeout=10)
    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.content) == (200, b"another")


@pytest.mark.parametrize("path", ["/../secret.txt", "/%2e%2e/secret.txt", "/.complete", "/", "//"])
def test_only_images_inside_the_folder_are_served(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / ".complete").write_text("marker")
    with CatalogueServer(folder) as server, requests.Session() as session:
        request = requests.Request("GET", server.url).prepare()
        request.url = server.url + path  # `requests` would normalise the path
        assert session.send(request, timeout=10).status_code == 404


def test_32_concurrent_clients_are_served_over_keep_alive_connections(tmp_path: Path) -> None:
    data = bytes(range(256)) * 500
    (tmp_path / "a.jpg").write_bytes(data)
    together = threading.Barrier(32)

    def fetch(server: CatalogueServer) -> list[bytes]:
        with requests.Session() as session:
            together.wait(timeout=30)
            return [session.get(f"{server.url}/a.jpg", timeout=30).content for _ in range(10)]

    with CatalogueServer(tmp_path) as server, ThreadPoolExecutor(32) as pool:
        for bodies in pool.map(fetch, [server] * 32):
            assert bodies == [data] * 10
        assert server.requests["/a.jpg"] == 320


def test_a_port_can_be_used_again_after_the_server_stopped(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    with requests.Session() as session:
        with CatalogueServer(tmp_path) as server:
            port, url = server.port, f"{server.url}/a.jpg"
            assert session.get(url, timeout=10).ok
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=10)
        with CatalogueServer(tmp_path, port):
            assert session.get(url, timeout=10).content == b"image"


def test_a_port_in_use_raises_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with CatalogueServer(tmp_path) as server:
        with (
            pytest.raises(
                CatalogueServerError, match=rf"127\.0\.0\.1:{server.port}.*choose another"
            ),
            CatalogueServer(tmp_path, server.port),
        ):
            pytest.fail("two servers on one port")
        assert requests.get(f"{server.url}/none.jpg", timeout=10).status_code == 404


def test_a_demo_recognises_the_server_of_its_folder_but_not_that_of_another_folder(
    tmp_path: Path,
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    with CatalogueServer(own) as server:
        port = server.port
        assert is_served(own, port)
        assert not is_served(other, port)
    assert not is_served(own, port)


def test_the_address_of_a_server_that_is_not_running_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogueServerError, match="server is not running"):
        _ = CatalogueServer(tmp_path).url
