"""A definition without its names is the same for two indexes that are the same."""

from __future__ import annotations

import pytest

from perfctl.indexes.canonical_text import canonical_text, statistics_text


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ("CREATE INDEX i ON public.t USING btree (a)", "USING btree (a)"),
        ("CREATE UNIQUE INDEX i ON public.t USING btree (a)", "UNIQUE USING btree (a)"),
        ("CREATE INDEX i ON ONLY public.t USING btree (a)", "USING btree (a)"),
        ("CREATE INDEX i ON pg_temp_3.t USING gin (doc)", "USING gin (doc)"),
        ('CREATE INDEX "a b" ON "S x"."T.y" USING btree (a)', "USING btree (a)"),
        ('CREATE INDEX "say ""hi""" ON t USING btree (a)', "USING btree (a)"),
        ('CREATE INDEX " ON x USING " ON t USING btree (a)', "USING btree (a)"),
        ('CREATE INDEX "CREATE UNIQUE INDEX" ON t USING btree (a)', "USING btree (a)"),
        ("CREATE INDEX größe ON t USING btree (a)", "USING btree (a)"),
        (
            "CREATE INDEX i ON t USING btree (a) WHERE (b = 'CREATE INDEX x ON t USING '::text)",
            "USING btree (a) WHERE (b = 'CREATE INDEX x ON t USING '::text)",
        ),
    ],
)
def test_an_index_is_stripped_of_its_names(definition: str, text: str) -> None:
    assert canonical_text(definition) == text


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ("CREATE STATISTICS public.s ON a, b FROM t", "ON a, b"),
        ("CREATE STATISTICS public.s (mcv) ON a, b FROM public.t", "(mcv) ON a, b"),
        ('CREATE STATISTICS "S"."x y" ON a, lower(b) FROM "T t"', "ON a, lower(b)"),
        ("CREATE STATISTICS s ON a, EXTRACT(year FROM b) FROM t", "ON a, EXTRACT(year FROM b)"),
    ],
)
def test_statistics_are_stripped_of_their_names(definition: str, text: str) -> None:
    assert statistics_text(definition) == text


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        (
            "WHERE ((c)::text = ANY ((ARRAY['x'::character varying, 'y'::character varying])::text[]))",
            "WHERE ((c)::text = ANY (ARRAY[('x'::character varying)::text, ('y'::character varying)::text]))",
        ),
        (
            "WHERE ((c)::text = ANY ((ARRAY['x'::character varying(5)])::character varying(9)[]))",
            "WHERE ((c)::text = ANY (ARRAY[('x'::character varying(5))::character varying(9)]))",
        ),
        (
            """((ARRAY['it''s, ])::text[]'::"my, type", f(c, 'y')])::public.other[])""",
            """(ARRAY[('it''s, ])::text[]'::"my, type")::public.other, (f(c, 'y'))::public.other])""",
        ),
        (
            "((ARRAY[((ARRAY[c])::text[])[1], d])::varchar[])",
            "(ARRAY[((ARRAY[(c)::text])[1])::varchar, (d)::varchar])",
        ),
        # An array without a cast, one in a string, and a constant stay as they are.
        ("(f(ARRAY[a, b]) > 1)", "(f(ARRAY[a, b]) > 1)"),
        ("((ARRAY[a, b])[1])", "((ARRAY[a, b])[1])"),
        ("(c = '((ARRAY[a])::text[])'::text)", "(c = '((ARRAY[a])::text[])'::text)"),
        ("(f = ANY (('{1,2}'::integer[])::numeric[]))", "(f = ANY (('{1,2}'::integer[])::numeric[]))"),
        ("((ARRAY[a, b", "((ARRAY[a, b"),
    ],
)
def test_a_cast_of_an_array_is_told_as_casts_of_its_elements(definition: str, text: str) -> None:
    assert canonical_text(definition) == text
    assert canonical_text(text) == text
