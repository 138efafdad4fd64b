"""Child processes begin with this script: `python -m MODULE` without the working directory on its path.

Arguments: the folder of our package (empty: not our module), the module, and the module's own. The script
lies alone in its folder, since Python puts that on the path. Imports nothing of ours.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    script, root, module = sys.argv[:3]
    del sys.argv[1:3]
    if sys.path[:1] == [os.path.dirname(script)]:  # not with -I or PYTHONSAFEPATH
        del sys.path[0]
    if root and root not in sys.path:
        sys.path.insert(0, root)  # a checkout that is not installed
    import runpy

    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
