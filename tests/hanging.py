"""A template whose work no count of sizes sees."""

from __future__ import annotations

# Integers with one hash: looking each up among the others is quadratic.
_ALIKE = ",".join(str(i * (2**61 - 1)) for i in range(8000))
HANG = "{% set x = [" + _ALIKE + "] %}{% for i in range(99) %}{{ x|unique|list|length }}{% endfor %}"
