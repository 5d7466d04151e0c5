"""An index on a whole partitioned table, and the tree that it is made of: PostgreSQL builds it only at a stroke. Pure.

The parent's comes first, ON ONLY it: from then on a new partition gets its part by itself. Then each partition's own
index is built concurrently and attached, lowest level first, and only when it is valid: PostgreSQL attaches an invalid
one without a word, and the whole never becomes valid
(https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITIONING-DECLARATIVE-MAINTENANCE).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from perfctl.indexes.canonical_text import canonical_text
from perfctl.indexes.model import Index, Partition, Snapshot, Wanted
from perfctl.migrations.model import Name

#: NAMEDATALEN - 1 (src/include/pg_config_manual.h)
LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Part:
    """The index that one partition needs; ``index`` is what there is of it already."""

    partition: Partition
    name: Name
    parent: Name
    index: Index | None
    attached: bool

    @property
    def is_leaf(self) -> bool:
        """It holds rows; the others only hold their parts together."""
        return self.partition.relkind != "p"


def parts(wanted: Wanted, text: str | None, seen: Snapshot) -> list[Part]:
    """What each table below a partitioned one needs, parents before their children."""
    assert wanted.table is not None
    names = {wanted.table.oid: wanted.name}
    indexes: dict[int, Index | None] = {wanted.table.oid: seen.by_name.get(wanted.name)}
    found = []
    for partition in seen.partitions:
        if partition.root_oid != wanted.table.oid or partition.parent_oid not in names:
            continue
        above = indexes[partition.parent_oid]
        name = fitted(partition.full_name, wanted.name.name)
        index, attached = _there(partition, name, above, text, seen)
        names[partition.oid] = index.full_name if index else name
        indexes[partition.oid] = index
        found.append(Part(partition, names[partition.oid], names[partition.parent_oid], index, attached))
    return found


def _there(
    partition: Partition, name: Name, above: Index | None, text: str | None, seen: Snapshot
) -> tuple[Index | None, bool]:
    """The partition's part: attached, under the name that perfctl gives it, or built by somebody and fit for it."""
    own = seen.by_table.get(partition.oid, [])
    if above is not None and (part := next((i for i in own if i.parent_oid == above.oid), None)) is not None:
        return part, True
    if (index := seen.by_name.get(name)) is not None:
        return index, False
    fit = (
        i
        for i in own
        if i.parent_oid is None and i.is_good and not i.constraint_name and canonical_text(i.definition) == text
    )
    return next(fit, None), False


def fitted(partition: Name, index: str) -> Name:
    """The name of a partition's part: the same at every run, and never cut by the server."""
    return Name(partition.schema, shortened(f"{partition.name}_{index}"))


def shortened(name: str) -> str:
    """The name itself where it fits, else its beginning and a mark that tells it from others of that beginning."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + "_" + mark


def suffixed(name: Name, suffix: str) -> Name:
    """A name beside another one, which still fits."""
    return Name(name.schema, shortened(f"{name.name}_{suffix}"))
