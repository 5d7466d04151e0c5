"""One migration's text into statements, by PostgreSQL's own grammar (libpg_query).

The grammar's tree says what a statement is; what is sent to a server is always the text as written, never
text printed from the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import postgast
from postgast import pg_query_pb2 as pb

from perfctl.errors import MigrationError
from perfctl.migrations.model import (
    BUILD_SETTINGS,
    DUMP_SETTINGS,
    OWN_SETTINGS,
    Analyze,
    CommentOnIndex,
    CreateExtension,
    CreateIndex,
    CreateStatistics,
    DropIndex,
    Name,
    Note,
    Place,
    SetSetting,
    Source,
    Statement,
)

#: psql commands that change nothing on the server; anything else behind a backslash may read files or run programs.
_PSQL_HARMLESS = {
    "set", "unset", "echo", "qecho", "warn", "timing", "pset", "x", "t", "a",
    "encoding", "restrict", "unrestrict", "prompt", "errverbose",
}  # fmt: skip

#: Names longer than this are cut by the server without a word (NAMEDATALEN - 1).
LONGEST_NAME = 63

_ALLOWED = "allowed: CREATE INDEX, DROP INDEX, COMMENT ON INDEX, ANALYZE, CREATE STATISTICS, CREATE EXTENSION, SET"
_CURES = {
    "transaction_stmt": "take BEGIN and COMMIT out: indexes are built one by one outside a transaction",
    "alter_table_stmt": "keep ALTER statements in the migrations of your schema tool",
    "reindex_stmt": "to rebuild an index, drop it and create it under the same name in one migration",
}


def parse(source: Source) -> tuple[tuple[Statement, ...], tuple[Note, ...]]:
    """The statements of a file and what was passed over in it.

    Raises MigrationError with file, line, column and a caret for whatever is not valid SQL or not allowed.
    """
    source, notes = _without_psql_commands(source)
    try:
        tree = postgast.parse(source.text)
    except postgast.PgQueryError as error:
        _refuse_syntax(source, error)
    statements: list[Statement] = []
    settings: dict[str, str] = {}
    for raw in tree.stmts:
        reader = _Reader(source, raw)
        for statement in reader.read():
            if isinstance(statement, SetSetting):
                if statement.name in BUILD_SETTINGS:
                    settings[statement.name] = statement.value
                else:
                    notes.append(Note(statement.place, f'setting "{statement.name}" passed over'))
            statements.append(replace(statement, settings=tuple(settings.items())))
    return tuple(statements), tuple(notes)


def _without_psql_commands(source: Source) -> tuple[Source, list[Note]]:
    """Blank out psql's own lines, byte for byte, so that every offset stays what it was."""
    notes: list[Note] = []
    lines = source.text.split("\n")
    for number, line in enumerate(lines):
        command = re.match(r"\s*\\(\S*)", line)
        if not command or _inside_token("\n".join(lines[:number])):
            continue
        place = Place(source.path, number + 1, line.index("\\") + 1)
        if command[1] not in _PSQL_HARMLESS:
            _refuse(
                source,
                place,
                f'psql command "\\{command[1]}" is not allowed in a migration',
                "only those that print or format",
            )
        notes.append(Note(place, f'psql command "\\{command[1]}" passed over'))
        lines[number] = " " * len(line.encode())
    if not notes:
        return source, notes
    text = "\n".join(lines)
    return Source(source.path, text, text.encode()), notes


def _inside_token(before: str) -> bool:
    """True when the text ends inside a string, a quoted name or a comment."""
    try:
        postgast.scan(before)
    except postgast.PgQueryError:
        return True
    return False


def _refuse(source: Source, place: Place, message: str, hint: str | None = None) -> NoReturn:
    raise MigrationError(f"{place}: error: {message}\n{source.excerpt(place)}", hint=hint)


def _refuse_syntax(source: Source, error: Any) -> NoReturn:
    # libpg_query counts characters from 1; 0 means that the text ended too early.
    end = len(source.text.rstrip())
    characters = min(error.cursorpos - 1, end) if error.cursorpos else end
    place = source.place(len(source.text[:characters].encode()))
    _refuse(source, place, error.message)


