from __future__ import annotations

from imgassets_tests.imaging.conftest import photos

__all__ = ["photos"]
