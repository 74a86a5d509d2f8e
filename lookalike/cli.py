"""The command line: which commands there are, and what becomes of their errors. Commands load when they are called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from streams.errors import ConfigError, DependencyError, LookalikeError

COMMANDS = {
    "demo": "Ingest real pictures, show one query, serve the page.",
    "up": "Run everything on this machine: Kafka, index, worker, API.",
    "publish": "Store pictures and announce them.",
    "similar": "Show the pictures most like one.",
    "status": "Show lag, points, failures.",
    "doctor": "Check settings, services, versions, weights, keys, disk.",
    "tenant": "Show or remove all of a tenant.",
    "worker": "Turn events into points of the index.",
    "normalize": "Turn bucket notifications into events.",
    "api": "Answer queries over HTTP, and serve the page.",
    "pulse": "Tell lag, recall, and what each tenant gets.",
    "index": "The vector index's own process.",
    "topics": "Create or check the Kafka topics.",
    "dead": "List, show and replay what could not be indexed.",
    "keys": "Make, list and revoke access keys of the API.",
    "bench": "Measure this machine.",
}
"""Name and one line of each; the command is `command` in the module of its name in `lookalike.commands`."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """Imports a command's module only when that command is called: `--help` takes no second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"lookalike.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", message="%(prog)s %(version)s")
def cli() -> None:
    """Visual search over the pictures of many tenants.

    \b
    Examples:
      lookalike up                                   everything, on this machine
      lookalike publish --tenant acme photos --wait
      lookalike similar --tenant acme --file cat.jpg

    Settings are environment variables (docs/settings.md). Exit codes: 0 done, 1 the work failed,
    2 usage, 3 configuration (also: a service does not answer), 70 watchdog.
    """


def run(args: Sequence[str]) -> int:
    """Run one command; returns the exit code. What the user must know is one line on stderr, never a traceback."""
    try:
        code = cli.main(args=list(args), prog_name="lookalike", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (ConfigError, DependencyError) as exc:  # a service that does not answer is started or addressed wrongly
        return _say(exc, EXIT_CONFIG)
    except LookalikeError as exc:
        return _say(exc, EXIT_FAILED)
    except BrokenPipeError:  # the reader of a pipe has seen enough; nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _say(error: LookalikeError, code: int) -> int:
    sys.stderr.write(f"lookalike: {' '.join(str(error).split())}\n")
    return code
