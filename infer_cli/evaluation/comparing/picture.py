"""A picture of comparisons: dots with intervals, as SVG or PNG. The same comparisons give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal, get_args

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.dots import DotGroup
from infer_cli.text.sanitize import single_line

PictureFormat = Literal["svg", "png"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)

_WIDTH, _ROW, _AROUND = 7.0, 0.32, 1.1  # inches: of a picture, of a dot's row, of title and axis
_TOLD, _UNTOLD = "#0b5fa5", "#8a8a8a"


def require_matplotlib() -> None:
    """Raises UsageError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        if e.name != "matplotlib":
            raise
        raise UsageError(
            "matplotlib, which draws pictures, is not installed", "pip install 'infer-cli[report]'"
        ) from None


def picture(groups: Sequence[DotGroup], format_: PictureFormat) -> bytes:
    """An image file. A filled dot is a run that is told apart."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [len(group.dots) for group in groups]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own: the bytes are the comparisons' alone
        matplotlib.rcParams.update(
            {"svg.hashsalt": "infer", "svg.fonttype": "none", "text.parse_math": False}
        )
        figure = Figure(figsize=(_WIDTH, sum(rows) * _ROW + len(rows) * _AROUND), layout="constrained")
        axes = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": rows})
        for group, (axis,) in zip(groups, axes, strict=True):
            _draw(axis, group)
        buffer = io.BytesIO()
        # Without the date and the library's version.
        metadata = {"Date": None, "Creator": None} if format_ == "svg" else {"Software": None}
        figure.savefig(buffer, format=format_, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _draw(axis: object, group: DotGroup) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    axis.axvline(0, color="black", linewidth=0.8)
    for place, dot in enumerate(group.dots):
        colour = _TOLD if dot.told_apart else _UNTOLD
        if dot.interval is not None:
            axis.hlines(place, *dot.interval, color=colour, linewidth=1.6)
        axis.plot([dot.value], [place], "o", color=colour, mfc=colour if dot.told_apart else "white")
    axis.set_yticks(range(len(group.dots)), [single_line(dot.label) for dot in group.dots])
    axis.set_ylim(len(group.dots) - 0.5, -0.5)
    axis.set_title(single_line(group.title), loc="left", fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
