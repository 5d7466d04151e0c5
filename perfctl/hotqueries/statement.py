"""What a statement does, by PostgreSQL's own grammar. Pure."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import postgast
from google.protobuf.message import DecodeError

from perfctl.hotqueries.head import Bad
from perfctl.hotqueries.model import Kind

_WRITES = {"insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"}
_INNER_WRITES = {"LockingClause", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}
_OTHERS = {"create_table_as_stmt", "declare_cursor_stmt", "execute_stmt"}
#: without one of these words a SELECT neither writes nor locks
_MAY_WRITE = re.compile(r"\b(?:into|insert|update|delete|merge|for)\b", re.IGNORECASE)


def kind_of(sql: str, before: int) -> Kind:
    """What the statement does, by PostgreSQL's own grammar.

    ``before`` is how many lines stand before it. Raises Bad for no statement that has a plan, or several.
    """
    try:
        tree = postgast.parse(sql)
    except postgast.PgQueryError as error:
        at = max(0, (error.cursorpos or 1) - 1)
        hint = "give each parameter a name: :name or %(name)s" if re.search(r"%s\b|=\s*\?", sql) else None
        raise Bad(error.message, before + 1 + sql.count("\n", 0, at), hint) from None
    except DecodeError:
        # The grammar took it; its tree is deeper than protobuf reads.
        hint = "put the long chain of operators into parentheses by halves, or into = ANY (ARRAY[…]) or concat(…)"
        raise Bad("expressions are nested too deep to be looked at", before + 1, hint) from None
    if len(tree.stmts) != 1:
        raise Bad("more than one statement", before + 1)
    statement = tree.stmts[0].stmt
    (top,) = [descriptor.name for descriptor, _ in statement.ListFields()]
    if top in _WRITES:
        return Kind.WRITE
    if top in _OTHERS:
        return Kind.OTHER
    if top != "select_stmt":
        _refuse_kind(top, before)
    if not _MAY_WRITE.search(sql):
        # Going through the tree takes most of the time of reading a query.
        return Kind.SELECT
    parts = _parts(statement)
    if "IntoClause" in parts:
        return Kind.OTHER
    return Kind.WRITE if parts.keys() & _INNER_WRITES else Kind.SELECT


def _refuse_kind(top: str, before: int) -> NoReturn:
    what = top.removesuffix("_stmt").replace("_", " ").upper()
    raise Bad(f"{what} has no plan", before + 1, "a hot query is a SELECT, INSERT, UPDATE, DELETE or MERGE")


def _parts(tree: Any) -> dict[str, list[Any]]:
    """Every part of the tree by its kind: the tree is gone through once, for that takes most of the time."""
    found: dict[str, list[Any]] = {}
    left = [tree]
    while left:
        message = left.pop()
        for descriptor, value in message.ListFields():
            kind = descriptor.message_type
            if kind is None:
                continue
            each = list(value) if descriptor.is_repeated else [value]
            left += each
            found.setdefault(kind.name, []).extend(each)
    return found
