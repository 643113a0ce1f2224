"""A program that writes down what it finds around it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    out, *arguments = sys.argv[1:]
    found = {
        "name": __name__,
        "arguments": arguments,
        "environment": {
            k: v for k, v in os.environ.items() if not k.startswith("IMGASSETS_FORK_SERVER")
        },
        "folder": str(Path.cwd()),
        "path": sys.path,
        "interrupted": str(signal.getsignal(signal.SIGINT)).partition(" at ")[0],
        "threads": len([*Path("/proc/self/task").iterdir()]),
        "input": str(Path("/proc/self/fd/0").readlink()),
        "session": os.getsid(0) == os.getpid(),
        "open": sorted(int(fd.name) for fd in Path("/proc/self/fd").iterdir()),
        "drawn": float(np.random.random()),  # as code of a user's may draw
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
