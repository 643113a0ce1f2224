"""A program that ends as it is told."""

import sys
import time

if __name__ == "__main__":
    (how,) = sys.argv[1:]
    if how == "sleep":
        time.sleep(300)
    elif how == "raise":
        raise ValueError(how)
    sys.exit(int(how))
