"""What a check says: tables and findings, on a terminal or as a page. No MindSpore here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from src.engine.report import printable
from src.inspection import page
from src.inspection.page import Picture

FAILS, LEAK, WARNING, NOTE = "training would fail", "leak", "warning", "note"
STYLES = {FAILS: "fails", LEAK: "leak", WARNING: "warning", NOTE: "note"}
MOST_ROWS = 30  # of a table on a terminal
Pictures = Callable[[], Iterable[Picture]]  # made when a page is written only


@dataclass(frozen=True)
class Finding:
    """One thing that was found, as a sentence, and the pictures that show it."""

    kind: str
    text: str
    pictures: Pictures = tuple


@dataclass(frozen=True)
class Table:
    """Rows of names and numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


@dataclass
class Checked:
    """All that a check found."""

    title: str
    tables: list[Table] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    galleries: list[tuple[str, Pictures]] = field(default_factory=list)

    def say(self, kind: str, text: str, pictures: Pictures = tuple) -> None:
        self.findings.append(Finding(kind, text, pictures))

    @property
    def status(self) -> int:
        """The exit status: 1 where training would fail or the validation data are not new to it."""
        return int(any(finding.kind in (FAILS, LEAK) for finding in self.findings))

    @property
    def ordered(self) -> list[Finding]:
        """The worst first."""
        return sorted(self.findings, key=lambda finding: list(STYLES).index(finding.kind))

    def verdict(self) -> str:
        counts = [(kind, sum(finding.kind == kind for finding in self.findings)) for kind in STYLES if kind != NOTE]
        told = [f"{kind}: {count}" for kind, count in counts if count]
        return ", ".join(told) if told else "nothing is wrong with it"


def as_text(checked: Checked) -> str:
    """For a terminal."""
    parts = [checked.title, *(f"\n{table_text(table)}" for table in checked.tables), ""]
    parts += [f"{finding.kind}: {printable(finding.text)}" for finding in checked.ordered]
    return "\n".join([*parts, f"result: {checked.verdict()}"])


def table_text(table: Table) -> str:
    """Aligned columns: the first one to the left, the others to the right."""
    rows = list(table.rows)
    left_out = len(rows) - MOST_ROWS if len(rows) > MOST_ROWS else 0
    shown = rows[:MOST_ROWS] if left_out else rows
    cells = [[printable(table.title), *table.header[1:]]]
    cells += [[printable(str(row[0])), *(shown_number(value) for value in row[1:])] for row in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, *([f"... {left_out} more in --report FILE.html"] if left_out else [])])


def shown_number(value: str | float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def as_page(checked: Checked) -> str:
    """As HTML, with pictures."""
    found = [
        page.join([page.paragraph(f"{finding.kind}: {finding.text}", STYLES[finding.kind]), shown(finding.pictures())])
        for finding in checked.ordered
    ]
    warns = any(finding.kind == WARNING for finding in checked.findings)
    verdict = page.paragraph(checked.verdict(), "fails" if checked.status else "warning" if warns else "good")
    sections = [page.section("Findings", verdict, *found)]
    sections += [
        page.section(
            table.title, page.table(table.header, table.rows, filtered=len(table.rows) > MOST_ROWS), kind="beside"
        )
        for table in checked.tables
    ]
    sections += [page.section(title, page.gallery(pictures())) for title, pictures in checked.galleries]
    return page.document(checked.title, sections)


def shown(pictures: Iterable[Picture]) -> page.Raw:
    pictures = list(pictures)
    return page.gallery(pictures) if pictures else page.Raw("")
