"""Many prompts from a file, each reply written as it ends: what `infer batch` and `infer merge` do.

Knows no command line and no terminal.
"""
