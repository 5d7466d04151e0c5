"""Says of a test which fault of the project's list it brings about."""

from __future__ import annotations

import pytest


def fault(number: int, what: str, does: str) -> pytest.MarkDecorator:
    """Mark a test with a fault's number, the fault, and what perfctl does when it comes.

    They are literals or constants of the module, which test_table reads without running the file.
    """
    return pytest.mark.fault(number, what, does)
