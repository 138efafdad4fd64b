"""`--show-context`: the budget of a window on stderr, as a bar, as plain lines, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from infer_cli.cli.screen.terminal import columns_of, is_coloured
from infer_cli.process.stream_filter import styled
from infer_cli.prompt.budget import Budget
from infer_cli.text.sanitize import single_line

BAR_WIDTH = 60  # at most
_LEAST_NAME = 6  # characters of a name that a narrow terminal shows
_COLOURS = (36, 33, 32, 35, 34)  # of the parts in turn; bright black is the reply's
_REPLY_COLOUR = 90
_FULL, _FREE = "█", "░"


def show_budget(budget: Budget, truncation: Mapping[str, object] | None, *, as_json: bool) -> None:
    """Write to stderr: with `as_json` one line of JSON, a coloured bar on a terminal, lines elsewhere."""
    if sys.stderr is None:
        return
    if as_json:
        print(json.dumps({"context": budget.as_json(truncation)}), file=sys.stderr)
        return
    is_terminal = sys.stderr.isatty()
    columns = columns_of(sys.stderr) if is_terminal else None
    lines = _lines(budget, columns=columns, coloured=is_coloured(sys.stderr))
    styled(sys.stderr).write("\n".join(lines) + "\n")


def _lines(budget: Budget, *, columns: int | None, coloured: bool) -> list[str]:
    """A bar and lines that are no wider than `columns`; without them lines alone."""
    rows = [(part.what, part.tokens, _COLOURS[i % len(_COLOURS)]) for i, part in enumerate(budget.parts)]
    rows.append(("reserved for the reply", budget.reserve, _REPLY_COLOUR))
    names = [single_line(what) for what, _, _ in rows]
    last = ("free", budget.free) if budget.free >= 0 else ("too many", -budget.free)
    width = max(map(len, (*names, last[0], "window")))
    digits = len(str(max(budget.window, *(abs(n) for _, n, _ in rows), last[1])))

    if columns is not None:
        width = min(width, max(columns - digits - 2 - 2 * coloured, _LEAST_NAME))

    def line(name: str, tokens: int, colour: int | None = None) -> str:
        mark = "" if colour is None or not coloured else f"\x1b[{colour}m{_FULL}\x1b[0m "
        gap = "  " if coloured and not mark else ""
        name = name if len(name) <= width else name[: width - 1] + "…"
        return f"{mark}{gap}{name:<{width}}  {tokens:>{digits}}"

    shares = [(n, colour) for _, n, colour in rows]
    lines = [] if columns is None else [_bar(shares, budget, min(columns, BAR_WIDTH), coloured)]
    lines.append(line("window", budget.window))
    lines += [line(name, n, colour) for name, (_, n, colour) in zip(names, rows, strict=True)]
    return [*lines, line(*last)]


def _bar(shares: list[tuple[int, int]], budget: Budget, width: int, coloured: bool) -> str:
    """Cells of the window, cut where prompt and reply are more than it."""
    cells, done, drawn = "", 0, 0
    for tokens, colour in shares:
        done += tokens
        upto = min(width, max(drawn, done * width // budget.window))
        block = _FULL * (upto - drawn)
        cells += f"\x1b[{colour}m{block}\x1b[0m" if coloured and block else block
        drawn = upto
    return cells + _FREE * (width - drawn)
