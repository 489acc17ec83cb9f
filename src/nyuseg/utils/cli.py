"""What all entry scripts share: options, one-line errors, exit codes."""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nyuseg.utils.errors import UserError, is_out_of_memory
from nyuseg.utils.files import PROJECT, find
from nyuseg.utils.signals import Interrupted, catch_signals, stop_if_asked
from nyuseg.utils.streams import keep_streams


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of examples; a wrong option is one line and exit code 1."""

    def __init__(self, description: str | None, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def add_oof(parser: argparse.ArgumentParser) -> None:
    """Add --oof, the folder of all experiments."""
    parser.add_argument(
        "--oof", default=str(PROJECT / "oof"), metavar="DIR", help="folder of all experiments"
    )


def add_input(parser: argparse.ArgumentParser, part: str = "train/") -> None:
    """Add --input, for a command that opens an experiment: where its data is now."""
    parser.add_argument(
        "--input", metavar="DIR", help=f"folder with {part} (default: where it was trained)"
    )


def given_input(options: argparse.Namespace) -> Path | None:
    """The folder of --input; None without the option."""
    return find(options.input) if options.input else None


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    """Add --set KEY=VALUE, to be given any number of times; each is printed as it is read."""
    parser.add_argument(
        "--set",
        action=_Override,
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=f"{text}; docs/config.md has every key",
    )


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add --ray, the cluster to work on."""
    parser.add_argument("--ray", metavar="ADDRESS", help="on a Ray cluster: auto, or local")


class _Override(argparse.Action):
    def __call__(
        self, _: object, namespace: argparse.Namespace, value: Any, __: object = None
    ) -> None:
        print(f"override: {value}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), value])


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run an entry script's main and exit: 0, 1 after one line about what is wrong, or 128 plus
    the number of the signal that stopped it."""
    catch_signals()
    keep_streams()
    # What imports make is there to stay, and there is a lot of it: searching it again and again for
    # garbage takes a quarter of the time in which a command that needs torch begins and ends.
    gc.set_threshold(20_000, 20, 20)
    code = _exit_code(main, argv)
    gc.freeze()
    sys.exit(code)


def _exit_code(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> int:
    try:
        main(argv)
        sys.stdout.flush()
        stop_if_asked()  # All is done; but what called this command, in a loop, should know.
    except UserError as error:
        # From a DataLoader's worker it comes with the worker's traceback around it.
        message = str(error).rsplit("nyuseg.utils.errors.UserError: ", 1)[-1].strip()
        print(f"error: {message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interruption:
        text = "what is finished is on disk; run the same command again to go on"
        print(f"stopped by {interruption}: {text}", file=sys.stderr)
        return interruption.code
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(
            "error: out of memory; in training, try --set compute.checkpointing=true, or "
            "--set compute.accumulate=2; in inference, fewer networks by --fold, or end another "
            "program that holds the memory",
            file=sys.stderr,
        )
        return 1
    return 0
