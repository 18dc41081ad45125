"""`python -m leaderboard.cli`: the command `milan`."""

from leaderboard.cli.main import main

if __name__ == "__main__":
    main()
