"""docs/reference/cli.md: every command with its arguments, options and examples, read from the command line itself."""

from collections.abc import Iterator
from typing import Any

import typer

from pipelines.cli.main import PANELS, app

HEAD = """# Command line

This page is written by `make compile` from the code.

`mantis COMMAND -h` prints the same help in the terminal. `mantis --version` prints the versions of package and code.
`mantis --install-completion` makes the shell complete commands, recipes, runs and benchmarks.

Data goes to stdout. Errors, warnings and progress go to stderr where `--json` is given. Tables keep numbers whole: a
table that is wider than the terminal continues in further blocks, and a table in a pipe is as wide as its content.

| exit code | meaning |
|---|---|
| 0 | The command did what it was asked for. |
| 1 | An error. stderr names the problem and the remedy. |
| 2 | The command line is wrong: an unknown command or option, or options that exclude each other. |
| 130 | Ctrl-C. A run saves a checkpoint first, and says what was saved. |
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Return every command as users type it, e.g. `mantis data list`, with its object."""
    root: Any = typer.main.get_command(app)
    yield from _below("mantis", root)


def _below(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    listed = group.list_commands(None)
    for verb in listed:
        command = group.commands[verb]
        if hasattr(command, "commands"):
            yield from _below(f"{name} {verb}", command)
        else:
            yield f"{name} {verb}", command


def command_page() -> str:
    """Return the text of the page."""
    found = list(commands())
    root: Any = typer.main.get_command(app)
    panels = {name: root.commands[name].rich_help_panel for name in root.commands}
    sections = [HEAD]
    for panel in PANELS:
        sections.append(f"## {panel}\n")
        sections += [_section(name, command) for name, command in found if panels[name.split()[1]] == panel]
    return "\n".join(sections)


def _section(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    usage = " ".join([name, *("[OPTIONS]" if options else "",), *(_usage(each) for each in arguments)])
    parts = [f"### {name}\n", f"{_paragraphs(command.help)}\n", f"```\n{usage}\n```\n"]
    if arguments:
        parts.append(_table("argument", [(f"`{_metavar(each)}`", _help(each)) for each in arguments]))
    if options:
        parts.append(_table("option", [(_names(each), _help(each)) for each in options]))
    if command.epilog:
        parts.append(f"{command.epilog}\n")
    return "\n".join(parts)


def _paragraphs(text: str | None) -> str:
    paragraphs = (text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _metavar(param: Any) -> str:
    return str(param.metavar or (param.name or "").upper())


def _usage(param: Any) -> str:
    shown = _metavar(param) + ("..." if param.nargs == -1 else "")
    return shown if param.required else f"[{shown}]"


def _names(param: Any) -> str:
    names = [f"`{name}`" for name in (*param.opts, *param.secondary_opts)]
    value = "" if param.is_flag else f" {param.metavar or param.name.strip('_').upper()}"
    return ", ".join(names) + value.replace("|", "\\|")


def _help(param: Any) -> str:
    """The help, then the default, the bounds and the environment variable."""
    remarks = []
    if param.required:
        remarks.append("required")
    elif isinstance(param.show_default, str) and param.show_default:
        remarks.append(f"default: {param.show_default}")
    elif param.default not in (None, "", False) and not callable(param.default) and not param.secondary_opts:
        remarks.append(f"default: {param.default}")
    elif param.secondary_opts:
        remarks.append(f"default: `{(param.opts if param.default else param.secondary_opts)[0]}`")
    for bound, sign in (("min", "≥"), ("max", "≤")):
        value = getattr(param, bound, None)
        if value is not None:
            remarks.append(f"{sign} {value}")
    if param.envvar:
        remarks.append(f"environment: {param.envvar}")
    text = " ".join((param.help or "").split()).replace("|", "\\|")
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)]
    return "\n".join(lines) + "\n"
