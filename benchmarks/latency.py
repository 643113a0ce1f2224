"""An HTTP server that takes a while: each answer comes 50 ms after its request.

Runs in a process of its own, so that it takes no time of the program measured: PICTURE SECONDS.
Prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def _serve(picture: bytes, seconds: float) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    page = head.encode() + picture

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds)
                writer.write(page)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]).read_bytes(), float(sys.argv[2])))
