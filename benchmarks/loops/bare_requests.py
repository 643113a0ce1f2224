"""A bare loop: `requests` and a pool of 32 threads; only writes files. URLS FOLDER."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=32, pool_maxsize=32))


def fetch(job: tuple[int, str]) -> None:
    """Fetch one URL."""
    number, url = job
    response = session.get(url, timeout=20)
    response.raise_for_status()
    Path(sys.argv[2], f"{number}.jpg").write_bytes(response.content)


if __name__ == "__main__":
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(fetch, enumerate(Path(sys.argv[1]).read_text().splitlines())):
            pass
