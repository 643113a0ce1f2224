"""Download with `requests` in 32 threads and write the files: `bare_requests.py URLS FOLDER`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=32, pool_maxsize=32))


def download(numbered_url: tuple[int, str]) -> None:
    """Download one image.

    Args:
        numbered_url: the index of the URL, which names the file, and the URL.
    """
    number, url = numbered_url
    response = session.get(url, timeout=20)
    response.raise_for_status()
    Path(sys.argv[2], f"{number}.jpg").write_bytes(response.content)


if __name__ == "__main__":
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(download, enumerate(Path(sys.argv[1]).read_text().splitlines())):
            pass