class _Reader:
    """Reads one statement of the tree."""

    def __init__(self, source: Source, raw: Any) -> None:
        self.source = source
        self.start = raw.stmt_location
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(source.data)
        self.text = source.data[self.start : end].decode().strip()
        # Leading white space and comments belong to no statement.
        first = next((t for t in postgast.scan(self.text).tokens if not _is_comment(t)), None)
        skipped = first.start if first else 0
        lead = len(source.data[self.start : end]) - len(source.data[self.start : end].lstrip())
        self.start += lead + skipped
        self.text = self.text.encode()[skipped:].decode()
        self.place = source.place(self.start)
        self.kind = raw.stmt.WhichOneof("node")
        self.node = getattr(raw.stmt, self.kind)

    def read(self) -> Iterator[Statement]:
        """The records of this statement."""
        self._refuse_long_names()
        reader = {
            "index_stmt": self._create_index,
            "drop_stmt": self._drop_index,
            "comment_stmt": self._comment,
            "vacuum_stmt": self._analyze,
            "create_stats_stmt": self._create_statistics,
            "create_extension_stmt": self._create_extension,
            "variable_set_stmt": self._set,
        }.get(self.kind)
        if reader is None:
            self._unsupported()
        return reader()

    def _unsupported(self, what: str | None = None, hint: str | None = None) -> NoReturn:
        words = " ".join(self.text.split()[:3])
        _refuse(
            self.source,
            self.place,
            what or f'"{words}" is not allowed in an index migration',
            hint=hint if what else _CURES.get(self.kind, _ALLOWED),
        )

    def _refuse_long_names(self) -> None:
        """The grammar cuts a long name without a word, as the server does; two names may then be one."""
        data = self.text.encode()
        for token in postgast.scan(self.text).tokens:
            if token.token not in (pb.IDENT, pb.UIDENT):
                continue
            name = data[token.start : token.end].decode().strip('"').replace('""', '"')
            if len(name.encode()) > LONGEST_NAME:
                self.place = self.source.place(self.start + token.start)
                self._unsupported(
                    f'name "{name}" has {len(name.encode())} bytes; PostgreSQL keeps {LONGEST_NAME} and drops the rest',
                    f"shorten it to {LONGEST_NAME} bytes",
                )

    def _names(self, node: Any) -> Name:
        parts = [item.string.sval for item in node.list.items]
        if len(parts) > 2:
            self._unsupported(f'"{".".join(parts)}" has too many dots', "write schema.name")
        return Name(parts[0] if len(parts) == 2 else None, parts[-1])

    def _relation(self, relation: Any) -> Name:
        if relation.catalogname:
            self._unsupported(
                f'"{relation.catalogname}.{relation.schemaname}" names a database',
                "write schema.table: the target says which database",
            )
        return Name(relation.schemaname or None, relation.relname)

    def _create_index(self) -> Iterator[Statement]:
        node = self.node
        if not node.idxname:
            self._unsupported("an index without a name cannot be followed", "name it")
        table = self._relation(node.relation)
        # An index lives in its table's schema.
        name = Name(node.relation.schemaname or None, node.idxname)
        columns = tuple(p.index_elem.name for p in node.index_params)
        yield CreateIndex(
            place=self.place,
            text=self.text,
            name=name,
            table=table,
            tail=self._behind(node.relation.location),
            unique=node.unique,
            concurrently=node.concurrent,
            if_not_exists=node.if_not_exists,
            only=not node.relation.inh,
            method=node.access_method or "btree",
            tablespace=node.table_space or None,
            definition=_definition(node),
            columns=columns,
            partial=node.HasField("where_clause"),
            expression=not all(columns),
        )

    def _behind(self, location: int) -> str:
        """The text behind the relation's name that starts at byte ``location`` of the file."""
        data = self.text.encode()
        tokens = [t for t in postgast.scan(self.text).tokens if not _is_comment(t)]
        at = next(i for i, t in enumerate(tokens) if t.start == location - self.start)
        while tokens[at + 1].token == pb.ASCII_46:  # schema "." table
            at += 2
        if tokens[at + 1].token == pb.ASCII_41:  # ONLY (table)
            at += 1
        if tokens[at + 1].token == pb.ASCII_42:  # table *
            at += 1
        return data[tokens[at].end :].decode().strip()

    def _drop_index(self) -> Iterator[Statement]:
        node = self.node
        if node.remove_type != pb.OBJECT_INDEX:
            self._unsupported()
        for item in node.objects:
            yield DropIndex(
                self.place,
                self.text,
                name=self._names(item),
                concurrently=node.concurrent,
                if_exists=node.missing_ok,
                cascade=node.behavior == pb.DROP_CASCADE,
            )

    def _comment(self) -> Iterator[Statement]:
        if self.node.objtype != pb.OBJECT_INDEX:
            self._unsupported()
        yield CommentOnIndex(
            self.place, self.text, name=self._names(self.node.object), comment=self.node.comment or None
        )

    def _analyze(self) -> Iterator[Statement]:
        if self.node.is_vacuumcmd:
            self._unsupported()
        if not self.node.rels:
            self._unsupported("ANALYZE without a table reads the whole database", "name the tables")
        for item in self.node.rels:
            relation = item.vacuum_relation
            yield Analyze(
                self.place,
                self.text,
                table=self._relation(relation.relation),
                columns=tuple(column.string.sval for column in relation.va_cols),
            )

    def _create_statistics(self) -> Iterator[Statement]:
        node = self.node
        parts = [item.string.sval for item in node.defnames]
        if not parts or len(parts) > 2:
            self._unsupported("CREATE STATISTICS needs a name", "without one it cannot be found again")
        relations = [item.range_var for item in node.relations]
        tokens = [t for t in postgast.scan(self.text).tokens if not _is_comment(t)]
        dots = [t for t in tokens if t.start < relations[0].location - self.start]
        from_ = max(i for i, t in enumerate(dots) if t.token == pb.FROM)
        name_end = _statistics_name_end(tokens)
        tail = self.text.encode()[name_end : tokens[from_].start].decode().strip()
        yield CreateStatistics(
            self.place,
            self.text,
            name=Name(parts[0] if len(parts) == 2 else None, parts[-1]),
            table=self._relation(relations[0]),
            tail=tail,
        )

    def _create_extension(self) -> Iterator[Statement]:
        yield CreateExtension(self.place, self.text, name=self.node.extname)

    def _set(self) -> Iterator[Statement]:
        node = self.node
        if node.is_local:
            self._unsupported("a local setting ends with its transaction, and there is none", "write SET")
        if node.kind != pb.VAR_SET_VALUE:
            self._unsupported("only SET name = value is allowed", "settings last until the end of the file")
        if node.name not in BUILD_SETTINGS | OWN_SETTINGS | DUMP_SETTINGS:
            self._unsupported(f'setting "{node.name}" does not bear on building indexes', "take the line out")
        yield SetSetting(self.place, self.text, name=node.name, value=_setting_value(node))


