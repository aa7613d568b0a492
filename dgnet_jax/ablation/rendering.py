"""A table as Markdown and as LaTeX; `tables` says what is in each."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.paths import printable

_EMPHASIS = re.compile(r"\*|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "*": r"$\cdot$",
}


class Cell(NamedTuple):
    """text, with ± and − as Unicode; bold: the best of its column."""

    text: str
    bold: bool = False


class Table(NamedTuple):
    """name: of its files; head: column titles; rows: of as many cells; notes: below it."""

    name: str
    title: str
    head: list[str]
    rows: list[list[Cell]]
    notes: list[str]


def to_markdown(table: Table) -> str:
    """The table with its title and notes; columns are aligned, for the terminal."""

    def text(cell: Cell) -> str:
        words = escaped(cell.text)
        return f"**{words}**" if cell.bold else words

    body = tabulate(
        [[text(cell) for cell in row] for row in table.rows],
        headers=table.head,
        tablefmt="pipe",
        disable_numparse=True,  # 21.40 stays 21.40
        colalign=["left"] + ["right"] * (len(table.head) - 1),
    )
    notes = "\n".join(f"- {escaped(note)}" for note in table.notes)
    return f"**{table.title}**\n\n{body}\n\n{notes}"


def to_latex(table: Table) -> str:
    """A table environment for the booktabs package.

    Not tabulate's: it would escape the \\textbf of bold cells too, has no caption, and leaves ± and
    − as they are, which LaTeX fonts may lack.
    """

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    body = [
        line([rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text) for cell in row])
        for row in table.rows
    ]
    notes = " ".join(_tex(note) for note in table.notes)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_tex(table.title)}. {notes}}}",
            rf"  \label{{tab:{table.name.replace('_', '-')}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
            r"    \toprule",
            line([_tex(title) for title in table.head]),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Writes NAME.md and NAME.tex of each table."""
    folder.mkdir(parents=True, exist_ok=True)
    forms: Mapping[str, Callable[[Table], str]] = {".md": to_markdown, ".tex": to_latex}
    for table in tables:
        for suffix, form in forms.items():
            with replacing(folder / f"{table.name}{suffix}") as temporary:
                temporary.write_text(printable(form(table)) + "\n", encoding="utf-8")


def escaped(text: str) -> str:
    """Text for Markdown.

    A product's * would begin emphasis, and so would an underscore at the edge of a word.
    """
    return _EMPHASIS.sub(r"\\\g<0>", text)


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
