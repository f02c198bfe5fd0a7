"""Templates are strict, sandboxed, and keep untrusted text between its own markers."""

from __future__ import annotations

import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.constitution.principle import Principle
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import Message
from preceptor.prompts.template import SLOTS, Template, defuse, load, nonce, parse

HEADER = '---\nkind: compare\nverdict: {a: "Verdict: A", b: "Verdict: B"}\n---\n'
MARKERS = st.sampled_from(
    [
        "<<<REPLY_A",
        "<<<END_REPLY_A",
        "<<<<end_reply_b",
        "<<< END_CONVERSATION",
        ">>>",
        " 0f3c>>>",
        "\n",
        "x",
        "<",
    ]
)
HOSTILE = st.lists(MARKERS | st.text(max_size=5), max_size=8).map("".join)


def slots(kind: str, **changed: Any) -> dict[str, Any]:
    """Every slot of a kind, filled."""
    principle = Principle(
        id="kind", text="Choose the kind one.", critique="Say where.", revision="Rewrite it."
    )
    filled = {
        "messages": (Message(role="user", content="Hello"),),
        "response": "a reply",
        "response_a": "first reply",
        "response_b": "second reply",
        "principle": principle,
        "principles": (principle,),
        "critique": "too short",
        "name": "A",
        "between": "<<<REPLIES c0ffee>>>",
        "menu": load("score").menu if kind == "score" else {"a": "Verdict: A", "b": "Verdict: B"},
        "reasoning": False,
        "nonce": "c0ffee",
        "shots": (),
        "structured": False,
    }
    return {name: value for name, value in {**filled, **changed}.items() if name in SLOTS[kind]}


def text_of(template: Template, **changed: Any) -> str:
    return "\n".join(message.content for message in template.render(**slots(template.kind, **changed)))


@pytest.mark.parametrize("kind", sorted(SLOTS))
@pytest.mark.parametrize("dialect", ["", "embedded"])
def test_shipped_templates_render(kind: str, dialect: str) -> None:
    messages = load(kind, dialect).render(**slots(kind))
    assert messages[-1].role == "user"
    assert all(message.content == message.content.strip() != "" for message in messages)


@pytest.mark.parametrize("kind", sorted(SLOTS))
@pytest.mark.parametrize("dialect", ["", "embedded"])
def test_shipped_templates_use_every_text(kind: str, dialect: str) -> None:
    """What is judged, criticised or rewritten stands in the request word for word."""
    text = text_of(load(kind, dialect))
    texts = {
        "response": "a reply",
        "response_a": "first reply",
        "response_b": "second reply",
        "critique": "too short",
    }
    for name in SLOTS[kind] & set(texts):
        assert texts[name] in text
    assert "Hello" in text


def test_an_unknown_dialect_reads_the_general_words() -> None:
    assert load("compare", "klingon") == load("compare")
    assert load("compare", "embedded") != load("compare")


@pytest.mark.parametrize("reasoning", [True, False])
def test_the_instructions_come_before_the_material_and_name_the_menu(reasoning: bool) -> None:
    """So that providers' prompt caches hold the part that is the same for all pairs."""
    system, user = load("compare").render(**slots("compare", reasoning=reasoning))
    assert (system.role, user.role) == ("system", "user")
    assert system.content.endswith("Verdict: A\nVerdict: B")
    assert "Choose the kind one." in system.content
    assert "c0ffee" not in system.content
    assert "first reply" not in system.content


def test_several_principles_are_listed_with_their_weights() -> None:
    principles = (
        Principle(id="one", text="Choose one."),
        Principle(id="two", text="Choose two.", weight=2.5),
    )
    text = text_of(load("compare"), principles=principles)
    assert "1. (weight 1.0) Choose one." in text
    assert "2. (weight 2.5) Choose two." in text


def test_worked_examples_and_the_form_of_json_stand_in_the_part_that_is_cached() -> None:
    shot = {
        "number": 1,
        "prompt": "Why?",
        "response_a": "Because.",
        "response_b": "Go away.",
        "because": "It answers.",
        "verdict": "Verdict: A",
    }
    system, user = load("compare").render(**slots("compare", shots=(shot,), structured=True, reasoning=True))
    assert "Message: Why?\nReply A: Because.\nReply B: Go away.\nIt answers.\nVerdict: A\n" in system.content
    assert '"reasoning" and "verdict"' in system.content
    assert "Because." not in user.content


