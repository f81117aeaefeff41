"""What `scripts/generate` writes, one module per kind of file."""
