"""A program that owns a fork server, starts a program with it, and waits to be killed."""

import signal
import sys
from pathlib import Path

from imgassets.launcher.client import ForkServer
from imgassets.launcher.processes import ProcessIdentity


def main() -> None:
    out = Path(sys.argv[1])

    def record(process: ProcessIdentity) -> None:
        out.with_suffix(".new").write_text(process.to_json())

    server = ForkServer()
    server.start(
        "imgassets_tests.launcher.exits", ["wait"], on_forked=record, on_exit=lambda _: None
    )
    out.with_suffix(".new").rename(out)
    signal.pause()


if __name__ == "__main__":
    main()
