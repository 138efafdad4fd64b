"""Data in a page: JSON that no HTML parser can take for anything else, and hashes of what may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re

# What could end a script element or begin a comment, the two line ends of JavaScript that JSON has not, and
# halves of characters, which no UTF-8 has.
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def script_json(value: object) -> str:
    """Fit for `<script type="application/json">`. Raises ValueError for NaN and infinities."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def source_hash(text: str) -> str:
    """What a content security policy calls an inline script or style of this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
