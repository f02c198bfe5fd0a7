"""Whether a folder still is what its commands made: every byte of every file, and every row from what it rests on.

Works on a run folder, on what `label` wrote, and on what `train` and `export` wrote. Everything is derived once more:
judgements from the ledger's raw replies, labels from judgements, preferences from labels, counts and costs from both.
Nothing is repaired, nothing is asked, and nothing is written. A folder comes from anybody: whatever it holds, the
answer is a list of findings.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from preceptor import folder
from preceptor.constitution.errors import UserError
from preceptor.constitution.files import load as load_constitution
from preceptor.constitution.foreign import json_in
from preceptor.constitution.principle import Constitution
from preceptor.evaluation import head_to_head
from preceptor.evaluation.oracles import open_oracle
from preceptor.figures import RunManifest
from preceptor.judge.audit.audit import audit
from preceptor.judge.audit.certificate import faults as certificate_faults
from preceptor.judge.audit.drift import verdict
from preceptor.judge.dataset.label_folder import CANARIES, DRIFT, GOLD, PARQUET, RANKINGS
from preceptor.judge.dataset.label_folder import FILES as LABEL_FILES
from preceptor.judge.dataset.label_folder import LABELS as LABEL_ROWS
from preceptor.judge.dataset.label_folder import PREFERENCES as PREFERENCE_ROWS
from preceptor.judge.dataset.manifest import FileFacts, LabelManifest, LabelRows
from preceptor.judge.dataset.publish import BATCH, audited, preference
from preceptor.judge.ledger.location import there
from preceptor.judge.ledger.raw_replies import RawReplies, raw_replies
from preceptor.judge.records import Certificate, DriftLook, Label, Preference, Ranking, Response, Revision
from preceptor.judge.voting.panel import DAWID_SKENE, ballots, dawid_skene, last_votes
from preceptor.judge.voting.ranking import preferences_of
from preceptor.prompts.manifest import MANIFEST, SEALS, SIGNATURE, SUMS, file_hash, files_in, sum_line
from preceptor.prompts.records import Record
from preceptor.prompts.rows import read_records
from preceptor.records import HeldOut, StageRecord
from preceptor.run import derive, signature
from preceptor.run.files import (
    CONSTITUTION,
    FILES,
    HELD_OUT,
    LABELS,
    LEDGER,
    POLICY,
    PPO_HELD_OUT,
    PREFERENCES,
    PROBES,
    REPORT,
    RESPONSES,
    RESULT,
    REVISIONS,
    SUMMARY,
    TUNED_RESPONSES,
    base_name,
    round_folder,
)
from preceptor.settings import DEFAULT_LEDGER
from preceptor.train.export.manifest import ExportManifest
from preceptor.train.loop.manifest import TrainingManifest

RowT = TypeVar("RowT", bound=Record)
HashOf = Callable[[Path], str]
"""SHA-256 of a file, which is taken once."""
AT_ONCE = 500
"""Rows whose calls are looked up together."""
MOST_TOLD = 20
"""Findings of one kind about one file that are told; the others are counted."""
ENDED = "the judges are not those of these labels any more; what they label now is to be certified over a new ledger"
"""What drift says of the judges."""
WITHIN_USD = 1e-6
"""Sums of costs may differ by rounding."""


@dataclass
class Verified:
    """What was found."""

    problems: list[str] = field(default_factory=list)
    """What is wrong, a line each; empty: the folder proves itself."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and who signed."""


def verify(path: Path, ledger: str | None = None, signed_by: Path | None = None) -> Verified:
    """What is wrong with a folder.

    ledger: where the calls are, of a label folder and of a run that named a ledger; other runs bring theirs.
    signed_by: the public key of whoever must have signed. Raises UserError where there is no manifest, for then the
    command that writes it has not finished.
    """
    if not (path / MANIFEST).exists():
        raise UserError(
            f"{path} has no {MANIFEST}; wanted the folder of a finished run, label or train: run its command to the end"
        )
    if ledger is not None and not there(ledger):
        raise UserError(
            f"--ledger {ledger}: there is no ledger here; name the one that the labels were made over"
        )
    signer = signature.public_key(signed_by) if signed_by is not None else None
    return _verified(path, cache(file_hash), ledger, signer)


