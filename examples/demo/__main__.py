"""Runs the demo: `python -m examples.demo`, or `make demo`, which installs what it needs first."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the demo and return its exit code."""
    try:
        from examples.demo.show import run
    except ModuleNotFoundError as error:
        print(f"demo failed: {error.name} is not installed: run `make setup`, then `make demo`", file=sys.stderr)
        return 1
    return run()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