def test_every_missing_slot_is_named() -> None:
    template = parse("mine.jinja", HEADER + "{{ response_a }} {{ response_b }} {{ nonce }}")
    with pytest.raises(TemplateError, match=r"mine\.jinja: missing nonce, response_a; fill every slot"):
        template.render(response_b="b")


def test_a_slot_that_does_not_exist_is_named() -> None:
    with pytest.raises(TemplateError, match=r"no slot named reply; a compare one has .*response_a"):
        load("compare").render(**slots("compare"), reply="x")


def test_a_body_without_blocks_is_one_user_message() -> None:
    assert parse("mine", HEADER + "Compare {{ response_a }}.\n").render(response_a="x") == (
        Message(role="user", content="Compare x."),
    )


def test_blocks_become_messages_in_the_order_of_the_file() -> None:
    body = "{% block user %}u{% endblock %}\n\n{# a note #}\n{% block system %}s{% endblock %}\n"
    assert [message.role for message in parse("mine", HEADER + body).render()] == ["user", "system"]


def test_an_empty_block_makes_no_message() -> None:
    body = "{% block system %} {% endblock %}{% block user %}u{% endblock %}"
    assert [message.role for message in parse("mine", HEADER + body).render()] == ["user"]


def test_a_block_is_rendered_once_for_the_same_slots_and_anew_for_others() -> None:
    body = "{% block system %}{{ principles[0].text }}{% endblock %}{% block user %}{{ response_a }}{% endblock %}"
    template = parse("mine", HEADER + body)

    def texts(principle: str, reply: str) -> list[str]:
        principles = (Principle(id="one", text=principle),)
        return [
            message.content for message in template.render(principles=principles, response_a=reply, nonce="")
        ]

    assert texts("Choose one.", "x") == ["Choose one.", "x"]
    assert texts("Choose one.", "y") == ["Choose one.", "y"]
    assert texts("Choose two.", "y") == ["Choose two.", "y"]
    assert texts("Choose one.", "x") == ["Choose one.", "x"]


def test_a_block_that_holds_another_is_rendered_anew_with_it() -> None:
    body = "{% block system %}{{ self.user() }}!{% endblock %}{% block user %}{{ response_a }}{% endblock %}"
    template = parse("mine", HEADER + body)
    for reply in ("x", "y"):
        assert [message.content for message in template.render(response_a=reply)] == [f"{reply}!", reply]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Compare", r"no front matter; wanted the file to begin with '---'"),
        ("---\nkind: compare\n", r"no front matter"),
        ("---\nkind: [\n---\nx", r"front matter that is no YAML"),
        ("---\n- kind\n---\nx", r"front matter without keys"),
        ("---\nkind: poem\n---\nx", r"kind is 'poem'; wanted one of compare, critique, revise"),
        ("---\nkind: compare\n---\nx", r"verdict is None; wanted \{a: "),
        ("---\nkind: compare\nverdict: {a: A}\n---\nx", r"verdict is \{'a': 'A'\}; wanted"),
        ("---\nkind: compare\nverdict: {a: A, b: B, c: C}\n---\nx", r"verdict is .*'c': 'C'"),
        ("---\nkind: compare\nverdict: {a: 1, b: 2}\n---\nx", r"holds an entry without words"),
        ("---\nkind: compare\nverdict: {a: A, b: 'A '}\n---\nx", r"two verdicts share the words"),
        ("---\nkind: critique\nverdict: {a: A, b: B}\n---\nx", r"a verdict menu in a critique template"),
        ("---\nkind: critique\nauthor: me\n---\nx", r"unknown front matter author; wanted kind and verdict"),
        (HEADER + "line\n{% if %}", r"mine:6: .*; mend the Jinja syntax"),
        (HEADER + "{{ respnse_a }}", r"unknown slot respnse_a; a compare template may use menu, messages"),
        (HEADER + "lost{% block user %}u{% endblock %}", r"outside the blocks would be lost"),
        (
            HEADER + "{% block footer %}u{% endblock %}",
            r"unknown block footer; wanted system, user or assistant",
        ),
    ],
)
def test_faulty_templates_say_what_is_wrong(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        parse("mine", source)


def test_a_template_that_does_not_exist_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        TemplateError, match=r"there is no such template; wanted a \.jinja file or one of compare"
    ):
        load(tmp_path / "none.jinja")
    with pytest.raises(TemplateError, match="cannot be read as UTF-8 text"):
        load(tmp_path)
    (tmp_path / "latin.jinja").write_bytes(b"---\nkind: critique\n---\n\xe9")
    with pytest.raises(TemplateError, match="cannot be read as UTF-8 text"):
        load(tmp_path / "latin.jinja")


