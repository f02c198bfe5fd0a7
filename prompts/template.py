"""Templates: the words of every ask, rendered strictly, with untrusted text fenced.

A template is a Jinja file with YAML front matter (`kind`, and for `compare` and `score` the `verdict` menu). Its blocks
`system` and `user` each become one message, in the order of the file; a body without blocks is one user
message. Templates run in a bounded sandbox (`prompts/sandbox.py`), so that one from elsewhere can only make text,
and no more of it than a model could read; one that is not shipped has a time limit as well, because it can loop.

Text that comes from outside (conversations, replies, critiques) stands between markers that carry a nonce:

    <<<REPLY_A 3f9c…>>>
    the reply
    <<<END_REPLY_A 3f9c…>>>

A text cannot hold its own nonce, because the nonce is a hash over that text; and `defuse` breaks whatever
looks like one of our markers inside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jinja2
from jinja2 import meta, nodes
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from preceptor.constitution.foreign import text_in
from preceptor.prompts.deadline import within
from preceptor.prompts.errors import TemplateError
from preceptor.prompts.records import Message, Role, canonical_json
from preceptor.prompts.sandbox import Sandbox

SLOTS: Mapping[str, frozenset[str]] = {
    "compare": frozenset(
        {"messages", "response_a", "response_b", "principles", "menu", "reasoning", "nonce"}
        | {"shots", "structured"}
    ),
    "side_by_side": frozenset(
        {"messages", "response", "name", "principles", "menu", "nonce", "shots", "between"}
    ),
    "score": frozenset({"messages", "response", "principles", "menu", "reasoning", "nonce"}),
    "critique": frozenset({"messages", "response", "principle", "nonce"}),
    "revise": frozenset({"messages", "response", "critique", "principle", "nonce"}),
}
"""Kind of template -> the slots that it may use."""

LETTERS = ("a", "b", "tie")
GRADES = tuple(str(grade) for grade in range(1, 11))
MENUS: Mapping[str, tuple[tuple[str, ...], frozenset[str], str]] = {
    "compare": (LETTERS, frozenset({"a", "b"}), '{a: "Verdict: A", b: "Verdict: B"}, with or without tie'),
    "side_by_side": (
        LETTERS,
        frozenset({"a", "b"}),
        '{a: "Verdict: A", b: "Verdict: B"}, with or without tie',
    ),
    "score": (GRADES, frozenset(GRADES), '{1: "Score: 1", ..., 10: "Score: 10"}, every grade from 1 to 10'),
}
"""Kind of template -> the verdicts that it may offer, those that it must, and the words for that."""
FRONT_MATTER = re.compile(r"\A---\n(?P<header>.*?)^---\n(?P<body>.*)\Z", re.DOTALL | re.MULTILINE)
LIMIT_S = 10.0
"""Seconds that one message may take to be rendered; what a template should do takes thousandths."""
MARKER = re.compile(r"(?<!<)<{3,}+(?=\s*+(?:END_)?(?:CONVERSATION|REPLY|CRITIQUE))", re.IGNORECASE)


def defuse(text: str) -> str:
    """The text with our own markers broken up ("<<<END_REPLY_A" -> "< < <END_REPLY_A") and otherwise as it
    came.

    Nothing else is touched, because a judge must see what was written: a REPL's `>>>` or a merge conflict's
    `<<<<<<<` is part of the reply. Idempotent.
    """
    return MARKER.sub(lambda found: " ".join(found.group()), text)


def nonce(seed: int, *parts: Any) -> str:
    """Code of a request's markers: 12 hex digits, a pure function of the seed and of all that the request is
    about.
    """
    return hashlib.sha256(canonical_json([seed, *parts]).encode()).hexdigest()[:12]


def _environment() -> Sandbox:
    environment = Sandbox()
    environment.filters["defuse"] = defuse
    return environment


ENVIRONMENT = _environment()


class _Block:
    """A part of a template that becomes one message. The last text is kept with what filled it: what is the same for a
    whole run, as the system block mostly is, is rendered once.
    """

    def __init__(self, role: Role, uses: Iterable[str], render: Callable[[dict[str, Any]], str]) -> None:
        self.role = role
        self._uses = tuple(uses)
        self._render = render
        self._last: tuple[list[Any], str] | None = None

    def text(self, slots: Mapping[str, Any]) -> str:
        """The block with its slots filled; all that it uses are there."""
        # two menus are the same only in the same order
        filled = [
            list(slot.items()) if isinstance(slot := slots[name], Mapping) else slot for name in self._uses
        ]
        if self._last is None or self._last[0] != filled:
            self._last = filled, self._render(dict(slots)).strip()
        return self._last[1]


@dataclass(frozen=True)
class Template:
    """A template that parsed, whose slots all exist."""

    name: str
    """File name or path, for messages."""
    kind: str
    menu: Mapping[str, str]
    """Verdict (`a`, `b`, `tie`; `1` to `10`) -> the words that give it; empty where the kind has none."""
    digest: str
    """SHA-256 of the file's text, for manifests."""
    uses: frozenset[str]
    """Slots that the text mentions."""
    _blocks: tuple[_Block, ...] = field(repr=False, compare=False)
    shipped: bool = False
    """Whether it is one of ours, which ends."""

    def render(self, **slots: Any) -> tuple[Message, ...]:
        """The messages with all slots filled; a block that comes out empty makes no message.

        Raises TemplateError that names every slot that is missing or unknown, or what the template did wrong.
        """
        known = SLOTS[self.kind]
        if unknown := sorted(set(slots) - known):
            raise TemplateError(
                f"{self.name}: no slot named {', '.join(unknown)}; a {self.kind} one has {_listed(known)}"
            )
        if missing := sorted(self.uses - set(slots)):
            raise TemplateError(
                f"{self.name}: missing {', '.join(missing)}; fill every slot that the template uses"
            )
        messages = tuple(Message(role=role, content=text) for role, text in self._texts(slots) if text)
        if not messages:
            raise TemplateError(f"{self.name}: rendered to nothing; wanted text in a system or user block")
        return messages

    def _texts(self, slots: Mapping[str, Any]) -> Iterator[tuple[Role, str]]:
        try:
            for block in self._blocks:
                if self.shipped:
                    yield block.role, block.text(slots)
                else:
                    yield block.role, within(LIMIT_S, partial(block.text, slots))
        except TimeoutError as exc:
            raise TemplateError(
                f"{self.name}: cannot be rendered: {exc}; look for a loop that does not end"
            ) from exc
        except (
            Exception
        ) as exc:  # whatever the expressions of somebody's template raise is the template's fault
            raise TemplateError(f"{self.name}: cannot be rendered: {exc}; mend the template") from exc


