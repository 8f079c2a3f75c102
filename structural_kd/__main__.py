"""``structural-kd``: annotate files of any size, or measure how fast a bundle is."""

import argparse
import sys
from collections.abc import Sequence

from structural_kd import speed
from structural_kd.annotate import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="structural-kd", description="Work with exported bundles.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command.add_command(commands)
    speed.add_command(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
