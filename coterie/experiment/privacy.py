"""What a run's [privacy] means for its other tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coterie.core.errors import Mistake
from coterie.privacy.table import Privacy


@contextmanager
def mistakes_about_privacy() -> Iterator[None]:
    """Name the table of the keys that `coterie.plan` takes as `privacy`."""
    try:
        yield
    except Mistake as mistake:
        is_ours = not mistake.table and (mistake.key or "").partition(".")[0] in Privacy.__dataclass_fields__
        raise (mistake.in_table("privacy") if is_ours else mistake) from mistake.__cause__