def load(kind_or_path: str | Path, dialect: str = "") -> Template:
    """A shipped template by its kind, or a template file by its path.

    For a kind, the dialect's own wording is taken where there is one, else the general one. Raises
    TemplateError for a file that is missing or unreadable, for front matter that is not as it should be, and
    for unknown slots.
    """
    name = str(kind_or_path)
    if name in SLOTS:
        return _shipped(name, dialect)
    try:
        source = text_in(name)
    except FileNotFoundError as exc:
        wanted = f"a .jinja file or one of {_listed(SLOTS)}"
        raise TemplateError(f"{name}: there is no such template; wanted {wanted}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise TemplateError(f"{name}: cannot be read as UTF-8 text: {exc}; wanted a .jinja file") from exc
    return parse(name, source)


@cache
def _shipped(kind: str, dialect: str) -> Template:
    folder = resources.files("preceptor.prompts").joinpath("templates")
    own = folder.joinpath(dialect, f"{kind}.jinja") if dialect else None
    found = own if own is not None and own.is_file() else folder.joinpath(f"{kind}.jinja")
    label = f"{dialect}/{kind}.jinja" if found is own else f"{kind}.jinja"
    return replace(parse(label, found.read_text(encoding="utf-8")), shipped=True)


def parse(name: str, source: str) -> Template:
    """The template in `source`; `name` stands in messages. Raises TemplateError."""
    found = FRONT_MATTER.match(source.replace("\r\n", "\n").removeprefix("\ufeff"))
    if found is None:
        raise TemplateError(
            f"{name}: no front matter; wanted the file to begin with '---', 'kind: compare', "
            "'verdict: {a: \"Verdict: A\", b: \"Verdict: B\"}', '---'"
        )
    kind, menu = _header(name, found["header"])
    try:
        tree = ENVIRONMENT.parse(found["body"])
        compiled = ENVIRONMENT.from_string(found["body"])
    except jinja2.TemplateSyntaxError as exc:
        line = exc.lineno + found["header"].count("\n") + 2
        raise TemplateError(f"{name}:{line}: {exc.message}; mend the Jinja syntax") from exc
    uses = frozenset(meta.find_undeclared_variables(tree)) - set(ENVIRONMENT.globals)
    if unknown := sorted(uses - SLOTS[kind]):
        raise TemplateError(
            f"{name}: unknown slot {', '.join(unknown)}; a {kind} template may use {_listed(SLOTS[kind])}"
        )
    digest = hashlib.sha256(source.encode()).hexdigest()
    return Template(name, kind, menu, digest, uses, _blocks(name, tree, uses, compiled))


def _header(name: str, text: str) -> tuple[str, dict[str, str]]:
    try:
        header = YAML(typ="safe", pure=True).load(text)
    except YAMLError as exc:
        raise TemplateError(f"{name}: front matter that is no YAML: {exc}") from exc
    if not isinstance(header, dict):
        raise TemplateError(
            f"{name}: front matter without keys; wanted kind, and verdict for a compare template"
        )
    if unknown := sorted(str(key) for key in header if key not in ("kind", "verdict")):
        raise TemplateError(f"{name}: unknown front matter {', '.join(unknown)}; wanted kind and verdict")
    kind, menu = str(header.get("kind")), header.get("verdict")
    if kind not in SLOTS:
        raise TemplateError(f"{name}: kind is {header.get('kind')!r}; wanted one of {_listed(SLOTS)}")
    if kind not in MENUS:
        if menu is not None:
            raise TemplateError(
                f"{name}: a verdict menu in a {kind} template; only {_listed(MENUS)} have one"
            )
        return kind, {}
    return kind, _menu(name, kind, menu)


def _menu(name: str, kind: str, menu: Any) -> dict[str, str]:
    letters, needed, wanted = MENUS[kind]
    menu = {str(letter): words for letter, words in menu.items()} if isinstance(menu, dict) else menu
    if not isinstance(menu, dict) or not needed <= set(menu) <= set(letters):
        raise TemplateError(f"{name}: verdict is {menu!r}; wanted {wanted}")
    if not all(isinstance(words, str) and words.strip() for words in menu.values()):
        raise TemplateError(f"{name}: verdict {menu!r} holds an entry without words; wanted {wanted}")
    if len({" ".join(words.split()) for words in menu.values()}) < len(menu):
        raise TemplateError(f"{name}: two verdicts share the words {menu!r}; wanted {wanted}")
    return {letter: menu[letter] for letter in letters if letter in menu}


def _blocks(
    name: str, tree: nodes.Template, uses: frozenset[str], compiled: jinja2.Template
) -> tuple[_Block, ...]:
    """The blocks in the order of the file; text beside them would be lost, and so is refused."""
    blocks = list(tree.find_all(nodes.Block))
    if not blocks:
        return (_Block("user", uses, compiled.render),)
    if wrong := sorted({block.name for block in blocks} - {"system", "user", "assistant"}):
        raise TemplateError(f"{name}: unknown block {', '.join(wrong)}; wanted system, user or assistant")
    if any(not isinstance(node, nodes.Block) and not _is_blank(node) for node in tree.body):
        raise TemplateError(f"{name}: text or code outside the blocks would be lost; move it into a block")
    return tuple(_block(block, uses, compiled) for block in blocks)


def _block(block: nodes.Block, uses: frozenset[str], compiled: jinja2.Template) -> _Block:
    def render(slots: dict[str, Any]) -> str:
        return ENVIRONMENT.concat(compiled.blocks[block.name](compiled.new_context(slots)))

    # by way of `self` a block can hold another
    if all(found.name != "self" for found in block.find_all(nodes.Name)):
        alone = nodes.Template(block.body)
        alone.set_environment(ENVIRONMENT)
        uses &= meta.find_undeclared_variables(alone)
    return _Block(cast(Role, block.name), uses, render)


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output) and all(
        isinstance(part, nodes.TemplateData) and not part.data.strip() for part in node.nodes
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
