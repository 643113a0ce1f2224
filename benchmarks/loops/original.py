"""Download loop of the original pipeline: `original.py URLS FOLDER`.

It opens a new connection per URL, and decodes and re-encodes every image.
"""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from PIL import Image as PILImage


def download(numbered_url: tuple[int, str]) -> None:
    """Download and re-encode one image.

    Args:
        numbered_url: the index of the URL, which names the file, and the URL.
    """
    number, url = numbered_url
    response = requests.get(url, timeout=20)
    image = PILImage.open(io.BytesIO(response.content)).convert("RGB")
    image.save(Path(sys.argv[2], f"{number}.jpg"), quality=75)


if __name__ == "__main__":
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(download, enumerate(Path(sys.argv[1]).read_text().splitlines())):
            pass
