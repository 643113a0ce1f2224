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

from imgassets.partitions import Partition
from imgassets_tests.demo.copies import environment, imgassets
from imgassets_tests.life.deployment import wait_for

DAY = dt.date(2026, 1, 4)
NEW = [Partition(DAY.isoformat(), retailer) for retailer in ("nord-sol", "zara")]
# Above `checks.max_products`, and above `checks.max_duplicates` of the pictures.
FORGOTTEN = 12


class Demo:
    """A copy of the project, the demo materialized in it, and its UI."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        imgassets(folder, "demo")
        self._add_a_day()

    def _add_a_day(self) -> None:
        """What two shops had on the day before, once more; one has placeholders among them."""
        server = f"http://127.0.0.1:{(self.folder / '.imgassets/demo/port').read_text()}"
        (self.folder / ".imgassets/demo/catalogue/coming_soon.jpg").write_bytes(placeholder())
        uri = imgassets(self.folder, "db", "status").split("running at ")[1].split(",")[0]
        noon = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
        with MongoClient[dict[str, Any]](uri) as client:
            products = client["imgassets_demo"]["products"]
            before = {"$gte": noon - dt.timedelta(days=1, hours=12), "$lt": noon}
            found = [*products.find({"scraped_at": before})]
            again = [
                {**product, "_id": ObjectId(), "scraped_at": noon}
                for product in found
                if product["product_retailer"] in ("Zara", "Nord & Sol")
            ]
            forgotten = [
                {
                    "product_retailer": "Zara",
                    "product_images": [f"{server}/coming_soon.jpg?sku={number}"],
                    "scraped_at": noon,
                }
                for number in range(FORGOTTEN)
            ]
            products.insert_many([*again, *forgotten])

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
        return {
            connection.laddr.ip
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self.port
        }


def placeholder() -> bytes:
    """The picture that a shop serves where it has none."""
    image = Image.new("RGB", (600, 900), (236, 232, 226))
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 60, 540, 840), outline=(150, 140, 130), width=6)
    font = ImageFont.load_default(76)
    draw.multiline_text(
        (300, 450), "PICTURE\nCOMING\nSOON", (150, 140, 130), font, "mm", align="center"
    )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
