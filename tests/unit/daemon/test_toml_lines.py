from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_daemon.toml_lines import Lines


def test_lines_are_found_in_every_form_of_toml() -> None:
    source = '''\
# comment = 1
a = """
b = 2
""""
'q.q' = [ # [x]
  "]", { n = 1 },
]
 [ t . "u.v" ]
"c\\u0064" = 1 # e = 2
x.y = {z = 1,
 w = 2}
[[list]]
k = \'\'\'
[no]
\'\'\'
[last]
end = 1'''
    lines = Lines(source)
    for path, line in [
        (("a",), 2),
        (("q.q",), 5),
        (("t",), 8),
        (("t", "u.v"), 8),
        (("t", "u.v", "cd"), 9),
        (("t", "u.v", "x"), 10),
        (("t", "u.v", "x", "y", "z"), 10),
        (("list",), 12),
        (("list", "k"), 13),
        (("last",), 16),
        (("last", "end"), 17),
        (("last", "none"), 16),
    ]:
        assert lines.of(path) == line, path
    assert lines.of(("b",)) == 1, "a line inside a text is no key"
    assert lines.of(("no",)) == 1


KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True),
    st.from_regex(r'"[^"\\\x00-\x1f\x7f\ud800-\udfff]{0,6}"', fullmatch=True),
    st.from_regex(r"'[^'\x00-\x1f\x7f\ud800-\udfff]{0,6}'", fullmatch=True),
)
VALUES = st.sampled_from(
    [
        "1",
        '"a # [b"',
        "'{'",
        '"""x\n[y]\nz = 1\n"" """"',
        "'''\n'a = 1\n'''",
        "[1, # ]\n [2,\n 'x']]",
        '{a = [1], "b" = {c = ""}}',
        "2020-01-01 # end",
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["", "\n", "# c\n", " \t"]))))
def test_lines_are_those_where_the_keys_were_written(
    entries: list[tuple[str, str, str]],
) -> None:
    source, line = "", 1
    wanted: dict[tuple[str, ...], int] = {}
    for key, value, before in entries:
        source += before
        line += before.count("\n")
        name = key[1:-1] if key[0] in "\"'" else key
        wanted.setdefault((name,), line)
        source += f"{key} = {value}\n"
        line += value.count("\n") + 1
    lines = Lines(source)
    assert {path: lines.of(path) for path in wanted} == wanted
