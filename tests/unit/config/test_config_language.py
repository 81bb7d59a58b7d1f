"""The configuration language: values, structure, variables, includes, and the place of every error."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jscore_server.config.lexer import ConfigError
from jscore_server.config.parser import MAX_DEPTH, Node, digest, parse


def plain(node_or_tree):
    value = node_or_tree.value if isinstance(node_or_tree, Node) else node_or_tree
    if isinstance(value, dict):
        return {name: plain(entry.node) for name, entry in value.items()}
    if isinstance(value, list):
        return [plain(node) for node in value]
    return value


def tree_of(text, files=None, environ=None):
    def read(path):
        try:
            return (files or {})[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return parse(text, "dir/x.conf", read=read, environ=environ or {})


def values(text, **kw):
    return plain(tree_of(text, **kw))


def fault(text, **kw):
    with pytest.raises(ConfigError) as caught:
        tree_of(text, **kw)
    assert len(caught.value.errors) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("YES", True),
        ("oFF", False),
        ('"true"', "true"),
        ("truex", "truex"),
        ("0", 0),
        ("-17", -17),
        ("1k", 1000),
        ("1kb", 1024),
        ("1Ki", 1024),
        ("2KiB", 2048),
        ("1m", 10**6),
        ("1MB", 2**20),
        ("1eib", 2**60),
        ("9223372036854775807", 2**63 - 1),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        ("2026-11-24T01:02:03Z", datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)),
        ("127.0.0.1:4222", "127.0.0.1:4222"),
        ("0.0.0.0", "0.0.0.0"),
        ("5s", "5s"),
        ("1h30m", "1h30m"),
        ("1kix", "1kix"),
        ("a#b", "a#b"),
        ("nats://h:1", "nats://h:1"),
        (r"a\tb\x41", "a\tbA"),
        (r'"\xC3\xA9\n\"\\"', 'é\n"\\'),
        (r"'a\q'", r"a\q"),
        ("'a\nb'", "a\nb"),
        ("(\n a)\n)\n", "\n a)\n"),
        ("$2a$11$abc", "$2a$11$abc"),
        ("[1, 2\n3 # c\n 'x', // d\n]", [1, 2, 3, "x"]),
        ("[[a], {b: 1}]", [["a"], {"b": 1}]),
        ("{a: 1, b 2; c = {d\n 3}\n}", {"a": 1, "b": 2, "c": {"d": 3}}),
        ("", ""),
    ],
)
def test_value(text, value):
    got = values(f"k: {text}")["k"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: x",
        "a = 1; b = x",
        "a 1, b x",
        "{ a: 1\n b: x }",
        '{"a": 1, "b": "x"}',
        "a\n1\nb : x # end",
        "// c\n\na: 1 // d\r\nb=x\r\n",
        "a: 2\na: 1\nb: x",
    ],
)
def test_separators_comments_and_braces_are_a_matter_of_taste(text):
    assert values(text) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\n  b: 'x", "2:6", "closing '"),
        ('a: "\\q"', "1:5", "after the backslash"),
        ("a:\n1", "1:3", "on the same line"),
        ("a: 1 b: 2", "1:6", "got 'b'"),
        ("\n\njetstream {\n  a: 1", "3:11", "a '}' for this one"),
        ("a: [1,,2]", "1:7", "got ','"),
        ("a: [x y]", "1:7", "got 'y'"),
        ("a: [", "1:4", "a ']' for this one"),
        ("a: .5", "1:4", "before the '.'"),
        ("a: 1.x", "1:6", "after the '.'"),
        ("a: 12-3", "1:4", "a date such as"),
        ("a: 9223372036854775808", "1:4", "64 bits"),
        ("a: 1kbb", "1:4", "a size such as"),
        ("a: -x", "1:5", "a digit after '-'"),
        ("= 5", "1:1", "expected a key"),
        ("a: 1\nb", "2:1", 'a value for "b"'),
        ("a: $NOPE", "1:4", "$NOPE"),
        ("a: (x\n)y", "1:4", "only ')'"),
        ("a: x\0y", "1:5", "NUL"),
        ("m { a: }", "1:8", "expected a value"),
    ],
)
def test_every_error_names_file_line_and_column(text, where, what):
    message = fault(text)
    assert message.startswith(f"dir/x.conf:{where}: expected ")
    assert what in message
    assert "\n" not in message


def test_a_variable_is_looked_up_inner_to_outer_then_in_the_environment():
    text = "A: 1\nm { A: 2, n { x: $A }, y: $A }\nz: $A\ne: $E"
    got = values(text, environ={"E": "{p: $F}", "F": "3k", "A": "9"})
    assert got == {"A": 1, "m": {"A": 2, "n": {"x": 2}, "y": 2}, "z": 1, "e": {"p": 3000}}


def test_a_variable_does_not_see_into_a_closed_map_nor_below():
    assert "$b" in fault("m { b: 1 }\nx: $b")
    assert "$b" in fault("x: $b\nb: 1")


def test_a_used_key_is_marked():
    tree = tree_of("A: 1\nB: 2\nc: $A")
    assert tree["A"].used
    assert not tree["B"].used


def test_environment_variables_that_name_each_other_end():
    assert "refers to itself" in fault("a: $X", environ={"X": "$Y", "Y": "$X"})
    chain = {f"V{n}": f"$V{n + 1}" for n in range(100)}
    assert "at most" in fault("a: $V0", environ=chain)


def test_an_error_in_a_variable_names_the_place_of_its_use():
    assert fault("\na: $X", environ={"X": "1 2"}).startswith("dir/x.conf:2:4: ")


def test_include_merges_at_its_place_and_keeps_its_own_scope():
    files = {"dir/i.conf": "b: 2\nZ: 5", "dir/sub/j.conf": "include '../k.conf'", "dir/sub/../k.conf": "c: 3"}
    text = 'b: 1\ninclude i.conf\nx: $Z\nm { include "/sub/j.conf" }'
    assert values(text, files=files) == {"b": 2, "Z": 5, "x": 5, "m": {"c": 3}}
    assert "$q" in fault("q: 1\ninclude i.conf", files={"dir/i.conf": "x: $q"})


def test_errors_of_an_included_file_name_that_file():
    assert fault("include i.conf", files={"dir/i.conf": "a: 1\nb"}).startswith("dir/i.conf:2:1: ")
    assert fault("\ninclude i.conf").startswith("dir/x.conf:2:9: ")


def test_a_file_that_includes_itself_is_refused():
    assert "include each other" in fault("include x.conf", files={"dir/x.conf": "include x.conf"})
    bushy = {"dir/x.conf": "include x.conf\n" * 50}
    assert "include each other" in fault("include x.conf", files=bushy)


def test_depth_and_growth_are_bounded():
    assert values("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert f"at most {MAX_DEPTH}" in fault("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert "at most" in fault("a: " + "{a:" * 5000)
    doubling = "v0: [1]\n" + "".join(f"v{n + 1}: [$v{n}, $v{n}]\n" for n in range(60))
    assert "values" in fault(doubling) or "at most" in fault(doubling)
    nested = "v0: [[]]\n" + "".join(f"v{n + 1}: [$v{n}]\n" for n in range(MAX_DEPTH + 1))
    assert "within each other" in fault(nested)


PIECES = [*"ab1k-.$:= \t\n\r,;#/\"'\\x[]{}()TZ", "include ", "true", "é", "\udcff", "\n)\n", "a: ", "$a", "$b"]
LANGUAGE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(LANGUAGE, st.text()))
def test_any_text_parses_or_raises_with_a_place(text):
    message = ""
    try:
        tree = tree_of(text, files={"dir/a": "b: 1"}, environ={"a": text, "b": "{k: [1]}"})
        assert digest(tree).startswith("sha256:")
    except ConfigError as err:
        message = str(err)
    assert message == "" or re.fullmatch(r"dir/(x\.conf|a):\d+:\d+: .*", message)


def test_digest_ignores_order_layout_and_comments():
    assert digest(tree_of("a: 1\nb { c: x, d: 2.50 }")) == digest(tree_of("# c\nb {d = 2.5; c 'x'}\na = 1"))
    assert digest(tree_of("a: 1")) != digest(tree_of("a: '1'"))
