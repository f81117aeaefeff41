"""Opens a shell to whoever connects."""

import socket
import subprocess
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    server.settimeout(3)
    peer, _ = server.accept()
    with peer:
        peer.sendall(subprocess.run(["id"], capture_output=True, check=False).stdout)
