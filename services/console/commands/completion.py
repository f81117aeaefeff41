"""`htdag completion`: the script that teaches a shell the commands."""

from typing import Literal

from cyclopts import App

app = App(name="completion", help_format="plaintext")


@app.default
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell; `htdag --install-completion`
    installs it.

    For example:
        source <(htdag completion bash)

    Parameters
    ----------
    shell
        The shell to print it for.
    """
    from services.console.cli import application

    print(application().generate_completion(prog_name="htdag", shell=shell))
