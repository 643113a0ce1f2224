"""A program that starts `talks`, and writes down what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from imgassets.launcher import programs


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    os.environ["IMGASSETS_SOMETHING"] = "changed"
    sys.path.append("/a/folder/of/a/user")
    with (folder / "errors").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    if how == "without":
        os.kill(os.getppid(), signal.SIGKILL)
    program = programs.start("imgassets_tests.launcher.talks")
    program.stdin.write(b"hello\n")
    program.stdin.flush()
    found = json.loads(program.stdout.readline())
    if how == "server dies":
        os.kill(os.getppid(), signal.SIGKILL)
    program.kill()
    found["status"], found["ours"] = program.wait(), os.getpid()
    found["rest"] = program.stdout.read().decode()
    (folder / "found").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
