"""A program that answers a line with a description of its process, then waits to be killed."""

import json
import os
import signal
import sys

if __name__ == "__main__":
    line = sys.stdin.readline().strip()
    answer = {
        "line": line,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "variable": os.environ.get("IMGASSETS_SOMETHING"),
        "path": sys.path,
    }
    sys.stderr.write(f"echo got {line}\n")
    sys.stderr.flush()
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()
    signal.pause()
