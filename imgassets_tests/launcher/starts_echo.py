"""A program that starts `echo` through `programs.start`, and writes what it answered to a file."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from imgassets.launcher import programs


def main() -> None:
    folder, scenario = Path(sys.argv[1]), sys.argv[2]
    os.environ["IMGASSETS_SOMETHING"] = "changed"
    sys.path.append("/appended/by/the/parent")
    with (folder / "errors").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    if scenario == "server is gone":
        os.kill(os.getppid(), signal.SIGKILL)
    program = programs.start("imgassets_tests.launcher.echo")
    program.stdin.write(b"hello\n")
    program.stdin.flush()
    answer = json.loads(program.stdout.readline())
    if scenario == "server dies":
        os.kill(os.getppid(), signal.SIGKILL)
    program.kill()
    answer["exit_code"], answer["started_by"] = program.wait(), os.getpid()
    answer["rest"] = program.stdout.read().decode()
    (folder / "answer").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
