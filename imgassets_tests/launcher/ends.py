"""A program that ends as its arguments say."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    how, *paths = sys.argv[1:]
    if how == "wait":
        for path in paths:
            Path(path).touch()
        signal.pause()  # until a signal ends it: a fixed time is too short on a busy machine
    elif how == "raise":
        raise ValueError(how)
    sys.exit(int(how))