def _verified(
    path: Path, hash_of: HashOf, ledger: str | None = None, signed_by: str | None = None
) -> Verified:
    found = Verified()
    _guarded(found, lambda: _look(path, found, hash_of, ledger, signed_by))
    return found


def _look(
    path: Path, found: Verified, hash_of: HashOf, ledger: str | None, signed_by: str | None
) -> Iterator[str]:
    manifest = _manifest(path)
    kind = _kind_of(manifest)
    yield from _missing(manifest, kind)
    names = _names(path, kind)
    yield from _sums(path, names, hash_of, complete=kind is not LabelManifest)
    broken, signer = signature.check(path, signed_by)
    if broken:
        yield f"{SIGNATURE}: {broken}"
    elif signer:
        found.notes.append(signer)
    if found.problems or broken:
        return
    yield from _hashes(path, manifest["files"], hash_of)
    if found.problems:
        return  # rows of files that have changed would only say the same again
    if kind is RunManifest:
        yield from _RunProof(path, cast("RunManifest", manifest), found, hash_of, ledger).problems()
    elif kind is LabelManifest:
        yield from _LabelProof(path, cast("LabelManifest", manifest), found, ledger).problems()


def _guarded(found: Verified, prove: Callable[[], Iterator[str]]) -> None:
    """Add what a proof finds. What it stumbles over is a finding: a folder of somebody else's may hold anything."""
    told: Counter[str] = Counter()
    try:
        for problem in prove():
            name = problem.partition(":")[0]
            told[name] += 1
            if told[name] <= MOST_TOLD:
                found.problems.append(problem)
    except UserError as exc:
        found.problems.append(" ".join(str(exc).split()))
    except Exception as exc:
        said = " ".join(str(exc).split())[:300]
        found.problems.append(f"the folder cannot be checked to its end ({type(exc).__name__}: {said})")
    found.problems += [
        f"{name}: {count - MOST_TOLD} more of the kind" for name, count in told.items() if count > MOST_TOLD
    ]


