"""The demo as `make demo` and `make ui` start it, and a day on which a shop forgot its pictures."""

from __future__ import annotations

import datetime as dt
import io
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
SHARED = {"coming_soon.jpg": "PICTURE\nCOMING\nSOON", "sizes.jpg": "S   36\nM   38\nL   40\nXL  42"}
# More than `checks.max_products`; copies are more of the pictures than `checks.max_duplicates`.
WITHOUT = 12


class Demo:
    """A copy of the project, the demo materialized in it, and its UI."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        imgassets(folder, "demo")
        self._add_a_day()

    def _add_a_day(self) -> None:
        """What two shops had on the day before once more, and products without pictures of theirs.

        Those have a placeholder and a size chart, each at addresses of its own.
        """
        server = f"http://127.0.0.1:{(self.folder / '.imgassets/demo/port').read_text()}"
        for name, lines in SHARED.items():
            file = self.folder / ".imgassets/demo/catalogue" / name
            file.write_bytes(card(lines))
        uri = imgassets(self.folder, "db", "status").split("running at ")[1].split(",")[0]
        noon = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
        with MongoClient[dict[str, Any]](uri) as client:
            products = client["imgassets_demo"]["products"]
            before = {"$gte": noon - dt.timedelta(days=1, hours=12), "$lt": noon}
            names = {"$in": [*SHOPS.values()]}
            found = [*products.find({"scraped_at": before, "product_retailer": names})]
            again = [{**product, "_id": ObjectId(), "scraped_at": noon} for product in found]
            without = [
                {
                    "product_retailer": retailer,
                    "product_images": [f"{server}/{name}?sku={number}" for name in SHARED],
                    "scraped_at": noon,
                }
                for retailer in SHOPS.values()
                for number in range(WITHOUT)
            ]
            products.insert_many([*again, *without])

    @contextmanager
    def running(self) -> Iterator[None]:
        """The UI, with everything that `make ui` starts beside it."""
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
            wait_for("the webserver", self._answers)
            yield
        finally:
            self._end()

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "ui.log").read_text()
        try:
            return requests.get(f"{self.address}/server_info", timeout=5).ok
        except requests.RequestException:
            return False

    def _end(self) -> None:
        # As Ctrl-C in a terminal, which all of them hear.
        root = psutil.Process(self.process.pid)
        family = [root, *root.children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(family, timeout=20)
        for straggler in left:
            straggler.kill()
        self.process.wait()

    def listens_on(self) -> set[str]:
        """The addresses at which the UI's port is open."""
        listening = [
            connection.laddr
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr
        ]
        return {address.ip for address in listening if address.port == self.port}


def card(text: str) -> bytes:
    """A picture of some words, as shops serve where they have none of the product."""
    image = Image.new("RGB", (600, 900), (236, 232, 226))
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 60, 540, 840), outline=(150, 140, 130), width=6)
    font = ImageFont.load_default(76)
    draw.multiline_text((300, 450), text, (150, 140, 130), font, "mm", align="center")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