@pytest.mark.parametrize(
    "body",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ menu.update({'a': 'x'}) }}",
        "{{ 1 / 0 }}",
        "{% include 'other.jinja' %}",
        "{{ response_a.nothing.more }}",
    ],
)
def test_the_sandbox_turns_mischief_into_a_message(body: str) -> None:
    with pytest.raises(TemplateError, match="cannot be rendered"):
        parse("mine", HEADER + body).render(**slots("compare"))


def test_a_template_that_renders_to_nothing() -> None:
    with pytest.raises(TemplateError, match="rendered to nothing"):
        parse("mine", HEADER + "{# nothing #}").render()


def test_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "dos.jinja"
    path.write_bytes((HEADER + "{{ response_a }}\n").replace("\n", "\r\n").encode())
    assert load(path).render(response_a="x")[0].content == "x"


@given(HOSTILE)
def test_defusing_twice_changes_nothing_more(text: str) -> None:
    assert defuse(defuse(text)) == defuse(text)


@given(HOSTILE)
def test_defusing_only_spaces_out_angle_brackets(text: str) -> None:
    assert defuse(text).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", [">>> print(1)", "<<<<<<< HEAD", "a << 3", "Verdict: A", "REPLY_A", "<<<HEREDOC"]
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert defuse(text) == text


@given(a=HOSTILE, b=HOSTILE, asked=HOSTILE)
def test_no_text_can_close_its_fence(a: str, b: str, asked: str) -> None:
    """The request holds each of our markers exactly once, in their order, whatever the texts try."""
    messages = (Message(role="user", content=asked),)
    user = (
        load("compare").render(**slots("compare", messages=messages, response_a=a, response_b=b))[-1].content
    )
    found = re.findall(r"<{3,}\s*((?:END_)?(?:CONVERSATION|REPLY_[AB]))", user, re.IGNORECASE)
    assert found == ["CONVERSATION", "END_CONVERSATION", "REPLY_A", "END_REPLY_A", "REPLY_B", "END_REPLY_B"]


@given(st.integers(), st.text(), st.text())
def test_the_nonce_is_a_pure_function_of_everything(seed: int, first: str, second: str) -> None:
    assert nonce(seed, first, second) == nonce(seed, first, second)
    assert nonce(seed, first, second) != nonce(seed + 1, first, second)
    assert nonce(seed, first, second) != nonce(seed, first + "x", second)
    assert re.fullmatch(r"[0-9a-f]{12}", nonce(seed, first, second))


ENDLESS = {
    "loops in loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": (
        "{% macro more(n) %}{% if n %}{{ more(n - 1) }}{{ more(n - 1) }}{% endif %}{% endmacro %}{{ more(60) }}"
    ),
    "a filter over loops": "{{ range(90000)|map('string')|map('wordwrap', 1)|list|join * 90000 }}"
    "{% for i in range(90000) %}{{ range(90000)|sum }}{% endfor %}",
}


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer swallows the interruption")
@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("blocks", [False, True])
def test_a_template_that_does_not_end_is_told(
    monkeypatch: pytest.MonkeyPatch, body: str, blocks: bool
) -> None:
    monkeypatch.setattr("preceptor.prompts.template.LIMIT_S", 0.2)
    body = f"{{% block user %}}{body}{{% endblock %}}" if blocks else body
    template = parse("mine.jinja", f"---\nkind: critique\n---\n{body}\n")
    with pytest.raises(
        TemplateError, match=r"mine.jinja: cannot be rendered: it takes longer than 0.2 s; look for"
    ):
        template.render()


