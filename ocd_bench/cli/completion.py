"""Print a script that completes ocd-bench's words in bash, zsh or fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
SCRIPTS = {
    "bash": """\
_ocd_bench() {
    local IFS=$'\\n'
    COMPREPLY=($(ocd-bench completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -o nosort -F _ocd_bench ocd-bench
""",
    "zsh": """\
#compdef ocd-bench
_ocd_bench() {
    local -a found
    found=(${(f)"$(ocd-bench completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then compadd -a found; else _files; fi
}
compdef _ocd_bench ocd-bench
""",
    "fish": """\
function __ocd_bench_words
    set -l given (commandline -opc) (commandline -ct)
    ocd-bench completion --words $given[2..-1] 2>/dev/null
end
complete -c ocd-bench -a '(__ocd_bench_words)'
""",
}
"""Each asks this command for the words that can follow; where there are none, the shell offers files."""

PRESETS = ("quick", "default", "paper")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``completion SHELL``."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script for completion in bash, zsh or fish",
        description=__doc__,
        epilog='bash: eval "$(ocd-bench completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc after compinit; '
        "fish: ocd-bench completion fish > ~/.config/fish/completions/ocd-bench.fish",
    )
    parser.add_argument("shell", nargs="?", choices=SHELLS, help="which shell")
    parser.add_argument("--words", nargs=argparse.REMAINDER, metavar="WORD", help="print what can complete the last word")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script, or the words that can complete the last of ``--words``."""
    from ocd_bench.errors import UsageError

    if args.words is not None:
        print("\n".join(candidates(args.words or [""])))
    elif args.shell is None:
        raise UsageError(f"completion: give a shell: {', '.join(SHELLS)}")
    else:
        print(SCRIPTS[args.shell], end="")
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """What can complete the last word of a command line (without the program's name); empty where a file may follow."""
    from ocd_bench.cli import build_parser

    *before, last = words
    parser: argparse.ArgumentParser = build_parser()[0]
    for word in before:
        known = _subcommands(parser)
        if word in known:
            parser = known[word]
    name = parser.prog.rpartition(" ")[2]
    option = next((action for action in parser._actions if before and before[-1] in action.option_strings), None)
    if option is not None and option.nargs != 0:
        return _matching(_values(name, option), last)
    if last.startswith("-"):
        return _matching((text for action in parser._actions for text in action.option_strings if text.startswith("--")), last)
    positional = [action for action in parser._actions if not action.option_strings]
    return _matching([*_subcommands(parser), *(word for action in positional for word in _values(name, action))], last)


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def _values(command: str, action: argparse.Action) -> Iterable[str]:
    """The values of an option or argument that are known."""
    if isinstance(action, argparse._SubParsersAction):
        return ()
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    name = action.dest
    if name == "preset":
        return PRESETS
    if name in ("task", "methods", "dataset", "assignments"):
        return _names(name)
    if name == "runs" or (name in ("baseline", "candidate") and command == "compare"):
        return sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    return ()


def _names(what: str) -> list[str]:
    """Names of tasks, methods or datasets, or keys of settings; imports no torch."""
    from ocd_bench.plugin.manager import load_plugins

    manager = load_plugins(declared=True, warn=lambda line: None)
    if what == "task":
        return [*manager.tasks, "all"]
    if what == "methods":
        return [*manager.methods, "all"]
    if what == "dataset":
        return [dataset.name for task in manager.tasks.values() for dataset in task.datasets()]
    import dataclasses

    from ocd_bench.config import known_sections

    sections = known_sections(list(manager.tasks.values()), list(manager.methods.values()))
    return [f"{name}.{field.name}=" for name, settings in sections.items() for field in dataclasses.fields(settings)]


def _matching(words: Iterable[str], last: str) -> list[str]:
    """Words that begin as the last one does. Of a list with commas, only what follows the last comma is completed."""
    head, comma, tail = last.rpartition(",")
    return [f"{head}{comma}{word}" for word in dict.fromkeys(words) if word.startswith(tail)]
