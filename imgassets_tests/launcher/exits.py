"""A program that ends in the way its first argument names: `wait`, `raise` or an exit code."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    how, *paths = sys.argv[1:]
    if how == "wait":
        for path in paths:
            Path(path).touch()
        signal.pause()  # no timeout: any fixed time is too short on a busy machine
    elif how == "raise":
        raise ValueError(how)
    sys.exit(int(how))
