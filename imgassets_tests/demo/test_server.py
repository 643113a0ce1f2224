from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from imgassets.demo.catalogue import Kind, documents, expected
from imgassets.demo.server import CatalogueServer, ServerError


def test_every_url_of_the_documents_is_answered_with_the_files_bytes_or_404(
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


def test_the_content_type_follows_the_suffix_also_where_it_lies(catalogue_folder: Path) -> None:
    types = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
    entries = [e for e in expected().values() if e.kind is not Kind.MISSING]
    with CatalogueServer(catalogue_folder) as server, requests.Session() as session:
        for entry in entries:
            head = session.head(server.url + entry.path, timeout=10)
            assert head.headers["Content-Type"] == types[Path(entry.path).suffix]


def test_an_unchanged_file_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
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
def test_nothing_but_the_folders_pictures_is_served(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / ".complete").write_text("marker")
    with CatalogueServer(folder) as server, requests.Session() as session:
        request = requests.Request("GET", server.url).prepare()
        request.url = server.url + path  # as typed: requests would tidy it
        assert session.send(request, timeout=10).status_code == 404


def test_thirty_two_clients_at_once_are_served_over_kept_connections(tmp_path: Path) -> None:
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


def test_the_same_port_can_be_had_again_after_a_stop(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with requests.Session() as session:
        with CatalogueServer(tmp_path) as server:
            port, url = server.port, f"{server.url}/a.jpg"
            assert session.get(url, timeout=10).ok
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=10)
        with CatalogueServer(tmp_path, port):
            assert session.get(url, timeout=10).content == b"picture"


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    with CatalogueServer(tmp_path) as server:
        with (
            pytest.raises(ServerError, match=rf"127\.0\.0\.1:{server.port}.*choose another"),
            CatalogueServer(tmp_path, server.port),
        ):
            pytest.fail("two servers on one port")
        assert requests.get(f"{server.url}/none.jpg", timeout=10).status_code == 404


def test_a_server_that_does_not_run_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="not being served"):
        _ = CatalogueServer(tmp_path).url
