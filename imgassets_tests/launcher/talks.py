"""A program that answers a line with what it has around it, and then waits to be killed."""

import json
import os
import signal
import sys

if __name__ == "__main__":
    line = sys.stdin.readline().strip()
    found = {
        "line": line,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "variable": os.environ.get("IMGASSETS_SOMETHING"),
        "path": sys.path,
    }
    sys.stderr.write(f"said by {line}\n")
    sys.stderr.flush()
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()
    signal.pause()
