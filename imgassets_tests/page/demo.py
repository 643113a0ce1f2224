"""Runs the demo as `make demo` and `make ui` do, with a day of products without own images."""

from __future__ import annotations

import datetime as dt
import io
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from bson import ObjectId
from PIL import Image, ImageDraw, ImageFont
from pymongo import MongoClient

from imgassets_tests.demo.copies import environment, imgassets
from imgassets_tests.life.deployment import wait_for

DAY = dt.date(2026, 1, 4)
SHOPS = {"nord-sol": "Nord & Sol", "zara": "Zara"}
SHARED = {"coming_soon.jpg": "IMAGE\nCOMING\nSOON", "sizes.jpg": "S   36\nM   38\nL   40\nXL  42"}
# Products per shop without own images: more than `checks.max_products`, and their images are a
# larger share than `checks.max_duplicates`.
PLACEHOLDER_PRODUCTS = 12


class Demo:
    """A copy of the project with the materialized demo and its UI.

    Args:
        folder: The copy.
        catalogue: The sample catalogue, which is copied: to draw it takes ten seconds.
    """

    def __init__(self, folder: Path, catalogue: Path) -> None:
        self.folder = folder
        shutil.copytree(catalogue, folder / ".imgassets/demo/catalogue")
        imgassets(folder, "demo")
        self._add_a_day()

    def _add_a_day(self) -> None:
        """Add a day: the previous day's products again, and products without own images.

        The latter have a placeholder and a size chart, each under one URL per product.
        """
        server = f"http://127.0.0.1:{(self.folder / '.imgassets/demo/port').read_text()}"
        for name, lines in SHARED.items():
            file = self.folder / ".imgassets/demo/catalogue" / name
            file.write_bytes(card(lines))
        uri = imgassets(self.folder, "db", "status").split("running at ")[1].split(",")[0]
        noon = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
        with MongoClient[dict[str, Any]](uri) as client:
            products = client["imgassets_demo"]["products"]
            day_before = {"$gte": noon - dt.timedelta(days=1, hours=12), "$lt": noon}
            names = {"$in": [*SHOPS.values()]}
            previous = [*products.find({"scraped_at": day_before, "product_retailer": names})]
            repeated = [{**product, "_id": ObjectId(), "scraped_at": noon} for product in previous]
            placeholders = [
                {
                    "product_retailer": retailer,
                    "product_images": [f"{server}/{name}?sku={number}" for name in SHARED],
                    "scraped_at": noon,
                }
                for retailer in SHOPS.values()
                for number in range(PLACEHOLDER_PRODUCTS)
            ]
            products.insert_many([*repeated, *placeholders])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the UI and everything else that `make ui` starts."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        with (self.folder / "ui.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "imgassets.cli", "demo", "--ui", "--port", str(self.port)],
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for("the webserver", self._is_up)
            yield
        finally:
            self._stop()

    def _is_up(self) -> bool:
        assert self.process.poll() is None, (self.folder / "ui.log").read_text()
        try:
            return requests.get(f"{self.address}/server_info", timeout=5).ok
        except requests.RequestException:
            return False

    def _stop(self) -> None:
        # Ctrl-C in a terminal sends SIGINT to all of them.
        root = psutil.Process(self.process.pid)
        processes = [root, *root.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGINT)
        _, survivors = psutil.wait_procs(processes, timeout=20)
        for survivor in survivors:
            survivor.kill()
        self.process.wait()

    def listening_addresses(self) -> set[str]:
        """Return the IP addresses on which the UI's port is open."""
        listening = [
            connection.laddr
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr
        ]
        return {address.ip for address in listening if address.port == self.port}


def card(text: str) -> bytes:
    """Return a JPEG image of a text, as shops serve for products without photos."""
    image = Image.new("RGB", (600, 900), (236, 232, 226))
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 60, 540, 840), outline=(150, 140, 130), width=6)
    font = ImageFont.load_default(76)
    draw.multiline_text((300, 450), text, (150, 140, 130), font, "mm", align="center")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
