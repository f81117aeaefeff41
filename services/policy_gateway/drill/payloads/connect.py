"""Connects to a host and a port, sends a line and prints what it hears."""

import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as peer:
    peer.sendall(b"stolen secrets\r\n")
    print(peer.recv(400))
