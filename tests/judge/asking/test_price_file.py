"""A user's file of prices: all faults by line, and an entry more with everything else left as it was."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preceptor.constitution.errors import UserError
from preceptor.judge.asking.price_file import add, read_file, read_prices
from preceptor.judge.settings import Price

FILE = """# what we pay
openai/ours: {input: 0.2, output: 0.8}   # negotiated

# the old one
together/llama:
  input: 0.1     # per million
  output: 0.3
  long: {above: 1000, input: 0.2, output: 0.6}
  dated: 2026-02-03

# the end
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return path


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "openai/a: {input: 1}\n"
        "nobody: {input: 1, output: 1}\n"
        "openai/b: {input: 1, output: 1}\n"
        "openai/c:\n  input: 1\n  output: -2\n  dated: 2026-02-31\n"
        "openai/d: {input: 1, output: 1, flex_input: 1}\n",
    )
    found = read_file(path)
    places = [fault.removeprefix(f"{path}:").split(":")[0] for fault in found.faults]
    assert places == ["1", "2", "6", "7", "8"]
    assert list(found.entries) == ["openai/b"]
    assert "output: field required" in found.faults[0]
    assert "'2026-02-31' is no day" in found.faults[3]
    assert "flex_input and flex_output go together" in found.faults[4]
    with pytest.raises(UserError) as told:
        read_prices(path)
    assert str(told.value).splitlines() == list(found.faults)


def test_an_entry_more_leaves_every_line_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    before = read_prices(path)
    price = add(path, "openai/new", {"input": 1, "output": 2, "dated": "2026-11-30"})
    assert path.read_text() == FILE + "openai/new: {input: 1, output: 2, dated: 2026-11-30}\n"
    assert read_prices(path) == {**before, "openai/new": price}


@pytest.mark.parametrize("name", ["openai/ours", "together/llama"])
def test_an_entry_is_written_over_only_where_that_is_wanted(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, FILE)
    before = read_prices(path)
    with pytest.raises(UserError, match=f"{name} has a price here already; add --replace"):
        add(path, name, {"input": 7, "output": 8})
    assert path.read_text() == FILE
    add(path, name, {"input": 7, "output": 8}, replace=True)
    assert read_prices(path) == {**before, name: Price(input=7, output=8)}
    for comment in ("# what we pay", "# the old one", "# the end"):
        assert comment in path.read_text()


def test_a_file_that_has_faults_or_another_form_stays_as_it_is(tmp_path: Path) -> None:
    for text, said in (
        ("openai/a: {input: 1}\n", "mend it first"),
        ("{openai/a: {input: 1, output: 1}}\n", "by hand"),
    ):
        path = written(tmp_path, text)
        with pytest.raises(UserError, match=said):
            add(path, "openai/b", {"input": 1, "output": 1})
        assert path.read_text() == text


names = st.text(string.ascii_lowercase + string.digits + "-./:", min_size=1, max_size=12).map(
    lambda s: f"p/x{s}x"
)
usd = st.floats(0, 1000, allow_nan=False, width=16)
fields = st.fixed_dictionaries(
    {"input": usd, "output": usd},
    optional={
        "cached_input": usd,
        "cache_write_long": usd,
        "long": st.lists(
            st.fixed_dictionaries({"above": st.integers(1, 10**6), "input": usd, "output": usd}), max_size=2
        ),
        "shutdown": st.dates().map(str),
        "source": st.text(max_size=10),
    },
)


@settings(max_examples=30, deadline=None)
@example(
    [("p/x", {"input": 0.0, "output": 0.0}), ("p/x", {"input": 0.0, "output": 0.0, "source": "a\x85b\u2028"})]
)
@given(st.lists(st.tuples(names, fields), max_size=5))
def test_what_was_added_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, dict[str, Any]]]
) -> None:
    path = tmp_path_factory.mktemp("prices") / "prices.yaml"
    wanted: dict[str, Price] = {}
    for name, values in entries:
        wanted[name] = add(path, name, values, replace=True)
    assert (read_prices(path) if entries else {}) == wanted
