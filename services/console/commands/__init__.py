"""One file per command group. A file here parses, asks a service and prints; what it prints is made elsewhere."""
