"""Make sure that the installed package ``traces`` is ours: PyPI has an unrelated one of that name."""

from __future__ import annotations

REMEDY = (
    "the package 'traces' that Python finds belongs to another project ({where}); zeroskip needs its own. "
    "Remedy: python -m pip uninstall -y traces && python -m pip install --force-reinstall --no-deps zeroskip"
)


def check_owner() -> None:
    """Raise ImportError with the remedy where ``traces`` is somebody else's."""
    try:
        import traces
    except ImportError as error:
        if getattr(error, "name", None) != "traces":
            raise
        raise ImportError("the package 'traces' of zeroskip is missing; reinstall zeroskip") from None
    if getattr(traces, "OWNER", None) != "zeroskip":
        raise ImportError(REMEDY.format(where=getattr(traces, "__file__", "unknown place")))
