"""The original pipeline's way: a new connection each, decoded and encoded again. URLS FOLDER."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from PIL import Image


def fetch(job: tuple[int, str]) -> None:
    """Fetch one URL."""
    number, url = job
    response = requests.get(url, timeout=20)
    image = Image.open(io.BytesIO(response.content)).convert("RGB")
    image.save(Path(sys.argv[2], f"{number}.jpg"), quality=75)


if __name__ == "__main__":
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(fetch, enumerate(Path(sys.argv[1]).read_text().splitlines())):
            pass
