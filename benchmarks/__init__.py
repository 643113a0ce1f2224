"""Benchmarks of imgassets: speed, quality and mutation tests, compared with other programs.

Commands and results are in `benchmarks/README.md` and `benchmarks/quality/README.md`.
"""