@pytest.mark.parametrize(
    "much",
    [
        '{{ "%300000000d" % 1 }}',
        '{{ "%*d" % (300000000, 1) }}',
        '{{ "{:300000000}".format(1) }}',
        '{{ "{:{}}".format(1, 300000000) }}',
        '{{ "%300000000d"|format(1) }}',
        '{{ "x" * 300000000 }}',
        '{{ 300000000 * "x" }}',
        "{{ [1] * 300000000 }}",
        '{{ "x"|center(300000000) }}',
        '{{ "x".ljust(300000000) }}',
        '{{ "x"|attr("zfill")(300000000) }}',
        '{{ ["x"]|map("center", 300000000)|list }}',
        '{{ "\t".expandtabs(300000000) }}',
        '{{ "x"|indent(300000000, true) }}',
        "{{ [[1]]|tojson(300000000) }}",
        '{% set x = "x" * 90000 %}{{ x|replace("x", x) }}',
        '{% set x = "x" * 90000 %}{{ x.replace("", x) }}',
        '{% set x = "x" * 90000 %}{{ ([x] * 90000)|join }}',
        '{% set x = "x" * 90000 %}{{ x.join(x) }}',
        '{% set x = "x" * 90000 %}{{ [x] * 90000 }}',
        '{% set x = "x" * 90000 %}{{ ("%s" * 900) % ((x,) * 900) }}',
        '{% set x = "x" * 90000 %}{{ x.translate({120: x}) }}',
        "{% set n = namespace(x='x') %}{% for _ in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for _ in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for _ in range(40) %}"
        "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
        "{% for _ in range(90000) %}{{ 'x' * 90000 }}{% endfor %}",
        "{% block user %}{% for _ in range(90000) %}{{ 'x' * 90000 }}{% endfor %}{% endblock %}",
        "{{ lipsum(100000) }}",
    ],
)
def test_a_template_that_makes_too_much_is_refused_before_it_is_made(much: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match=r"characters|digits|at most|unknown slot lipsum"):
            parse("mine.jinja", f"---\nkind: critique\n---\n{much}\n").render()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100 * 2**20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('{{ "%5.1f|%-4s|" % (2.25, "a") }}', "2.2|a   |"),
        ('{{ "{:>4}{}".format(1, "b") }}', "1b"),
        ('{{ "a" ~ 1 ~ [2] }}', "a1[2]"),
        ('{{ ["a", "b"]|join(", ") }}', "a, b"),
        ('{{ ["a", "b"]|map("upper")|join }}', "AB"),
        ('{{ "a-b".replace("-", "+") }}', "a+b"),
        ('{{ "a\nb"|indent(2) }}', "a\n  b"),
        ('{{ {"a": [1]}|tojson }}', '{"a": [1]}'),
        ('{{ "ab" * 3 }}{{ 2 * 3 }}{{ 7 % 4 }}{{ [1] + [2] }}', "ababab63[1, 2]"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(5) }}", "<5>"),
        ("{{ 12345678 }} {{ 12345678|string }}", "12345678 12345678"),
    ],
)
def test_what_a_template_should_make_it_makes(words: str, said: str) -> None:
    made = parse("mine.jinja", f"---\nkind: critique\n---\n{words}\n").render()
    assert made[0].content.strip() == said


def test_long_replies_are_no_fault_of_a_template() -> None:
    long = "word\n" * 500_000
    own = parse("mine.jinja", "---\nkind: revise\n---\n{{ response|defuse|indent(2)|replace('\\n', ' ') }}\n")
    assert len(own.render(response=long)[0].content) > 3_000_000


def test_a_power_that_nobody_can_work_out_is_refused() -> None:
    def made(power: str) -> str:
        return parse("mine.jinja", f"---\nkind: critique\n---\n{{{{ {power} }}}}\n").render()[0].content

    assert made("2 ** 100 + 2 ** -1") == str(2**100 + 0.5)
    with pytest.raises(TemplateError, match="a power of too many digits"):
        made("10 ** (10 ** 10)")
