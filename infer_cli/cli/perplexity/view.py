"""A measurement as lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.scoring.measurement import ComparedWith, Measurement
    from infer_cli.scoring.statistics import Estimate
    from infer_cli.scoring.windows import Windowing

_OF_PPL = 4  # decimals, llama-perplexity's
_OF_KL = 6


def table(measured: Measurement) -> str:
    """Aligned lines: a name, and what it is."""
    found, bits = measured.found, measured.found.bits_per_byte
    rows = [
        ("perplexity", ppl_text(found.ppl)),
        ("bits per byte", "none" if bits is None else f"{bits:.{_OF_PPL}f}"),
        ("scored", f"{found.n_tokens} tokens, {found.n_bytes} bytes"),
        ("windows", _windows_text(found.n_windows, measured.windowing)),
        ("mode", measured.mode),
    ]
    if measured.against is not None:
        rows += _against_rows(measured.against)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def ppl_text(estimate: Estimate) -> str:
    """`20.8146 ± 0.1461`."""
    return _with_error(estimate, _OF_PPL)


def kl_text(estimate: Estimate) -> str:
    """`0.012345 ± 0.000678`."""
    return _with_error(estimate, _OF_KL)


def _with_error(estimate: Estimate, decimals: int) -> str:
    value, error = estimate
    if not math.isfinite(error):
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _windows_text(n: int, windowing: Windowing) -> str:
    text = f"{n} of {windowing.window} tokens"
    if windowing.stride is not None:
        text += f", one every {windowing.stride}"
    return f"{text}, rolling" if windowing.rolling else text


def _against_rows(against: ComparedWith) -> list[tuple[str, str]]:
    far = against.divergence
    same = far.same_top
    return [
        ("against", single_line(against.provenance.model.name or "")),
        ("its perplexity", ppl_text(against.ppl)),
        ("ratio", kl_text(far.ppl_ratio)),
        ("KL mean", kl_text(far.kl_mean)),
        ("KL median", f"{far.kl_median:.{_OF_KL}f}"),
        ("KL 99%", f"{far.kl_p99:.{_OF_KL}f}"),
        ("same top", f"{100 * same.value:.3f}% ± {100 * same.error:.3f}%"),
    ]
