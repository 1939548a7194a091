"""Libraries that are installed on request: `pip install 'dataset-registry[polars]'`."""

from importlib.util import find_spec

from dataset_registry.errors import InputError


def require(module: str, extra: str, what: str) -> None:
    """Raise `InputError` with the command to run when the library that `what` needs is not installed."""
    if find_spec(module) is None:
        raise missing(module, extra, what)


def missing(module: str, extra: str, what: str) -> InputError:
    """The error for a library that is not installed, or that cannot be imported."""
    return InputError(
        f"{what} needs {module}, which is not installed. Run: pip install 'dataset-registry[{extra}]'", extra=extra
    )
