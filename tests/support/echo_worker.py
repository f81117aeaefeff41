"""A foreign worker in 30 lines of plain Python, without any library: it serves one model and says what it is told.

usage: echo_worker.py NATS_URL MODEL
"""

import json
import socket
import sys
from urllib.parse import urlsplit

url, model = urlsplit(sys.argv[1]), sys.argv[2]
wire = socket.create_connection((url.hostname, url.port))
lines = wire.makefile("rb")
lines.readline()  # INFO
# Who says that it takes no headers gets none: calls carry the trace of whoever asked.
login = {"verbose": False, "headers": False, "user": url.username, "pass": url.password}
wire.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\n")
wire.sendall(f"SUB htdag.v1.llm.serve.{model} workers 1\r\nPING\r\n".encode())


def say(subject: str, body: dict) -> None:
    data = json.dumps(body).encode()
    wire.sendall(f"PUB {subject} {len(data)}\r\n".encode() + data + b"\r\n")


while line := lines.readline().split():
    if line[0] == b"PING":
        wire.sendall(b"PONG\r\n")
    if line[0] != b"MSG":
        continue
    data, reply = lines.read(int(line[-1]) + 2), line[-2].decode()
    try:
        ask = json.loads(data)
        words = ask["messages"][-1]["content"].split()[: ask["max_tokens"]]
        for number, word in enumerate(words) if ask.get("tokens") else ():
            say(ask["tokens"], {"chunk": f" {word}" if number else word})
        usage = {"prompt_tokens": len(words), "completion_tokens": len(words)}
        say(reply, {"output": " ".join(words), "usage": usage, "finish_reason": "stop"})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        say(reply, {"error": f"no request: {error}"})
