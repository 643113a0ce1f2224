from __future__ import annotations

from imgassets_tests.imaging.conftest import detector, model, photos

__all__ = ["detector", "model", "photos"]
