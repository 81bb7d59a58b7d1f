"""Which share of a source's messages goes where, by weights and clusters."""

from __future__ import annotations

import pytest
from jscore_server.config.parser import parse
from jscore_server.config.schema import options_from


def shares_of(text: str, cluster: str = "") -> list[tuple[str, str, int]]:
    from jscore_server.config.subject_mapping import shares

    tree = parse(text, "x.conf", read=lambda path: "", environ={})
    options, _ = options_from(tree, "x.conf")
    assert options.refusals == []
    return shares(options.mappings, cluster)


def test_order_and_weights_are_those_of_the_file():
    text = 'mappings { b: x, "a.*": [{dest: "y.$1", weight: 30%}, {destination: z, weight: 20}] }\nmaps { a: c }'
    assert shares_of(text) == [("b", "x", 100), ("a.*", "y.$1", 30), ("a.*", "z", 20), ("a", "c", 100)]


def test_a_listed_source_takes_no_more_than_its_weight():
    text = "mappings { a: [{dest: b, weight: 50}, {dest: a, weight: 20}] }"
    assert shares_of(text) == [("a", "b", 50), ("a", "a", 20), ("a", "", 30)]


@pytest.mark.parametrize(("cluster", "expected"), [("X", [("a", "b", 60)]), ("", [("a", "c", 30)])])
def test_destinations_of_a_cluster(cluster, expected):
    text = "mappings { a: [{dest: b, weight: 60, cluster: X}, {dest: c, weight: 30}] }"
    assert shares_of(text, cluster) == expected


def test_a_mapping_without_destinations_keeps_messages_where_they_are():
    assert shares_of('mappings { a: [], b: "" }') == [("a", "", 0), ("b", "", 0)]


def test_what_stands_around_a_function_is_left_out():
    assert shares_of('mappings { "a.*": "b.{{x {{ wildcard( 1 ) }}}}" }')[0][1] == "b.{{wildcard( 1 )}}"


def test_mappings_of_an_account():
    tree = parse("accounts { A { maps { a: b } } }", "x.conf", read=lambda path: "", environ={})
    options, _ = options_from(tree, "x.conf")
    assert [mapping.source for mapping in options.accounts["A"].mappings] == ["a"]
    assert options.refusals == []
