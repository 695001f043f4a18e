"""The look of the figures: column widths, embedded fonts, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ..errors import InputError
from ..results.typeset import number
from .inputs import open_input

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, ordered so that neighbours differ in lightness too; hatches tell them apart in grey print.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#6B6B6B"]
HATCHES = ["", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
# Of markers whose shape says something else already
FILLS = ["full", "none", "left", "bottom", "right", "top"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1))]
# One colour map for every heat map: viridis is monotone in lightness, so it survives grey print.
HEAT = "viridis"

# Column widths in inches, from the publishers' author guides; a slide is as wide as the projector's text block.
WIDTHS = {"ieee": 3.5, "acm": 3.33, "slides": 10.0}
FONT_POINTS = {"ieee": 8, "acm": 8, "slides": 18}
SCREEN_WIDTH, SCREEN_POINTS = 6.4, 10
ASPECT = 0.62
# With more bars than this the numbers on them would touch.
LABELLED_BARS = 24

P = ParamSpec("P")
R = TypeVar("R")
_page: ContextVar[str | None] = ContextVar("page", default=None)


def rc(kind: str | None = None) -> dict[str, Any]:
    """Return matplotlib settings for a kind of page; None for a screen or notebook."""
    points = FONT_POINTS[kind] if kind else SCREEN_POINTS
    width = WIDTHS[kind] if kind else SCREEN_WIDTH
    scale = points / 8
    return {
        "figure.figsize": (width, width * ASPECT),
        "figure.dpi": 120,
        "savefig.dpi": 300,
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": points,
        "axes.titlesize": points,
        "axes.labelsize": points,
        "xtick.labelsize": points - 1,
        "ytick.labelsize": points - 1,
        "legend.fontsize": points - 1,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.columnspacing": 1.0,
        "legend.handletextpad": 0.5,
        "legend.labelspacing": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6 * scale,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": "#D9D9D9",
        "grid.linewidth": 0.5 * scale,
        "lines.linewidth": 1.2 * scale,
        "lines.markersize": 4 * scale,
        "xtick.major.width": 0.6 * scale,
        "ytick.major.width": 0.6 * scale,
        "hatch.linewidth": 0.5 * scale,
        "image.cmap": HEAT,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "path",
        # element ids of an SVG are random without it, so that equal figures would be unequal files
        "svg.hashsalt": "zeroskip",
    }


def current_rc() -> dict[str, Any]:
    """Return the settings of the page that `paper` opened, or the screen's."""
    return rc(_page.get())


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(current_rc()):
        yield
        live = mpl.is_interactive()
    # a notebook turns this on when its first figure is made, in here; put back to off, no later figure would be shown
    if live:
        mpl.interactive(True)


@contextmanager
def paper(kind: str = "ieee") -> Iterator[None]:
    """Draw and save the figures inside at a venue's column width with embedded fonts.

    Parameters
    ----------
    kind : {"ieee", "acm", "slides"}
        Venue: 3.5 in and 8 pt, 3.33 in and 8 pt, or 10 in and 18 pt.

    Raises
    ------
    InputError
        If the venue is unknown.

    Examples
    --------
    >>> with sk.paper("ieee"):
    ...     ax = sk.plots.density_by_layer("minilm_relu_small.zarr")
    >>> float(ax.figure.get_figwidth())
    3.5
    """
    from hwmodels.errors import nearest

    if kind not in WIDTHS:
        raise InputError(f"unknown paper style '{kind}'" + nearest(kind, WIDTHS))
    token = _page.set(kind)
    try:
        with _settings():
            yield
    finally:
        _page.reset(token)


