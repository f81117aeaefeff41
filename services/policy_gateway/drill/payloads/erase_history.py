"""Deletes the history by hand: with git, and where git refuses, file by file."""

import pathlib
import shutil
import subprocess

for words in (["reset", "--hard", "HEAD~50"], ["reflog", "expire", "--expire=now", "--all"], ["gc", "--prune=now"]):
    try:
        subprocess.run(["git", *words], check=False, timeout=10)
    except OSError as error:
        print(error)
for name in ("logs", "refs", "objects", "packed-refs", "HEAD"):
    path = pathlib.Path(".git", name)
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        print("erased", path)
    except OSError as error:
        print(error)
