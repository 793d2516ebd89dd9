"""The command line: noun verb, `--json` everywhere."""


def main() -> None:
    """Run the command line."""
    from learnchain.cli.application import run

    run()