def mark(index: int) -> dict[str, Any]:
    """Colour and marker of a series; both together come back only after as many series as their product."""
    return {
        "color": PALETTE[(index + index // len(MARKERS)) % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def styled(draw: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make a figure function draw in the suite's style, or in `paper`'s where one is open.

    What it is drawn from, its first argument, may be a path, an object or a list: see `simkit.plots.inputs`.
    """
    name = next(iter(signature(draw).parameters))

    @wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> R:
        if args:
            args = (open_input(name, args[0]), *args[1:])
        elif name in kwargs:
            kwargs[name] = open_input(name, kwargs[name])
        with _settings():
            return draw(*args, **kwargs)

    return inside


def axes(ax: Axes | None, aspect: float = ASPECT) -> Axes:
    """Return `ax`, or the axes of a new figure whose height is `aspect` times its width."""
    if ax is not None:
        return ax
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    width = float(mpl.rcParams["figure.figsize"][0])
    return plt.subplots(figsize=(width, width * aspect))[1]


def is_narrow(ax: Axes | None) -> bool:
    """Whether a legend beside the data would take half of the width, as in a column of a paper."""
    import matplotlib as mpl

    width: float = mpl.rcParams["figure.figsize"][0] if ax is None else ax.figure.get_figwidth()
    return width < 5.0


def points() -> float:
    """Return the font size in force, which markers and hair lines follow."""
    import matplotlib as mpl

    return float(mpl.rcParams["font.size"])


def wrapped(name: str) -> str:
    """Break an arch's name where it may be broken, so that five of them fit under a column-wide figure."""
    head, bracket, rest = name.partition("[")
    place = head.find("_", 1) + 1
    if len(head) > 8 and 0 < place < len(head):
        head = f"{head[:place]}\n{head[place:]}"
    return head + ("\n" + bracket + rest if bracket else "")


def shown(name: str) -> str:
    """Label of an artist under which a legend shows a name as it is: one that starts with ``_`` would be left out."""
    return f" {name}" if name.startswith("_") else name


# a keyword of every text with a name from data in it: dollar signs would make it mathematics
AS_IS: dict[str, Any] = {"parse_math": False}


def legend(ax: Axes, *args: Any, **kwargs: Any) -> Any:
    """Add a legend whose texts stand as they are; parameters as of ``Axes.legend``."""
    made = ax.legend(*args, **kwargs)
    for text in made.get_texts():
        text.set_parse_math(False)
        text.set_text(text.get_text().removeprefix(" "))
    return made


def legend_above(ax: Axes, handles: Sequence[Any] | None = None, labels: Sequence[str] | None = None) -> None:
    """Put the legend above the data, in as many columns as the axes are wide enough for."""
    if handles is None or labels is None:
        handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    labels = [shown(label) for label in labels]
    figure: Any = ax.figure
    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()
    room = ax.get_window_extent(renderer).width * 1.02
    # beside long names of rows the axes are narrow, but above the names there is room as well
    whole = ax.get_window_extent(renderer).x1
    for side, place, width in (("left", 0.0, room), ("right", 1.0, whole)):
        for columns in range(min(len(handles), 4), 1, -1):
            made = legend(
                ax, handles, labels, ncols=columns, loc=f"lower {side}", bbox_to_anchor=(place, 1.0), borderaxespad=0.2
            )
            if made.get_window_extent(renderer).width <= width:
                return
    legend(ax, handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Put names below 0, 1, ... along x, aslant where they would touch."""
    places = range(len(names))
    ax.set_xticks(places, [wrapped(name) for name in names], **AS_IS)
    figure: Any = ax.figure
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    gap = 0.4 * points() * figure.dpi / 72
    if any(one.x1 + gap > other.x0 for one, other in pairwise(boxes)):
        ax.set_xticks(places, names, rotation=30, ha="right", rotation_mode="anchor", **AS_IS)


def plain_log(ax: Axes, which: str) -> None:
    """Make an axis logarithmic with plain numbers, powers of ten for tiny ones; where it spans little, 2 and 5 too."""
    from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter

    getattr(ax, f"set_{which}scale")("log")
    axis = getattr(ax, f"{which}axis")
    low, high = sorted(axis.get_view_interval())
    decades = float("inf") if low <= 0 else high / low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 300 else (1.0,), numticks=12))
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    # below this 'g' goes over to 1e-05
    axis.set_major_formatter(plain if low >= 5e-5 else LogFormatterMathtext(labelOnlyBase=False))
    axis.set_minor_formatter(NullFormatter())


def grouped_bars(ax: Axes, groups: list[str], series: dict[str, list[float]], bottom: float = 0.0) -> None:
    """Draw one cluster of bars for each group, one colour and hatch for each series."""
    width = 0.82 / max(1, len(series))
    for index, (label, values) in enumerate(series.items()):
        at = [g - 0.41 + width * (index + 0.5) for g in range(len(groups))]
        ax.bar(
            at,
            [value - bottom for value in values],
            width * 0.94,
            bottom=bottom,
            label=shown(label),
            **bar_style(index),
        )
    if len(groups) * len(series) <= LABELLED_BARS:
        for bars in ax.containers:
            values = [bar.get_y() + bar.get_height() for bar in bars]
            labels = ["" if value != value else number(float(value)) for value in values]
            ax.bar_label(bars, labels, padding=2, rotation=90, fontsize=points() * 0.75)
        ax.margins(y=0.16)
    name_ticks(ax, groups)
    ax.tick_params(axis="x", length=0)


def bar_style(index: int) -> dict[str, Any]:
    """Colour and hatch of the bars of one series."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "hatch": HATCHES[index % len(HATCHES)],
        "edgecolor": "white",
        "linewidth": 0.0,
    }
