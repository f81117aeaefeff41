"""Takes memory until nobody gives it any more."""

held = []
while True:
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    held.append(block)
