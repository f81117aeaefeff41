"""Writes until nothing can be written any more, at most 8 GiB in each folder."""

import os

block = os.urandom(1 << 20) * 16
for folder in ("/tmp", "/code"):
    for number in range(8):
        try:
            with open(f"{folder}/fill-{number}", "wb") as file:
                for _ in range(64):
                    file.write(block)
        except OSError as error:
            print(folder, number, error)
            break
