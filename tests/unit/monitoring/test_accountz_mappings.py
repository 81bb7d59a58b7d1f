"""How /accountz shows subject mappings: each destination with the sum of the percents up to it, as nats-server does."""

from __future__ import annotations

import pytest
from jscore_server.config.parser import parse
from jscore_server.config.schema import options_from
from jscore_server.monitoring.accountz import account_mappings


def shown(text: str, account: str = "$G") -> dict[str, list[tuple[str, int, str]]]:
    options, _ = options_from(parse(text, "x.conf", read=lambda path: "", environ={}), "x.conf")
    body = account_mappings(options, account)
    return {
        source: [(row["subject"], row["weight"], row.get("cluster", "")) for row in rows]
        for source, rows in body.items()
    }


@pytest.mark.parametrize(
    ("mapping", "rows"),
    [
        ('"foo.*": "bar.{{wildcard(1)}}"', [("bar.{{wildcard(1)}}", 100, "")]),
        (
            "w: [{destination: b, weight: 40%}, {destination: a, weight: 30%}]",
            [("a", 30, ""), ("w", 60, ""), ("b", 100, "")],
        ),
        ("own: [{destination: own, weight: 20}, {destination: o2, weight: 10}]", [("o2", 10, ""), ("own", 30, "")]),
        ('"w.*.b.*": [{destination: "a.$2.$1", weight: 30}]', [("a.$2.$1", 30, ""), ("w.$1.b.$2", 100, "")]),
        ("zero: [{destination: k, weight: 0}]", [("k", 0, ""), ("zero", 100, "")]),
        ("c: [{destination: d, weight: 100, cluster: X}]", [("c", 100, ""), ("d", 100, "X")]),
        (
            "c: [{destination: d, weight: 40, cluster: X}, {destination: e, weight: 20, cluster: X},"
            " {destination: f, weight: 50}]",
            [("f", 50, ""), ("c", 100, ""), ("e", 20, "X"), ("d", 60, "X"), ("c", 100, "X")],
        ),
    ],
)
def test_a_mapping(mapping: str, rows: list[tuple[str, int, str]]) -> None:
    assert list(shown(f"mappings {{ {mapping} }}").values()) == [rows]


def test_each_account_shows_its_own() -> None:
    text = "mappings { b: x, a: y }\naccounts { A { mappings { c: z } }, B {} }"
    assert list(shown(text)) == ["a", "b"]
    assert shown(text, "A") == {"c": [("z", 100, "")]}
    assert shown(text, "B") == {}
