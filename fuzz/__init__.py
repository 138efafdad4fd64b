"""Looks for what untrusted input does to infer: damaged files, hostile texts, lying servers.

`python -m fuzz TARGET` runs one target, `python -m fuzz all` each of them; docs/fuzzing.md says how. Not
part of the package that is installed.
"""
