"""`htdag models`: weights of the small local models."""

from cyclopts import App

from contracts.errors import Rejected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, size

app = App(
    name="models",
    help="Local models: what is here, and get one.\n\nFor example:\n    htdag models list",
    help_format="plaintext",
)


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> None:
    """List the local models and where their weights are.

    For example:
        htdag models list
    """
    from services.runtime import weights

    found = []
    for name, known in weights.KNOWN.items():
        try:
            path = str(weights.find(name))
        except Rejected:
            path = ""
        found.append({"id": name, "size_bytes": known.size_bytes, "path": path or None, "installed": bool(path)})
    rows = [
        (model["id"], size(known.size_bytes), model["path"])
        for model, known in zip(found, weights.KNOWN.values(), strict=True)
    ]
    common.output.value(found, lambda _: columns(("MODEL", "SIZE", "PATH"), rows))


@app.command
def pull(model: str, /, *, common: Common = DEFAULTS) -> None:
    """Download the weights of a local model, check them, and keep them in the
    user's cache.

    For example:
        htdag models pull smollm2

    Parameters
    ----------
    model
        The model.
    """
    from services.runtime import weights

    path = weights.pull(model, say=common.output.note)
    common.output.value({"id": model, "path": str(path)}, str(path))
