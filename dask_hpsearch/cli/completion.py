"""The command ``completion``: a script that completes commands and options in a shell.

It is made from the parser, so that it has every command and option.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_INSTALL = {
    "bash": 'eval "$(dask-hpsearch completion bash)"          in ~/.bashrc',
    "zsh": 'eval "$(dask-hpsearch completion zsh)"           in ~/.zshrc, after compinit',
    "fish": "dask-hpsearch completion fish | source           in ~/.config/fish/config.fish",
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word that may come next.

    Attributes
    ----------
    text : str
    help : str
        In one line.
    takes_value : bool
        Whether a value follows.
    """

    text: str
    help: str
    takes_value: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and what may follow it.

    Attributes
    ----------
    path : str
        Its words, each after a slash; empty for the program itself.
    words : tuple of Word
        Subcommands, and what arguments may be.
    options : tuple of Word
    """

    path: str
    words: tuple[Word, ...]
    options: tuple[Word, ...]


def add_completion(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command to a parser's.

    Parameters
    ----------
    commands : object
        Of the parser, to which commands are added.
    parser : ArgumentParser
        Whose commands are completed.
    """
    says = "print a script that completes commands in bash, zsh or fish"
    own = commands.add_parser(
        "completion",
        help=says,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lines = "".join(f"\n  {line}" for line in _INSTALL.values())
    own.description = f"{says[0].upper()}{says[1:]}. To use it:\n{lines}"
    own.add_argument(
        "shell", choices=tuple(_SCRIPTS), metavar="SHELL", help=", ".join(_SCRIPTS)
    )
    own.set_defaults(run_command=lambda arguments: _print(arguments.shell, parser))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for a shell.

    Parameters
    ----------
    shell : str
        "bash", "zsh" or "fish".
    parser : ArgumentParser
        Of the program.
    """
    return _SCRIPTS[shell](parser.prog, list(_commands(parser)))


def _print(shell: str, parser: argparse.ArgumentParser) -> int:
    print(script(shell, parser), end="")
    return 0


# --- from the parser ------------------------------------------------------------------


def _commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[Command]:
    words: list[Word] = []
    options: list[Word] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 (argparse has no other list of them)
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for choice in action._choices_actions:  # noqa: SLF001
                words.append(Word(choice.dest, _line(choice.help)))
                below.append((choice.dest, action.choices[choice.dest]))
        elif action.option_strings:
            text = action.option_strings[-1]
            options.append(Word(text, _line(action.help), action.nargs != 0))
        elif action.choices:
            words += [Word(str(choice), "") for choice in action.choices]
        else:
            # As argcomplete does: words that are proposed, but not required.
            words += [Word(one, "") for one in getattr(action, "completer", ())]
    yield Command(path, tuple(words), tuple(options))
    for name, child in below:
        yield from _commands(child, f"{path}/{name}")


def _line(text: str | None) -> str:
    """Return a help text without what argparse replaces, and without quotes."""
    plain = re.sub(r" \([^()]*%\(default\)s[^()]*\)", "", text or "")
    return re.sub(r"['\"`$\\]", "", " ".join(plain.split()))


# --- to a shell -----------------------------------------------------------------------

_BASH = """\
# Completes {prog} in bash.
{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} at="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at/${{COMP_WORDS[i]}}" in
            {paths}) at="$at/${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current")) || COMPREPLY=()
}}
complete -o default -F {function} {prog}
"""


def _bash(prog: str, commands: Sequence[Command]) -> str:
    cases = "\n".join(
        f'        "{one.path}") words="{" ".join(_texts(one))}" ;;' for one in commands
    )
    return _BASH.format(
        prog=prog, function=_function(prog), paths=_paths(commands, "|"), cases=cases
    )


_ZSH = """\
#compdef {prog}
{function}() {{
    local at="" word
    local -a commands options
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at/$word" in
            {paths}) at="$at/$word" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o option options
    else
        _describe command commands || _files
    fi
}}
compdef {function} {prog}
"""


def _zsh(prog: str, commands: Sequence[Command]) -> str:
    cases = "\n".join(
        f'        "{one.path}")\n'
        f"            commands=({_described(one.words)})\n"
        f"            options=({_described(one.options)}) ;;"
        for one in commands
    )
    return _ZSH.format(
        prog=prog, function=_function(prog), paths=_paths(commands, "|"), cases=cases
    )


def _described(words: Sequence[Word]) -> str:
    shown = ((one.text, one.help.replace(":", "\\:")) for one in words)
    return " ".join(f"'{text}:{says}'" if says else f"'{text}'" for text, says in shown)


_FISH = """\
# Completes {prog} in fish.
function {function}_at
    set -l at ""
    for word in (commandline -opc)[2..-1]
        switch "$at/$word"
            case {paths}
                set at "$at/$word"
        end
    end
    test "$at" = "$argv[1]"
end
{lines}
"""


def _fish(prog: str, commands: Sequence[Command]) -> str:
    function = _function(prog)
    lines = []
    for one in commands:
        start = f"complete -c {prog} -n '{function}_at \"{one.path}\"'"
        lines += [f"{start} -f -a {word.text} -d '{word.help}'" for word in one.words]
        for option in one.options:
            kind = "-l" if option.text.startswith("--") else "-s"
            value = " -r" if option.takes_value else ""
            text = option.text.lstrip("-")
            lines.append(f"{start} {kind} {text}{value} -d '{option.help}'")
    return _FISH.format(
        prog=prog,
        function=function,
        paths=_paths(commands, " "),
        lines="\n".join(lines),
    )


def _texts(command: Command) -> list[str]:
    return [one.text for one in (*command.words, *command.options)]


def _paths(commands: Sequence[Command], joined_by: str) -> str:
    return joined_by.join(one.path for one in commands if one.path)


def _function(prog: str) -> str:
    return f"_{re.sub(r'[^a-z]', '_', prog)}"


_SCRIPTS: dict[str, Callable[[str, Sequence[Command]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
