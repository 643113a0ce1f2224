"""A program that has a warm server, starts something by it, and waits to be ended."""

import signal
import sys
from pathlib import Path

from imgassets.launcher.client import ForkServer
from imgassets.launcher.processes import ProcessIdentity


def main() -> None:
    out = Path(sys.argv[1])

    def note(mark: ProcessIdentity) -> None:
        out.with_suffix(".new").write_text(mark.dump())

    server = ForkServer()
    server.start("imgassets_tests.launcher.ends", ["wait"], ready=note, ended=lambda _: None)
    out.with_suffix(".new").rename(out)
    signal.pause()


if __name__ == "__main__":
    main()