def _manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise UserError(f"{MANIFEST}: is no plain file")
    try:
        value = json_in(path / MANIFEST)
    except (OSError, ValueError) as exc:
        raise UserError(f"{MANIFEST}: cannot be read as JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise UserError(f"{MANIFEST}: holds no JSON object")
    return value


def _kind_of(manifest: Mapping[str, Any]) -> type | None:
    """The record that the manifest was written by; None where it says of none."""
    if manifest.get("command") == "label":
        return LabelManifest
    kinds: dict[str, type] = {"run": RunManifest, "export": ExportManifest}
    return kinds.get(str(manifest.get("kind")), TrainingManifest if "hashes" in manifest else None)


def _missing(manifest: Mapping[str, Any], kind: type | None) -> Iterator[str]:
    """Facts that a manifest lacks, or has in another form."""
    if kind is None:
        yield f"{MANIFEST}: says of no command that it wrote the folder: no command, kind or hashes"
        return
    try:
        TypeAdapter(kind).validate_python(manifest, strict=True)
    except ValidationError as exc:
        for fault in exc.errors(include_url=False, include_input=False):
            place = ".".join(map(str, fault["loc"]))
            yield f"{MANIFEST}: {place} {'is missing' if fault['type'] == 'missing' else fault['msg']}"


def _untrue_costs(named: Mapping[str, float | None]) -> Iterator[str]:
    for name, usd in named.items():
        if usd is not None and not (math.isfinite(usd) and usd >= 0):
            yield f"{MANIFEST}: its {name} is {usd}; nothing costs that"


def _names(path: Path, kind: type | None) -> list[str]:
    """The files that the folder is made of; of labels, which may lie among other things, those that `label` writes."""
    if kind is LabelManifest:
        return [MANIFEST, *(name for name in LABEL_FILES if (path / name).exists())]
    return [name for name in files_in(path) if name not in SEALS - {MANIFEST}]


def _sums(path: Path, names: Sequence[str], hash_of: HashOf, complete: bool) -> Iterator[str]:
    """Whether SHA256SUMS tells of just these files as they are. complete: whether the names are all that lie there."""
    if not (path / SUMS).is_file():
        yield f"{SUMS}: is missing, so that nothing vouches for {MANIFEST}; run the command that made the folder again"
        return
    text = (path / SUMS).read_bytes().decode("utf-8", "replace")
    told = set(text.splitlines(keepends=True))
    wanted: set[str] = set()
    for name in names:
        if not (path / name).is_file():
            yield f"{name}: is no plain file"
            continue
        line = sum_line(name, hash_of(path / name))
        wanted.add(line)
        if line in told:
            continue
        known = next((other for other in told if other[64:] == line[64:]), None)
        if known is None:
            yield f"{name}: is not in {SUMS}; nothing vouches for it"
        else:
            yield f"{name}: its SHA-256 is {line[:12]}…, {SUMS} says {known[:12]}…"
    named = {line[64:] for line in wanted}
    for line in sorted(told - wanted):
        if line[64:] not in named:
            yield f"{line[66:].strip() or SUMS}: is in {SUMS} and not in the folder"
    if not complete and MANIFEST not in {line[66:].strip() for line in told}:
        yield f"{SUMS}: does not name {MANIFEST}"
    if told == wanted and text != "".join(sorted(wanted)):
        yield f"{SUMS}: is not as it was written"
    if any((path / name).is_file() and (path / name).stat().st_size for name in (f"{LEDGER}-wal",)):
        yield f"{LEDGER}: has been written to since; what is new lies in {LEDGER}-wal"


def _hashes(path: Path, files: Mapping[str, FileFacts | str], hash_of: HashOf) -> Iterator[str]:
    for name, facts in files.items():
        here = PurePosixPath(name)
        if here.is_absolute() or ".." in here.parts:
            yield f"{MANIFEST}: names {name}, which is not in the folder"
        elif not (path / name).exists():
            yield f"{name}: is missing"
        elif isinstance(facts, dict):
            if (path / name).stat().st_size != facts["bytes"] or hash_of(path / name) != facts["sha256"]:
                yield f"{name}: is not of the size and hash that {MANIFEST} says"
        elif (found := folder.digest(path / name, hash_of)) != facts:
            yield f"{name}: its SHA-256 is {found[:12]}…, {MANIFEST} says {facts[:12]}…"


class _Proof:
    """What both kinds of folders with labels are proved by."""

    def __init__(self, path: Path, found: Verified, constitution: Constitution) -> None:
        self.path = path
        self.found = found
        self.constitution = constitution

    def rows(self, name: str, kind: type[RowT]) -> Iterator[RowT]:
        """Rows of a file of the folder, which may be empty."""
        here = self.path / name
        return read_records(here, kind) if here.stat().st_size else iter(())

    def judged(
        self, name: str, labels: Iterable[Label], rules: derive.Rules, calls: RawReplies | None
    ) -> Iterator[str]:
        """Labels from judgements, and those from raw replies."""
        for some in _batched(labels, AT_ONCE):
            keys = sorted({one.call for label in some for one in label.judgements if one.call})
            raw = calls.of(keys) if calls is not None else {}
            if calls is not None and len(raw) < len(keys):
                yield from self.lacking(name, keys, raw)
            for label in some:
                faults = [*derive.label_faults(label, rules), *derive.judgement_faults(label, raw, rules)]
                if label.constitution != self.constitution.identity:
                    faults.append(f"it was made under {label.constitution}")
                yield from (f"{name}: {label.id}: {fault}" for fault in faults)

    def tell_less(self, spent: float | None, bill: float) -> None:
        """Note that less is told than is on the bill: that can be honest, for a command does not pay again for what an
        earlier one has paid."""
        if spent is not None and spent < bill - WITHIN_USD:
            self.found.notes.append(
                f"{MANIFEST} says ${spent:.6f}, and its calls are on the bill with ${bill:.6f}: the rest was paid by "
                "other commands over the same ledger, or is not told"
            )

    def lacking(self, name: str, keys: Sequence[str], raw: derive.Calls) -> Iterator[str]:
        """Calls that are not in the ledger."""
        missing = sorted(set(keys) - set(raw))
        yield f"{name}: {len(missing)} of {len(keys)} calls are not in the ledger, such as {missing[0]}"

    def preferred(self, name: str, wanted: Iterable[Preference]) -> Iterator[str]:
        """Every preference is what its label or ranking says, and each of these has its own."""
        rows = self.rows(name, Preference)
        missing = more = 0
        for want in wanted:
            have = next(rows, None)
            missing += have is None
            if have is not None and want != have:
                yield f"{name}: {have.id} is not what its source says"
        more = sum(1 for _ in rows)
        if missing or more:
            yield f"{name}: {missing} rows are missing and {more} are too many"


class _LabelProof(_Proof):
    """A folder of labels."""

    def __init__(self, path: Path, manifest: LabelManifest, found: Verified, ledger: str | None) -> None:
        super().__init__(path, found, Constitution.model_validate(manifest["constitution_content"]))
        self.manifest = manifest
        self.ledger = ledger

    def problems(self) -> Iterator[str]:
        """All that is wrong."""
        settings, rows = self.manifest["settings"], self.manifest["rows"]
        yield from _untrue_costs({"cost_usd": self.manifest["cost_usd"]})
        if self.constitution.identity != self.manifest["constitution"]:
            yield f"{MANIFEST}: its constitution is {self.constitution.identity}, not {self.manifest['constitution']}"
        yield from self.counts(rows)
        pairing = settings["pairs"]
        if pairing is not None:
            yield from self.ranked()
            derived = (one for row in self.rows(RANKINGS, Ranking) for one in preferences_of(row, pairing))
        else:
            made = (preference(label) for label in self.rows(LABEL_ROWS, Label))
            derived = (one for one in made if one is not None)
        yield from self.preferred(PREFERENCE_ROWS, derived)
        yield from self.columns()
        figures = audit(
            audited(self.rows(LABEL_ROWS, Label), rows["in"]), self.constitution, self.manifest["cost_usd"]
        )
        said = self.manifest["audit"]
        if rows["out"] and any(said.get(name) != value for name, value in _as_json(figures).items()):
            yield f"{MANIFEST}: its audit is not that of {LABEL_ROWS}"
        if (certificate := self.manifest.get("certificate")) is not None:
            yield from self.certified(Certificate.model_validate(certificate))
        yield from self.drifted()
        with self.calls() as calls:
            rules = self.rules(settings)
            for name in self.judged_files():
                own = rules._replace(certified=()) if name == CANARIES else rules  # which are never kept back
                yield from self.judged(name, self.rows(name, Label), own, calls)
            if calls is not None:
                yield from self.cost(calls)

    def judged_files(self) -> list[str]:
        """Those that hold labels."""
        return [name for name in (LABEL_ROWS, CANARIES, GOLD) if (self.path / name).exists()]

    @cached_property
    def called(self) -> list[str]:
        """The calls behind all judgements, gathered once: it takes all labels."""
        labels = (label for name in self.judged_files() for label in self.rows(name, Label))
        return sorted({one.call for label in labels for one in label.judgements if one.call})

    @contextmanager
    def calls(self) -> Iterator[RawReplies | None]:
        """The ledger that was named, or the one of the working directory where it holds these calls; else None."""
        place = self.ledger or (DEFAULT_LEDGER if Path(DEFAULT_LEDGER).is_file() else None)
        keys = self.called
        with ExitStack() as stack:
            calls = stack.enter_context(raw_replies(place)) if place and keys else None
            if calls is not None and self.ledger is None and len(calls.of(keys)) < len(keys):
                calls = None
            if calls is None and keys:
                self.found.notes.append(
                    "judgements were not held against the raw replies: name the ledger that has them with --ledger"
                )
            yield calls

    def rules(self, settings: Mapping[str, Any]) -> derive.Rules:
        """By what the folder's labels came of judgements."""
        rules = derive.Rules(
            constitution=self.constitution,
            panels=[(tuple(names), when) for names, when in settings["panels"]],
            rule="majority" if settings["combine"] == "majority" else "mean",
            clamp=tuple(settings["clamp"]) if settings["clamp"] else None,
            own_template=bool(settings["template"]),
            certified=settings.get("certified", ()),
        )
        if settings["combine"] != DAWID_SKENE:
            return rules
        try:
            panel = (label for label in self.rows(LABEL_ROWS, Label) if len(last_votes(label)) > 1)
            found = dawid_skene(ballots(one.model_copy(update={"votes": last_votes(one)}) for one in panel))
        except UserError as exc:
            self.found.notes.append(f"labels were not added up over all judges once more: {exc}")
            found = {
                row.id: 0.5 if row.probability is None else row.probability
                for row in self.rows(LABEL_ROWS, Label)
            }
        return rules._replace(over_all=found)

    def certified(self, said: Certificate) -> Iterator[str]:
        """The certificate is of this constitution and these judges, and says what gold and rows say."""
        for name, own, labelled in (
            ("constitution", said.constitution, self.manifest["constitution"]),
            ("judge", said.judge, self.manifest["judge"]),
        ):
            if own != labelled:
                yield f"{MANIFEST}: its certificate is void: it is of the {name} {own}, not {labelled}"
        if said.granted and [step.threshold for step in said.steps] != self.manifest["settings"].get(
            "certified"
        ):
            yield f"{MANIFEST}: its certificate has other thresholds than its settings"
        gold, rows = list(self.rows(GOLD, Label)), list(self.rows(LABEL_ROWS, Label))
        yield from (f"{MANIFEST}: its certificate: {fault}" for fault in certificate_faults(said, gold, rows))

    def drifted(self) -> Iterator[str]:
        """The manifest says what the looks say; a certificate ends where the judges have drifted."""
        looks = list(self.rows(DRIFT, DriftLook)) if (self.path / DRIFT).exists() else []
        said = self.manifest.get("drift")
        found = verdict(looks) if looks else None
        if said != (None if found is None else _as_json(found)):
            yield f"{MANIFEST}: its drift is not what {DRIFT} says"
        if found is None or found["since"] is None:
            return
        if self.manifest.get("certificate", {}).get("granted"):
            yield f"{MANIFEST}: its certificate ended on {found['since']}: {ENDED}"
        else:
            self.found.notes.append(f"the judges have drifted, found on {found['since']}: {ENDED}")

    def counts(self, rows: LabelRows) -> Iterator[str]:
        """Rows by status, rows out, preferences."""
        found: Counter[str] = Counter(label.status for label in self.rows(LABEL_ROWS, Label))
        for status in {*rows["by_status"], *found}:
            if found[status] != rows["by_status"].get(status, 0):
                said = rows["by_status"].get(status)
                yield f"{LABEL_ROWS}: {found[status]} rows are {status}, {MANIFEST} says {said}"
        for name, told in (("in", rows["in"]), ("out", rows["out"])):
            if found.total() != told:
                yield f"{LABEL_ROWS}: holds {found.total()} rows, {MANIFEST} says {told} {name}"
        preferred = sum(1 for _ in self.rows(PREFERENCE_ROWS, Preference))
        if preferred != rows["preferences"]:
            yield f"{PREFERENCE_ROWS}: holds {preferred} rows, {MANIFEST} says {rows['preferences']}"

    def ranked(self) -> Iterator[str]:
        """Rankings from labels."""
        labels = {label.id: label for label in self.rows(LABEL_ROWS, Label)}
        for row in self.rows(RANKINGS, Ranking):
            yield from (f"{RANKINGS}: {row.id}: {fault}" for fault in derive.ranking_faults(row, labels))

    def columns(self) -> Iterator[str]:
        """The Parquet file holds the same rows as the JSON Lines."""
        from pyarrow import parquet

        lines = self.rows(PREFERENCE_ROWS, Preference)
        count = 0
        with parquet.ParquetFile(self.path / PARQUET) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    want = next(lines, None)
                    count += 1
                    if want is None or want.model_dump(mode="json", exclude={"meta"}) != row:
                        yield f"{PARQUET}: row {count} is not that of {PREFERENCE_ROWS}"
        if next(lines, None) is not None:
            yield f"{PARQUET}: holds {count} rows, {PREFERENCE_ROWS} more"

    def cost(self, calls: RawReplies) -> Iterator[str]:
        """What the run spent is no more than what its calls cost."""
        spent, bill = self.manifest["cost_usd"], calls.spent_usd(self.called)
        settings = self.manifest["settings"]
        beside = self.manifest.get("certificate", {}).get("refused") or settings.get("adaptive")
        elsewhere = settings["recheck"] or beside
        if spent is not None and not elsewhere and spent > bill + WITHIN_USD:
            yield f"{MANIFEST}: says ${spent:.6f} for calls that cost ${bill:.6f}"
        self.tell_less(spent, bill)


class _RunProof(_Proof):
    """A run folder."""

    def __init__(
        self, path: Path, manifest: RunManifest, found: Verified, hash_of: HashOf, ledger: str | None
    ) -> None:
        super().__init__(path, found, load_constitution(path / CONSTITUTION))
        self.manifest = manifest
        self.hash_of = hash_of
        self.ledger = ledger or str(path / LEDGER)
        self.settings = manifest["settings"]
        label = self.settings["label"]
        self.rules = derive.Rules(
            constitution=self.constitution,
            panels=[((self.settings["judge"],), "")],
            rule="mean",
            clamp=tuple(label["clamp"]) if label["clamp"] else None,
            own_template=bool(label["template"]),
        )

    def problems(self) -> Iterator[str]:
        """Stage by stage: its counts, then whatever the table says of its files, then the folders that it trained."""
        if self.constitution.identity != self.manifest["constitution"]:
            yield f"{CONSTITUTION}: is {self.constitution.identity}, {MANIFEST} says {self.manifest['constitution']}"
        stages = {f"cost_usd of {stage['stage']}": stage["cost_usd"] for stage in self.manifest["stages"]}
        yield from _untrue_costs({"cost_usd": self.manifest["cost_usd"], **stages})
        yield from self.stages()
        outputs = [name for stage in self.manifest["stages"] for name in stage["outputs"]]
        with raw_replies(self.ledger) as calls:
            for name in outputs:
                if (prove := PROOFS.get(base_name(name))) is not None:
                    yield from prove(self, round_folder(name), name, calls)
            bill = calls.spent_usd()
            if self.manifest["cost_usd"] > bill + WITHIN_USD:
                yield f"{MANIFEST}: says ${self.manifest['cost_usd']:.6f}, the ledger's bill is ${bill:.6f}"
            self.tell_less(self.manifest["cost_usd"], bill)
            if otherwise := calls.billed_otherwise():
                yield f"{LEDGER}: {otherwise} answers are not on its bill as they are"
        if any(stage["stage"] == RESULT for stage in self.manifest["stages"]):
            yield from self.result(self.settings["rounds"])
        yield from self.summary()
        for name in outputs:
            if (self.path / name / MANIFEST).exists():
                inner = _verified(self.path / name, self.hash_of)
                yield from (f"{name}/{problem}" for problem in inner.problems)

    def stages(self) -> Iterator[str]:
        """Rows in are rows out and rows set aside; what the manifest says of a stage is what its record says."""
        files = self.manifest["files"]
        records = {record.stage: record for record in folder.stage_records(self.path)}
        for told in self.manifest["stages"]:
            stage = StageRecord.model_validate(told)
            own = records.get(stage.stage)
            if own is None or own.model_copy(update={"figures": {}}) != stage:
                yield f"{folder.STAGES.as_posix()}: says otherwise of {stage.stage} than {MANIFEST}"
            aside = sum(stage.set_aside.values())
            if stage.rows_in != stage.rows_out + aside:
                yield f"{stage.stage}: {stage.rows_in} rows in, {stage.rows_out} out and {aside} set aside"
            for name, sha in stage.outputs.items():
                if files.get(name) != sha:
                    yield f"{name}: {MANIFEST} has another hash among its files than for the stage {stage.stage}"
                known = FILES.get(base_name(name))
                if name.endswith(".jsonl") and (known is None or known.counted):
                    rows = (self.path / name).read_bytes().count(b"\n")
                    if rows != stage.rows_out:
                        yield f"{name}: holds {rows} rows, {MANIFEST} says {stage.rows_out}"
        yield from (
            f"{name}: {MANIFEST} has no hash of it"
            for name in (CONSTITUTION, SUMMARY, REPORT)
            if name not in files
        )
        total = sum(stage["cost_usd"] for stage in self.manifest["stages"])
        if abs(total - self.manifest["cost_usd"]) > WITHIN_USD:
            yield f"{MANIFEST}: its stages cost ${total:.6f}, it says ${self.manifest['cost_usd']:.6f}"

    def result(self, last: int) -> Iterator[str]:
        """What a run of several rounds came to is what its last round came to."""
        for name in (POLICY, HELD_OUT):
            own, lasts = (self.path / name, self.path / f"rounds/{last}" / name)
            if folder.digest(own, self.hash_of) != folder.digest(lasts, self.hash_of):
                yield f"{name}: is not that of round {last}, the last"

    def summary(self) -> Iterator[str]:
        """The figures that rows alone give."""
        said = folder.read_json(self.path / SUMMARY)
        figures: dict[str, Any] = {
            **head_to_head.figures(list(self.rows(HELD_OUT, HeldOut))),
            "constitution": self.manifest["constitution"],
            "cost_usd": self.manifest["cost_usd"],
            "wall_s": self.manifest["wall_s"],
            "labels": dict(Counter(str(row.status) for row in self.rows(LABELS, Label))),
        }
        for name, value in _as_json(figures).items():
            if said.get(name) != value:
                yield f"{SUMMARY}: its {name} is not that of the rows"

    def labels(self, own: str, name: str, calls: RawReplies) -> Iterator[str]:
        """Every reply that was compared is a response or a revision, and every label is what its judge replied."""
        yield from self.judged(name, self.rows(name, Label), self.rules, calls)
        sampled = (f"{own}{TUNED_RESPONSES}",) if own else (RESPONSES, TUNED_RESPONSES)
        texts = {
            row.id: row.text
            for source in sampled
            if (self.path / source).exists()
            for row in self.rows(source, Response)
        }
        if not own and (self.path / REVISIONS).exists():
            texts |= {row.id: row.text for row in self.rows(REVISIONS, Revision)}
        for label in self.rows(name, Label):
            for source, reply in zip(label.sources or (), (label.response_a, label.response_b), strict=False):
                if texts.get(source) != reply:
                    yield f"{name}: {label.id}: no response or revision {source} has that text"

    def responses(self, _: str, name: str, calls: RawReplies) -> Iterator[str]:
        """Every response is what the model replied."""
        for some in _batched(self.rows(name, Response), AT_ONCE):
            keys = sorted({row.call for row in some})
            raw = calls.of(keys)
            if len(raw) < len(keys):
                yield from self.lacking(name, keys, raw)
            for row in some:
                yield from (f"{name}: {row.id}: {fault}" for fault in derive.response_faults(row, raw))

    def revisions(self, own: str, name: str, calls: RawReplies) -> Iterator[str]:
        """Every draft and critique is what the critic replied, to a response that is there."""
        responses = {row.id: row for row in self.rows(f"{own}{RESPONSES}", Response)}
        for some in _batched(self.rows(name, Revision), AT_ONCE):
            keys = sorted(
                {call for row in some for call in (*row.calls, *(said.call for said in row.critiques))}
            )
            raw = calls.of(keys)
            if len(raw) < len(keys):
                yield from self.lacking(name, keys, raw)
            for row in some:
                if responses.get(row.response.id) != row.response:
                    yield f"{name}: {row.id}: its response is not in {RESPONSES}"
                yield from (f"{name}: {row.id}: {fault}" for fault in derive.revision_faults(row, raw))

    def preferences(self, own: str, name: str, _: RawReplies) -> Iterator[str]:
        """Preferences from labels."""
        made = (preference(label) for label in self.rows(f"{own}{LABELS}", Label))
        yield from self.preferred(name, (one for one in made if one is not None))

    def held_out(self, _: str, name: str, calls: RawReplies) -> Iterator[str]:
        """Comparisons of the held-out replies, and what the oracle says of each."""
        evaluate = self.settings["evaluate"]
        rules = self.rules._replace(panels=[((evaluate["judge"] or self.settings["judge"],), "")])
        rows = list(self.rows(name, HeldOut))
        yield from self.judged(name, (row.label for row in rows), rules, calls)
        oracle = open_oracle(evaluate["oracle"], self.constitution)
        replies = derive.replies_to([row.prompt for row in rows], calls.stage("respond"))
        for row in rows:
            if (row.after, row.before) != (row.label.response_a, row.label.response_b):
                yield f"{name}: {row.id}: its replies are not those that its label compares"
            for source, reply in zip(row.label.sources or (), (row.after, row.before), strict=False):
                if replies.get(source) != reply:
                    yield f"{name}: {row.id}: no call gave the reply {source} with that text"
            for reply, satisfied in ((row.before, row.satisfied_before), (row.after, row.satisfied_after)):
                if oracle(row.prompt, reply) != satisfied:
                    yield f"{name}: {row.id}: the oracle finds otherwise"

    def probes(self, _: str, name: str, calls: RawReplies) -> Iterator[str]:
        """Every reply to a probe is what a model replied."""
        from preceptor.evaluation.probes import ProbeRow

        rows = list(self.rows(name, ProbeRow))
        keys = sorted({said.call for row in rows for said in (*row.before, *row.after)})
        raw = calls.of(keys)
        if len(raw) < len(keys):
            yield from self.lacking(name, keys, raw)
        for row in rows:
            for said in (*row.before, *row.after):
                if said.call in raw and not derive.said_by(raw[said.call], said.text):
                    yield f"{name}: {row.id}: it is not what was replied to {said.call}"


PROOFS: Mapping[str, Callable[[_RunProof, str, str, RawReplies], Iterator[str]]] = MappingProxyType(
    {
        RESPONSES: _RunProof.responses,
        TUNED_RESPONSES: _RunProof.responses,
        REVISIONS: _RunProof.revisions,
        LABELS: _RunProof.labels,
        PREFERENCES: _RunProof.preferences,
        HELD_OUT: _RunProof.held_out,
        PPO_HELD_OUT: _RunProof.held_out,
        PROBES: _RunProof.probes,
    }
)
"""What a file of a run must agree with beyond its hash and its count: the folder of its round, its name, the calls."""


def _batched(rows: Iterable[RowT], size: int) -> Iterator[list[RowT]]:
    stream = iter(rows)
    while some := list(islice(stream, size)):
        yield some


def _as_json(value: Any) -> dict[str, Any]:
    """As it is read back."""
    read: dict[str, Any] = json.loads(json.dumps(value))
    return read
