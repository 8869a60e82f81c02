# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What a fleet is asked, in SQL. This is the one definition, whichever engine runs it.

The contents of a fleet are divided by the first bits of their fingerprints into parts, and no part needs another one: an engine asks each
part, and adds up. The tables of a part are

    held    f, s, n, c      a row for each contents that a source has: the fingerprint, the source's number, how many of its pages have
                            it, and its class as a number. The contents of pages of zeros is 0, and in the first part
    place   s, h, t, g      for each source its host, its tenant and its group, as numbers

and PREPARE makes

    met     f, k, c         each contents that several sources have, and that is not zero: how many have it, and its class
    common  f, s, n, c, k   the rows of held that have such contents

Each query gives rows whose last columns, `sums` of them, are to be added up by those in front.
"""

from __future__ import annotations

from typing import NamedTuple

CHUNK = 1 << 13  # contents in a string of bits
DENSE = 20  # contents that more than one in so many sources have are counted by bits


class Query(NamedTuple):
    """`table`: the answer may have many rows, and stays a table of Arrow."""

    name: str
    text: str
    sums: int
    table: bool = False


PREPARE = [
    """CREATE OR REPLACE TEMP TABLE met AS
       SELECT f, count(*)::UINTEGER AS k, min(c) AS c FROM held WHERE f <> 0 GROUP BY f HAVING count(*) > 1""",
    "CREATE OR REPLACE TEMP TABLE common AS SELECT held.f, s, n, met.c, k FROM held JOIN met ON held.f = met.f",
]

# Of each source and class: pages, and contents; of these, contents that other sources have, too
HELD = Query("held", "SELECT s, c, sum(n)::HUGEINT, count(*) FROM held GROUP BY s, c", 2)
COMMON = Query("common", "SELECT s, c, sum(n)::HUGEINT, count(*) FROM common GROUP BY s, c", 2)
# Of each class: contents that several sources have
MET = Query("met", "SELECT c, count(*) FROM met GROUP BY c", 1)
# Of each host and class: such contents that are there
HOSTS = Query("hosts", "SELECT h, c, count(*) FROM (SELECT DISTINCT f, h, c FROM common JOIN place USING (s)) GROUP BY h, c", 1)

# Of each class: contents that several tenants have, and their pages
ACROSS = """
    WITH own AS (SELECT f, t, c, sum(n) AS n FROM common JOIN place USING (s) GROUP BY f, t, c),
         several AS (SELECT f FROM own GROUP BY f HAVING count(*) > 1)"""
TENANTS = Query("tenants", ACROSS + """
    SELECT c, count(*), sum(pages)::HUGEINT FROM (
        SELECT f, c, sum(n) AS pages FROM own JOIN several USING (f) GROUP BY f, c
    ) GROUP BY c""", 2)  # fmt: skip
# Of each tenant and class: his pages of such contents
OWNERS = Query("owners", ACROSS + " SELECT t, c, sum(n)::HUGEINT FROM own JOIN several USING (f) GROUP BY t, c", 1)
# Of each host: what merging across tenants saves there. Of n tenants with a contents, n - 1 have no page of their own for it
TOGETHER = Query("together", """
    SELECT h, sum(tenants - 1)::HUGEINT FROM (
        SELECT f, h, count(DISTINCT t) AS tenants FROM common JOIN place USING (s) GROUP BY f, h
    ) WHERE tenants > 1 GROUP BY h""", 1)  # fmt: skip

# Of each group: what merging across its sources saves if all live on one host, and where they live now
GROUPS = Query("groups", """
    SELECT g, sum(sources - 1)::HUGEINT, sum(sources - hosts)::HUGEINT FROM (
        SELECT f, g, count(*) AS sources, count(DISTINCT h) AS hosts FROM common JOIN place USING (s) WHERE g IS NOT NULL GROUP BY f, g
    ) WHERE sources > 1 GROUP BY g""", 2)  # fmt: skip

# For all sets of sources: contents that exactly these have
PATTERNS = Query("patterns", """
    SELECT sources, count(*) FROM (SELECT list_sort(list(s)) AS sources FROM common GROUP BY f) GROUP BY sources""", 1)  # fmt: skip


def pairs(sources: int, sample: int = 1) -> Query:
    """For each two of so many sources, contents that both have; of `sample` contents, one counts.

    Contents that few sources have are joined with themselves, which takes a step for each pair of them. For those that many have, each
    source has strings of bits, a bit for each contents, and each two sources count the bits that both have.
    """
    least = max(8, sources // DENSE)
    counts = f"AND {sampled('f', sample)}" if sample > 1 else ""
    return Query("pairs", f"""
    WITH few AS (SELECT f, s FROM common WHERE k <= {least} {counts}),
         numbered AS (SELECT f, (row_number() OVER ()) - 1 AS i FROM met WHERE k > {least} {counts}),
         bits AS (
             SELECT s, i // {CHUNK} AS chunk, bitstring_agg((i % {CHUNK})::INTEGER, 0, {CHUNK - 1}) AS bits
             FROM common JOIN numbered USING (f) GROUP BY s, chunk)
    SELECT a, b, sum(contents)::UBIGINT AS contents FROM (
        SELECT a.s AS a, b.s AS b, count(*) AS contents FROM few AS a JOIN few AS b ON a.f = b.f AND a.s < b.s GROUP BY a.s, b.s
        UNION ALL
        SELECT a.s, b.s, sum(bit_count(a.bits & b.bits)) FROM bits AS a JOIN bits AS b ON a.chunk = b.chunk AND a.s < b.s GROUP BY a.s, b.s
    ) WHERE contents > 0 GROUP BY a, b""", 1, table=True)  # fmt: skip


def sampled(fingerprint: str, sample: int) -> str:
    """The condition that holds for one of `sample` fingerprints. The last bits decide, and the first ones divide the parts."""
    return f"({fingerprint} & 18446744073709551615::UHUGEINT)::UBIGINT % {sample} = 0"