def _is_comment(token: Any) -> bool:
    return token.token in (pb.SQL_COMMENT, pb.C_COMMENT)


def _statistics_name_end(tokens: list[Any]) -> int:
    """The byte behind the name in ``CREATE STATISTICS [IF NOT EXISTS] [schema.]name``."""
    at = 2
    if tokens[at].token == pb.IF_P:
        at += 3
    while tokens[at + 1].token == pb.ASCII_46:
        at += 2
    return int(tokens[at].end)


def _setting_value(node: Any) -> str:
    """The value as ``set_config`` takes it; several (a search_path) are quoted and joined by commas."""
    values = []
    for arg in node.args:
        constant = arg.a_const
        kind = constant.WhichOneof("val")
        match kind:
            case "sval":
                values.append(constant.sval.sval)
            case "ival":
                values.append(str(constant.ival.ival))
            case "fval":
                values.append(constant.fval.fval)
            case "boolval":
                values.append("on" if constant.boolval.boolval else "off")
    if node.name != "search_path":
        return ", ".join(values)
    return ", ".join('"' + value.replace('"', '""') + '"' for value in values)


def _definition(node: Any) -> str:
    """What makes two CREATE INDEX statements the same index: everything but its name and how it is built."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.concurrent = copy.if_not_exists = False
    copy.idxname = ""
    result = pb.ParseResult()
    raw = result.stmts.add()
    raw.stmt.index_stmt.CopyFrom(copy)
    return str(postgast.deparse(result))
