"""Starts Python programs by forking a process that has their libraries imported already.

`server` is that process, `client` asks it, `processes` finds a process that it started again.
"""
